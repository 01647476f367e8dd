"""A client's monitor of a channel. Used by whoever has the lock of the server's loop."""

from __future__ import annotations

import logging
from collections import deque
from typing import Protocol

from pvapy_stream.pva.net.base_request import Request, Requester
from pvapy_stream.pva.net.distributor import asked_share
from pvapy_stream.pva.net.encoded_updates import Update
from pvapy_stream.pva.net.server_channel import Channel
from pvapy_stream.pva.wire import operations, request
from pvapy_stream.pva.wire.buffers import Buffer, Reader
from pvapy_stream.pva.wire.stream import Command
from pvapy_stream.pva.wire.types import AnyValue

_QUEUE = 4  # updates that wait for a client that does not say how many it wants
_LONGEST_QUEUE = 2**16
_LARGEST_QUEUE = 4 * 2**30  # bytes that wait for one client, if they are more than `_QUEUE` updates
_LARGEST_WINDOW = 2**31
TURN = 2**17  # bytes that are sent in one turn, if an update is not larger

_log = logging.getLogger(__name__)


class MonitorClient(Requester, Protocol):
    """What monitors need of a connection."""

    peer: str

    @property
    def clear(self) -> bool:
        """Whether nothing waits to be sent."""
        ...

    def send_now(self, parts: list[Buffer], size: int) -> None:
        """Send a message at once, as far as the client takes it; only if it is clear."""
        ...

    @property
    def unsent(self) -> bool:
        """Whether something waits to be sent that is no monitor's."""
        ...

    @property
    def arrived(self) -> bool:
        """Whether the client's host has all that was sent."""
        ...

    def gather(self, parts: list[Buffer], size: int) -> None:
        """Send a message with those that follow; only if it is clear."""
        ...

    def keep(self, parts: list[Buffer], size: int) -> None:
        """Have a message sent after what waits; it is looked whether the client takes it, then."""
        ...

    def flush(self) -> None:
        """Send what waits, as far as the client takes it."""
        ...

    def wants_turn(self, monitor: MonitorRequest) -> None:
        """Give the monitor a turn to send when there is room."""
        ...


def _queue_size(wanted: str) -> int:
    if not (wanted.isascii() and wanted.isdigit()):
        return _QUEUE
    # Python refuses to read numbers of thousands of digits.
    return min(max(int(wanted[:20]), 2), _LONGEST_QUEUE)


class MonitorRequest(Request):
    """Sends updates.

    Those that wait for a slow client are kept in a queue of the size that it asks for. When the
    queue is full, the newest ones are merged, and the client learns which changes it has missed.
    For a client that acknowledges updates (pipeline), the channel's overflow policy decides.

    Attributes:
        pipeline: whether the client acknowledges updates.
        share: what it asks of the distributor.
        ended: whether it gets no more updates.
        stuck: whether it is no longer waited for, until it takes an update.
    """

    command = Command.MONITOR
    client: MonitorClient

    def __init__(
        self, client: MonitorClient, channel: Channel, number: int, asked: AnyValue
    ) -> None:
        super().__init__(client, channel, number, asked)
        self._size = _queue_size(request.options(asked).get("queueSize", ""))
        self._selection = channel.selection(self.kind)
        self.share = asked_share(asked)
        self.pipeline = self.stuck = self.ended = self.active = False
        self._waiting: deque[tuple[Update, int, int]] = deque()
        # Updates that the client has room for; if it does not say, there is no limit.
        self._window = 1
        # Changes that were dropped: they are part of the next update.
        self._lost = 0

    def open_window(self, size: int) -> None:
        """The client will say what it has taken; it has room for so many."""
        self.pipeline = True
        self._window = size

    def handle(self, flags: int, reader: Reader) -> None:
        if flags & operations.PIPELINE:
            room = reader.number("I")
            if self.pipeline:
                self._window = min(self._window + room, _LARGEST_WINDOW)
        if flags & operations.STOP:
            if flags & operations.START == operations.START:
                self._start()
            else:
                self._stop()
        self._ask()

    def _start(self) -> None:
        if self.active or self.ended:
            return
        self.active = True
        self._lost = 0
        self._waiting.append((self.channel.current, 1, 0))
        self.channel.begin(self)

    def _stop(self) -> None:
        if self.active:
            self.active = False
            self._waiting.clear()
            self.channel.leave(self)

    def end(self) -> None:
        self._stop()
        self.ended = True

    # -- updates ---------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether the next update finds no room."""
        count = len(self._waiting)
        if count >= self._size:
            return True
        # To ask for the size of each would cost more than to send it.
        if count < _QUEUE or count % _QUEUE:
            return False
        return count * self._waiting[-1][0].nbytes > _LARGEST_QUEUE

    @property
    def idle(self) -> bool:
        """Whether nothing waits, here and in the connection, and all has arrived."""
        client = self.client
        return not self._waiting and client.clear and not client.unsent and client.arrived

    def post(self, update: Update, gather: bool = False) -> None:
        """The channel has changed.

        Args:
            update: the change.
            gather: whether more follows at once, so that they may be sent together.
        """
        # One that gets its share has not seen what changed between.
        bits = 1 if self.share is not None else self._selection.narrowed(update.bits)
        if not bits:
            return
        overrun, self._lost = self._lost, 0
        bits |= overrun
        if not self._waiting and self._window and self.client.clear:
            encoded = update.encoded(self._selection, bits, overrun)
            if self.pipeline:
                self._window -= 1
            self.stuck = False
            send = self.client.gather if gather else self.client.send_now
            send(encoded.message(self.number), encoded.size)
            return
        if self.full:
            self.client.flush()
            if not self.active:
                return
            if self.full:
                self._overflow(update, bits, overrun)
                return
        self._waiting.append((update, bits, overrun))
        if len(self._waiting) == 1:
            self._ask()

    def _overflow(self, update: Update, bits: int, overrun: int) -> None:
        waiting = self._waiting
        policy = self.channel.overflow if self.pipeline else "merge"
        if policy == "merge":
            _, before, missed = waiting[-1]
            waiting[-1] = update, before | bits, overrun | missed | (before & bits)
            self.channel.overruns += 1
            return
        self.channel.dropped += 1
        if policy == "drop-newest":
            self._lost = bits | overrun
            return
        waiting.append((update, bits, overrun))
        _, before, missed = waiting.popleft()
        oldest, own, known = waiting[0]
        waiting[0] = oldest, own | before, known | missed | before

    def _ask(self) -> None:
        if self.ready:
            self.client.wants_turn(self)

    @property
    def ready(self) -> bool:
        """Whether there is something that may be sent."""
        return self.active and bool(self._waiting) and self._window > 0

    def take_turn(self) -> None:
        """Send some updates: those of other monitors of the client have their turns, too."""
        size, waiting, client = 0, self._waiting, self.client
        while size < TURN and self.ready:
            update, bits, overrun = waiting.popleft()
            if self.pipeline:
                self._window -= 1
            encoded = update.encoded(self._selection, bits, overrun)
            size += encoded.size
            client.keep(encoded.message(self.number), encoded.size)
        if size:
            self.stuck = False
            self.channel.made_room()
        self._ask()

    def give_up(self, seconds: float) -> None:
        """It takes nothing: wait for it no longer."""
        if not self.stuck:
            self.stuck = True
            _log.warning(
                "channel %s: %s takes nothing for %g s; updates for it are dropped until it does",
                self.channel.name, self.client.peer, seconds,
            )  # fmt: skip

    def close(self) -> None:
        """Send the client the end of the monitor."""
        self.reply(operations.DESTROY)
