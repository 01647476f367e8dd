"""Channels of a server, and puts on their way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal, Protocol

from pvapy_stream.pva.net.distributor import Group, Share
from pvapy_stream.pva.net.encoded_updates import Selection, Update, Value, value_update
from pvapy_stream.pva.net.kept_updates import KeptUpdates
from pvapy_stream.pva.wire.status import OK, Status
from pvapy_stream.pva.wire.types import AnyValue, Structure

# The newest updates are merged, as for other clients; or one is dropped.
Overflow = Literal["merge", "drop-newest", "drop-oldest"]

PATIENCE = 4.0  # s

_SELECTIONS = 64  # kept; more are made anew


class ChannelClient(Protocol):
    """A connection, as a channel knows it."""

    def flush(self) -> None:
        """Send what waits, as far as the client takes it."""
        ...


class ChannelMonitor(Protocol):
    """A client's monitor, as its channel and who publishes there know it.

    Attributes:
        share: what it asks of the distributor.
        pipeline: whether the client acknowledges updates.
        active: whether it is started.
        stuck: whether it is no longer waited for, until it takes an update.
    """

    share: Share | None
    pipeline: bool
    active: bool
    stuck: bool

    @property
    def client(self) -> ChannelClient:
        """Whose it is."""
        ...

    @property
    def full(self) -> bool:
        """Whether the next update finds no room."""
        ...

    @property
    def idle(self) -> bool:
        """Whether nothing waits, here and in the connection, and all has arrived."""
        ...

    def post(self, update: Update, gather: bool = False) -> None:
        """The channel has changed; with `gather`, more follows at once."""
        ...

    def give_up(self, seconds: float) -> None:
        """It takes nothing: wait for it no longer."""
        ...


class Put:
    """A put that a client waits for.

    It belongs to the server until it is claimed, and may be withdrawn until then: the client has
    gone, or waits no longer. Who has claimed it must call `finish`.

    Attributes:
        value: the whole structure with what was put; nobody else has it.
        bits: bit set of the fields that were put.
        waits: whether the client waits until all is over that the put begins (``block=true``).
        since: when it came, and then when it was claimed, s of `time.monotonic`.
        claimed: whether somebody has it.
    """

    def __init__(
        self,
        value: Value,
        bits: int,
        done: Callable[[Put, Status], None],
        waits: bool = False,
    ) -> None:
        self.value = value
        self.bits = bits
        self.waits = waits
        self.since = time.monotonic()
        self.claimed = False
        self._done = done
        self._lock = threading.Lock()
        self._finished = False

    def claim(self) -> bool:
        """Take it; False if it was withdrawn, or somebody else has it."""
        with self._lock:
            if self.claimed:
                return False
            self.claimed = True
            self.since = time.monotonic()
            return True

    def withdraw(self) -> bool:
        """Take it back; False if somebody has it."""
        return self.claim()

    def finish(self, status: Status = OK) -> None:
        """Reply with the result to the client. Only the first call counts."""
        with self._lock:
            if self._finished:
                return
            self.claimed = self._finished = True
        self._done(self, status)

    def forget(self) -> None:
        """It is finished: it may wait in a queue for long, but not with what was put."""
        self.value = {}


class Call(Put):
    """A call that a client waits for: as a put, and `answer` gives what it returns.

    Attributes:
        argument: of the call; nobody else has it.
        returned: what is returned; None while that is not known.
    """

    def __init__(self, argument: AnyValue, done: Callable[[Put, Status], None]) -> None:
        super().__init__({}, 0, done)
        self.argument = argument
        self.returned: AnyValue | None = None

    def answer(self, value: AnyValue) -> None:
        """Reply to the client that it was done. Only the first call of this and `finish` counts."""
        self.returned = value
        self.finish()

    def forget(self) -> None:
        self.argument = AnyValue()


class Channel:
    """A structure that clients get and monitor, and may put to.

    Used by whoever has the lock of the server's loop.

    Args:
        name: of the channel.
        kind: type of the structure.
        value: the structure at first.
        on_put: called with each put, in the server's thread: it must not wait. None: clients may
            not put.
        may_put: whether a client may put, by its user name and address.
        patience: how long a put waits to be claimed, s; then it is withdrawn, and refused.

    Attributes:
        current: what it holds.
        late: how many puts were withdrawn because nobody claimed them in time.
        clients: connections of clients that have opened it.
        monitors: those that are started.
        overflow: what happens to updates for a client that acknowledges them, and is too slow. A
            source that can wait for such clients looks first whether they are full.
        dropped: updates that were dropped for single clients.
        overruns: updates for single clients that were merged with the one before.
        blocks: whether clients may wait until all is over that their put begins.
        kept: what was published, for clients that missed some of it; None: it is not kept.
        past_requests: of clients that are being sent some of it.
    """

    def __init__(
        self,
        name: str,
        kind: Structure,
        value: Value | Update,
        on_put: Callable[[Put], None] | None = None,
        may_put: Callable[[str, str], bool] = lambda user, host: True,
        patience: float = PATIENCE,
    ) -> None:
        self.name = name
        self.kind = kind
        self.current = value if isinstance(value, Update) else value_update(kind, value)
        self.on_put = on_put
        self.may_put = may_put
        self.patience = patience
        self.late = self.dropped = self.overruns = 0
        self.overflow: Overflow = "merge"
        self.blocks = False
        self.clients: set[ChannelClient] = set()
        self.monitors: set[ChannelMonitor] = set()
        self.kept: KeptUpdates | None = None
        self.past_requests: set[ChannelMonitor] = set()
        # Called when a monitor has room again, or has ended.
        self.made_room: Callable[[], None] = lambda: None
        # Of those that get all updates; replaced when it changes.
        self._plain: tuple[ChannelMonitor, ...] = ()
        self._groups: dict[str, Group[ChannelMonitor]] = {}
        self._selections: dict[Structure, Selection] = {}
        # What the puts under way will make of it: the next one may name some fields only.
        self._newest: Value | None = None

    @property
    def value(self) -> Value:
        """The structure."""
        return self.current.value

    @property
    def base(self) -> Value:
        """What a put of some fields changes."""
        return self.value if self._newest is None else self._newest

    def expect(self, put: Put) -> None:
        """A put has come."""
        self._newest = put.value

    def settle(self, put: Put, status: Status) -> None:
        """A put was done or refused."""
        if self._newest is put.value:
            self._newest = None
        if status.done:
            self.update(put.value, put.bits)

    def update(self, value: Value, bits: int = 1) -> None:
        """Replace the structure, and send the change to those who monitor it.

        Args:
            value: the structure; not changed by anybody from now on.
            bits: bit set of the fields that changed.
        """
        self.post(value_update(self.kind, value, bits))

    def post(self, update: Update) -> None:
        """As `update`."""
        self.hold(update)
        for monitor in self.takers(update):
            monitor.post(update)

    def hold(self, update: Update) -> None:
        """Make an update the current one; then it is posted to its takers."""
        self.current = update

    def takers(self, update: Update) -> tuple[ChannelMonitor, ...]:
        """The monitors that get an update; called once for each."""
        if not self._groups:
            return self._plain
        shared = [one for group in self._groups.values() for one in group.takers(update)]
        return (*self._plain, *shared)

    # -- monitors --------------------------------------------------------------------------------

    def selection(self, part: Structure) -> Selection:
        """The selection of a part of the structure, one for all clients."""
        found = self._selections.get(part)
        if found is None:
            found = Selection(self.kind, self.kind if part == self.kind else part)
            if len(self._selections) < _SELECTIONS:
                self._selections[part] = found
        return found

    def begin(self, monitor: ChannelMonitor) -> None:
        """A monitor is started."""
        self.monitors.add(monitor)
        if monitor.share is None:
            self._plain = (*self._plain, monitor)
        else:
            group = self._groups.setdefault(monitor.share.group, Group())
            group.add(monitor, monitor.share)

    def leave(self, monitor: ChannelMonitor) -> None:
        """A monitor is stopped."""
        self.monitors.discard(monitor)
        if monitor.share is None:
            self._plain = tuple(one for one in self._plain if one is not monitor)
        elif (group := self._groups.get(monitor.share.group)) is not None:
            group.remove(monitor)
            if group.empty:
                del self._groups[monitor.share.group]
        self.made_room()


class ServiceChannel(Channel):
    """A service that clients call.

    Args:
        name: of the channel.
        on_call: called with each call, in the server's thread: it must not wait. Calls of one
            client come in its order.
    """

    def __init__(self, name: str, on_call: Callable[[Call], None]) -> None:
        super().__init__(name, Structure(), {})
        self.on_call = on_call
