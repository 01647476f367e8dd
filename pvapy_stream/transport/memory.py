"""Ways in and out within one process, for tests of processors and stages."""

from __future__ import annotations

from typing import Any

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.ports import Deliver, Publisher, PublisherCounts, ReceiverCounts


class MemoryReceiver:
    """Delivers what it is fed, in the thread that feeds it."""

    def __init__(self) -> None:
        self._deliver: Deliver | None = None
        self._received = 0
        self._newest: Any = None
        self.was_connected = False

    def feed(self, obj: Any) -> None:
        """Deliver one object.

        Raises:
            TransportError: the receiver is not started.
        """
        if self._deliver is None:
            raise TransportError(
                "the memory receiver is not started; call start(deliver) before feed(obj)"
            )
        self._received += 1
        self._newest = obj
        self._deliver(obj)

    def start(self, deliver: Deliver, deliver_again: Deliver | None = None) -> None:
        self._deliver = deliver
        self.was_connected = True

    def stop(self, patience: float = 0.0) -> list[Any]:
        self._deliver = None
        return []

    def counts(self) -> ReceiverCounts:
        return ReceiverCounts(received=self._received)

    def reset_counts(self) -> None:
        self._received = 0

    @property
    def connected(self) -> bool:
        return self._deliver is not None

    def keep_up(self) -> None:
        pass

    def newest(self, timeout: float) -> Any | None:
        return self._newest


class MemoryPublisher(Publisher):
    """Keeps what was published in `objects`."""

    def __init__(self) -> None:
        self.objects: list[Any] = []
        self._published = 0

    def publish(self, obj: Any) -> None:
        self.objects.append(obj)
        self._published += 1

    def counts(self) -> PublisherCounts:
        return PublisherCounts(published=self._published)

    def reset_counts(self) -> None:
        self._published = 0
