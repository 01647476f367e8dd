"""Mode ``memory``: within one process, for tests of processors, stages and chains of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.mode import (
    InputMode,
    Mode,
    OutputMode,
    PublisherOptions,
    ReceiverOptions,
)
from pvapy_stream.transport.ports import (
    Deliver,
    DeliverAgain,
    Publisher,
    PublisherCounts,
    ReceiverCounts,
)

if TYPE_CHECKING:
    from pvapy_stream.pva.lazy import StreamObject

_LAST_DELIVERY = 5.0  # s; minimum time for an object in delivery at the end


class _Channels:
    """Receivers and publishers of this process by channel."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._receivers: dict[str, list[MemoryReceiver]] = {}
        self._publishers: dict[str, set[MemoryPublisher]] = {}

    def add(self, end: MemoryReceiver | MemoryPublisher) -> None:
        with self._lock:
            if isinstance(end, MemoryReceiver):
                self._receivers.setdefault(end.channel, []).append(end)
            else:
                self._publishers.setdefault(end.channel, set()).add(end)

    def remove(self, end: MemoryReceiver | MemoryPublisher) -> None:
        with self._lock:
            if isinstance(end, MemoryReceiver):
                self._receivers[end.channel].remove(end)
            else:
                self._publishers[end.channel].discard(end)

    def receivers(self, channel: str) -> list[MemoryReceiver]:
        with self._lock:
            return [*self._receivers.get(channel, ())]

    def has_publisher(self, channel: str) -> bool:
        return bool(self._publishers.get(channel))


_channels = _Channels()


class MemoryReceiver:
    """Delivers objects published on its channel or passed to `feed`, in the caller's thread.

    Args:
        channel: name of the channel; "": only for `feed`.
    """

    def __init__(self, channel: str = "") -> None:
        self.channel = channel
        self._deliver: Deliver | None = None
        # A processor may publish to the channel that it receives from.
        self._busy = threading.RLock()
        self._received = 0
        self._newest: StreamObject | None = None
        self.was_connected = False

    def feed(self, obj: StreamObject) -> None:
        """Deliver one object.

        Raises:
            TransportError: the receiver is not started.
        """
        if not self.take(obj):
            raise TransportError(
                "the memory receiver is not started; call start(deliver) before feed(obj)"
            )

    def take(self, obj: StreamObject) -> bool:
        """Deliver an object; False if the receiver is not started, or has stopped."""
        with self._busy:
            if self._deliver is None:
                return False
            self._received += 1
            self._newest = obj
            self.was_connected = True
            self._deliver(obj)
            return True

    def start(self, deliver: Deliver, deliver_again: DeliverAgain | None = None) -> None:
        self._deliver = deliver
        if self.channel:
            _channels.add(self)
        self.keep_up()

    def stop(self, patience: float = 0.0) -> list[StreamObject]:
        with self._within(max(patience, _LAST_DELIVERY)):
            if self._deliver is not None and self.channel:
                _channels.remove(self)
            self._deliver = None
        return []

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        taken = self._busy.acquire(timeout=seconds)
        try:
            yield
        finally:
            if taken:
                self._busy.release()

    def counts(self) -> ReceiverCounts:
        return ReceiverCounts(received=self._received)

    @property
    def connected(self) -> bool:
        if self._deliver is None:
            return False
        return not self.channel or _channels.has_publisher(self.channel)

    def keep_up(self) -> None:
        self.was_connected = self.was_connected or self.connected

    def newest(self, timeout: float) -> StreamObject | None:
        return self._newest


class MemoryPublisher(Publisher):
    """Delivers to the receivers of its channel, and keeps published objects in `objects`.

    Args:
        channel: name of the channel; "": objects are only kept.
    """

    def __init__(self, channel: str = "") -> None:
        self.channel = channel
        self.objects: list[StreamObject] = []
        self._published = 0

    @property
    def subscribers(self) -> int:
        return len(_channels.receivers(self.channel))

    def start(self) -> None:
        if self.channel:
            _channels.add(self)

    def open(self, prototype: StreamObject) -> None:
        self.start()

    def publish(self, obj: StreamObject) -> None:
        self.objects.append(obj)
        self._published += 1
        for receiver in _channels.receivers(self.channel):
            receiver.take(obj)

    def stop(self) -> None:
        if self.channel:
            _channels.remove(self)

    def counts(self) -> PublisherCounts:
        return PublisherCounts(published=self._published)


def _receiver(what: ReceiverOptions) -> MemoryReceiver:
    return MemoryReceiver(what.channel)


def _publisher(what: PublisherOptions) -> MemoryPublisher:
    return MemoryPublisher(what.channel)


MODE = Mode(
    "memory",
    input=InputMode(
        _receiver,
        "this process",
        lazy=True,
        waits=True,
        images=True,
        absent="what publishes it must run in the same process",
    ),
    output=OutputMode(_publisher, "this process"),
    source=OutputMode(_publisher, "this process"),
    reach="process",
)
