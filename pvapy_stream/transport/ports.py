"""The protocols of receivers and publishers, as stages use them.

A transport does not depend on stages: it passes objects to a function, or takes them. A new
transport is one file in this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct, field

if TYPE_CHECKING:
    from pvapy_stream.pva.lazy import StreamObject


# Takes an object; returns False if it was rejected.
Deliver: TypeAlias = "Callable[[StreamObject], bool | None]"


class Return(NamedTuple):
    """How the other side reconnected.

    Attributes:
        shown: its first object is its current object, which may be old.
        anew: it is another program than before, whose ids start again; None: it is another program,
            and it is not known whether its ids start again.
    """

    shown: bool = True
    anew: bool | None = False


# Takes the first object after the other side reconnected.
DeliverAgain: TypeAlias = "Callable[[StreamObject, Return], bool | None]"


class ReceiverCounts(Struct, frozen=True):
    """Counts of a receiver since its start, or since a baseline.

    Attributes:
        received: objects delivered.
        overruns: objects that the sender replaced before they were received.
        errors: failures of the transport.
        rejected: objects that arrived and were dropped by the transport.
        drops: drops by policy; empty if the transport drops nothing.
    """

    received: int = 0
    overruns: int = 0
    errors: int = 0
    rejected: int = 0
    drops: Mapping[str, int] = field(default_factory=dict[str, int])

    def plus(self, other: ReceiverCounts) -> ReceiverCounts:
        """Sum of the counts of two receivers."""
        drops = {
            policy: self.drops.get(policy, 0) + other.drops.get(policy, 0)
            for policy in {**self.drops, **other.drops}
        }
        return ReceiverCounts(
            self.received + other.received,
            self.overruns + other.overruns,
            self.errors + other.errors,
            self.rejected + other.rejected,
            drops,
        )

    def since(self, base: ReceiverCounts) -> ReceiverCounts:
        """Counts after a baseline; never less than 0, whatever a transport counts."""
        return ReceiverCounts(
            max(0, self.received - base.received),
            max(0, self.overruns - base.overruns),
            max(0, self.errors - base.errors),
            max(0, self.rejected - base.rejected),
            {policy: max(0, n - base.drops.get(policy, 0)) for policy, n in self.drops.items()},
        )


class PublisherCounts(Struct, frozen=True):
    """Counts of a publisher since its start, or since a baseline.

    Attributes:
        published: objects sent.
        errors: failures of the transport, including those with a successful retry.
        rejected: deliveries to single subscribers that were dropped by the overflow policy.
        copies: objects that were copied instead of shared, by reason; empty if the transport shares
            no memory.
    """

    published: int = 0
    errors: int = 0
    rejected: int = 0
    copies: Mapping[str, int] = field(default_factory=dict[str, int])

    def since(self, base: PublisherCounts) -> PublisherCounts:
        """Counts after a baseline; never less than 0, whatever a transport counts."""
        return PublisherCounts(
            max(0, self.published - base.published),
            max(0, self.errors - base.errors),
            max(0, self.rejected - base.rejected),
            {reason: max(0, n - base.copies.get(reason, 0)) for reason, n in self.copies.items()},
        )


class Receiver(Protocol):
    """Receives the objects of a channel."""

    def start(self, deliver: Deliver, deliver_again: DeliverAgain | None = None) -> None:
        """Begin to call `deliver` with each object, from a thread of the transport.

        The object may be reused by the transport after `deliver` returns: copy what is kept.
        `deliver_again` gets the first object after the other side reconnected, which may have been
        delivered before.
        """
        ...

    def stop(self, patience: float = 0.0) -> Sequence[StreamObject]:
        """Deliver waiting objects for at most `patience` s, and then nothing more.

        When this returns, no call of `deliver` is running. Remaining objects are returned; objects
        in a queue at the server are discarded.
        """
        ...

    def counts(self) -> ReceiverCounts:
        """Counts since the start, which never decrease.

        An object counts as received before it is delivered.
        """
        ...

    @property
    def connected(self) -> bool:
        """Whether the other side is connected."""
        ...

    @property
    def was_connected(self) -> bool:
        """Whether it was ever connected."""
        ...

    def keep_up(self) -> None:
        """Called a few times a second: check the connection."""
        ...

    def newest(self, timeout: float) -> StreamObject | None:
        """The other side's newest object, or None if it is not available within `timeout` s."""
        ...


@runtime_checkable
class Troubled(Protocol):
    """A receiver that can report why no objects arrive."""

    @property
    def problem(self) -> str:
        """Why no objects arrive, such as a refusal by the server; "" if there is no problem."""
        ...


@runtime_checkable
class Identified(Protocol):
    """A receiver that knows which program it receives from.

    Attributes:
        source: identifies the program whose objects are delivered; "": not known.
        first_source: identifies the first one.
    """

    source: str
    first_source: str


class Publisher(Protocol):
    """Publishes objects on a channel. Transports derive from it and override what they need.

    Attributes:
        takes_lazy: whether a `pva.lazy.LazyObject` is sent without building a PvObject.
        knows_subscribers: whether the transport knows how many subscribers there are.
        subscribers: their number, if the transport knows it; else 0.
        clients: number of clients that have opened the channel, subscribers included; else 0.
        problem: what hinders it at present, such as a subscriber that takes nothing, or "".
    """

    takes_lazy: bool = False
    knows_subscribers: bool = False

    @property
    def subscribers(self) -> int:
        return 0

    @property
    def clients(self) -> int:
        return self.subscribers

    @property
    def problem(self) -> str:
        return ""

    def start(self) -> None:
        """Make the channel known to subscribers, if that is possible without an object."""

    def open(self, prototype: StreamObject) -> None:
        """Publish an opening object of the channel's structure; `publish` does it if necessary.

        Raises:
            TransportError: the channel is not possible.
        """

    def publish(self, obj: StreamObject) -> None:
        """Send one object.

        Raises:
            TransportError: it cannot be sent; the publisher has counted the error.
        """
        ...

    def publish_late(self, obj: StreamObject) -> None:
        """Send an object that follows larger ids and is marked so; errors as of `publish`."""
        self.publish(obj)

    def reserve(self, nbytes: int) -> object | None:
        """Memory with a writable buffer of so many bytes, or more, for the payload of an object.

        An object that is then published with all of that memory as its payload is not copied, and
        its arrays become read-only. Memory that is not published is given back at its end. It may
        be called in any thread. None: there is no such memory, now or ever.
        """
        return None

    def finish(self, patience: float) -> None:
        """Let subscribers take queued objects, for at most `patience` s; none will follow."""

    def stop(self) -> None:
        """Remove the channel."""

    def counts(self) -> PublisherCounts:
        """Counts since the start, which never decrease."""
        ...
