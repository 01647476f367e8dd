"""What every way in and every way out looks like to a stage.

A transport knows nothing of stages: it hands objects to a function, or takes them. A new transport
is one file beside this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

# Takes an object; False says that it was rejected.
Deliver = Callable[[Any], bool | None]


class Return(NamedTuple):
    """How the other side came back.

    Attributes:
        shown: its first object is what it shows to whoever comes, and may be an old one.
        anew: it is another program than before, and one that begins to count its ids anew; None:
            it is another program, and whether it counts anew is not known.
    """

    shown: bool = True
    anew: bool | None = False


# Takes the first object after the other side came back.
DeliverAgain = Callable[[Any, Return], bool | None]


@dataclass(frozen=True, slots=True)
class ReceiverCounts:
    """What a receiver counted since its start, or since a baseline.

    Attributes:
        received: objects delivered.
        overruns: objects that the sender says it replaced before we took them.
        errors: failures of the transport.
        rejected: objects that came and were dropped by the transport.
        drops: what it dropped, by policy; empty where a transport drops nothing.
    """

    received: int = 0
    overruns: int = 0
    errors: int = 0
    rejected: int = 0
    drops: Mapping[str, int] = field(default_factory=dict[str, int])

    def plus(self, other: ReceiverCounts) -> ReceiverCounts:
        """What two receivers counted."""
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
        """What was counted after a baseline; never less than 0, whatever a transport counts."""
        return ReceiverCounts(
            max(0, self.received - base.received),
            max(0, self.overruns - base.overruns),
            max(0, self.errors - base.errors),
            max(0, self.rejected - base.rejected),
            {policy: max(0, n - base.drops.get(policy, 0)) for policy, n in self.drops.items()},
        )


@dataclass(frozen=True, slots=True)
class PublisherCounts:
    """What a publisher counted since its start, or since a baseline.

    Attributes:
        published: objects sent.
        errors: failures of the transport, those that a second attempt mended too.
        rejected: deliveries to single subscribers that were given up, by the overflow policy.
    """

    published: int = 0
    errors: int = 0
    rejected: int = 0

    def since(self, base: PublisherCounts) -> PublisherCounts:
        """What was counted after a baseline; never less than 0, whatever a transport counts."""
        return PublisherCounts(
            max(0, self.published - base.published),
            max(0, self.errors - base.errors),
            max(0, self.rejected - base.rejected),
        )


class Receiver(Protocol):
    """A way in."""

    def start(self, deliver: Deliver, deliver_again: DeliverAgain | None = None) -> None:
        """Begin to call `deliver` with each object, from a thread of the transport.

        The object may be reused by the transport after `deliver` returns: copy what is kept.
        `deliver_again` gets the first object after the other side came back, which may be one
        that was delivered before.
        """
        ...

    def stop(self, patience: float = 0.0) -> list[Any]:
        """Deliver what waits here for us, for at most `patience` s, and then nothing more.

        When this returns, no call of `deliver` is under way. What is left is returned; a server
        that keeps a queue for us throws away what is in it.
        """
        ...

    def counts(self) -> ReceiverCounts:
        """What was counted since the start; no count ever becomes smaller.

        An object counts as received before it is delivered.
        """
        ...

    @property
    def connected(self) -> bool:
        """Whether the other side is there."""
        ...

    @property
    def was_connected(self) -> bool:
        """Whether it has ever been there."""
        ...

    def keep_up(self) -> None:
        """Called a few times a second: look after the connection."""
        ...

    def newest(self, timeout: float) -> Any | None:
        """The other side's newest object, or None if it cannot be had within `timeout` s."""
        ...


@runtime_checkable
class Troubled(Protocol):
    """A receiver that can say why nothing comes."""

    @property
    def problem(self) -> str:
        """What keeps objects from coming, such as a refusal by the server; "" if nothing does."""
        ...


@runtime_checkable
class Identified(Protocol):
    """A receiver that knows which program it receives from.

    Attributes:
        source: names the program whose objects are delivered now, and no other; "": not known.
        first_source: names the one that was there first.
    """

    source: str
    first_source: str


class Publisher(Protocol):
    """A way out. Transports derive from it and leave out what they have no use for.

    Attributes:
        takes_lazy: whether a `pva.lazy.LazyObject` is sent without building a PvObject.
        knows_subscribers: whether the transport knows how many subscribers there are.
        subscribers: how many there are, where the transport knows; else 0.
        clients: who has opened the channel, as a subscriber or not yet; as `subscribers`.
    """

    takes_lazy: bool = False
    knows_subscribers: bool = False

    @property
    def subscribers(self) -> int:
        return 0

    @property
    def clients(self) -> int:
        return self.subscribers

    def start(self) -> None:
        """Show oneself to subscribers, if that needs no object."""

    def open(self, prototype: Any) -> None:
        """Show an object of the structure that will be published; `publish` does it if need be.

        Raises:
            TransportError: there can be no such channel.
        """

    def publish(self, obj: Any) -> None:
        """Send one object.

        Raises:
            TransportError: it cannot be sent; the publisher has counted that.
        """
        ...

    def finish(self, patience: float) -> None:
        """Let subscribers take what is under way, for at most `patience` s; nothing will follow."""

    def stop(self) -> None:
        """Take the channel away."""

    def counts(self) -> PublisherCounts:
        """What was counted since the start; no count ever becomes smaller."""
        ...
