"""Where objects wait between the thread that receives them and the stage that takes them."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pvapy_stream.hpc.deadline import Deadline

Handle = Callable[[Any], None]
Reject = Callable[[str, Any], None]

QUEUE_FULL = "receiver queue full"
PAUSED_FULL = "pause queue full"

_TICK = 0.2  # s; how soon a waiting thread notices that it should end
_FOR_EVER = 3600.0  # s


@dataclass(frozen=True, slots=True)
class InboxCounts:
    """Objects since the start or the last reset; the sum of the others is what was received.

    Attributes:
        delivered: handed to the stage, the one that is processed now included.
        queued: what waits now.
        busy: whether an object from the queue is processed now.
    """

    received: int = 0
    rejected: int = 0
    delivered: int = 0
    queued: int = 0
    busy: bool = False


def _counts_of(queued: int, rejected: int, received: int, busy: bool = False) -> InboxCounts:
    """Counts that fit together; to be read in the order of the arguments, as objects arrive."""
    return InboxCounts(received, rejected, max(0, received - rejected - queued), queued, busy)


class DirectInbox:
    """No queue: the receiving thread runs the stage. While paused, a bounded number waits."""

    def __init__(self, handle: Handle, reject: Reject, pause_size: int = 100) -> None:
        self._handle = handle
        self._reject = reject
        self._pause_size = pause_size
        self._held: deque[Any] = deque()
        self._holding = False
        self._paused = False
        self._lock = threading.Lock()
        self._received = self._rejected = 0

    def put(self, obj: Any) -> None:
        """Take an object of the transport, which may be reused when this returns."""
        self._received += 1
        if not self._holding:
            self._handle(obj)
            return
        with self._lock:
            if self._holding:
                if len(self._held) >= self._pause_size:
                    self._rejected += 1
                    self._reject(PAUSED_FULL, obj)
                else:
                    self._held.append(obj.copy())
                return
        self._handle(obj)

    def start(self) -> None:
        pass

    def pause(self) -> None:
        with self._lock:
            self._paused = self._holding = True

    def resume(self) -> None:
        self._paused = False
        self._release(Deadline(_FOR_EVER))

    def _release(self, deadline: Deadline) -> None:
        """Hand over what waits; what arrives meanwhile waits behind it, so the order stays."""
        while not deadline.over and not self._paused:
            with self._lock:
                if not self._held:
                    self._holding = False
                    return
                obj = self._held.popleft()
            self._handle(obj)

    def resize(self, size: int) -> None:
        """There is no queue to resize; -1 is accepted.

        Raises:
            ValueError: a size for a queue.
        """
        if size >= 0:
            raise ValueError(
                "this stage was started without a receiver queue; start it with"
                " --receiver-queue-size to change the size"
            )

    def drain(self, deadline: Deadline) -> None:
        """Hand over what waits, until the deadline. No put may follow."""
        self._paused = False
        self._release(deadline)

    def left(self) -> list[Any]:
        """Take what waits after `drain`."""
        left = list(self._held)
        self._held.clear()
        return left

    def counts(self) -> InboxCounts:
        return _counts_of(len(self._held), self._rejected, self._received)

    def reset_counts(self) -> int:
        """Begin to count anew; returns how many waiting objects count as received."""
        waiting = self._received = len(self._held)
        self._rejected = 0
        return waiting


class QueueInbox:
    """A queue and the thread that runs the stage; a full queue rejects the newest object."""

    def __init__(
        self,
        handle: Handle,
        reject: Reject,
        size: int,
        accumulate: int = -1,
        accumulation_timeout: float = 1.0,
    ) -> None:
        self._handle = handle
        self._reject = reject
        self._size = size
        self._accumulate = accumulate
        self._accumulation_timeout = accumulation_timeout
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._batch: deque[Any] = deque()
        # What is processed now.
        self._working: list[Any] = []
        self._running = threading.Event()
        self._running.set()
        self._finish = threading.Event()
        self._abandon = False
        self._thread = threading.Thread(target=self._run, name="stage", daemon=True)
        self._received = self._rejected = 0

    def put(self, obj: Any) -> None:
        """Take an object of the transport, which may be reused when this returns."""
        self._received += 1
        if 0 < self._size <= self._waiting + len(self._working):
            self._rejected += 1
            self._reject(QUEUE_FULL, obj)
            return
        self._queue.put(obj.copy())

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while self._gather():
            while self._batch:
                if not self._running.wait(_TICK):
                    continue
                if self._abandon:
                    return
                self._working = [self._batch.popleft()]
                self._handle(self._working[0])
                self._working = []

    def _gather(self) -> bool:
        """Wait for objects; False when there are none and none will come."""
        while True:
            try:
                self._batch.append(self._queue.get(timeout=_TICK))
                break
            except queue.Empty:
                if self._finish.is_set() and self._queue.empty():
                    return False
        while len(self._batch) < self._accumulate and not self._finish.is_set():
            try:
                self._batch.append(self._queue.get(timeout=self._accumulation_timeout))
            except queue.Empty:
                break
        return True

    def pause(self) -> None:
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def resize(self, size: int) -> None:
        """Change the size; 0 is unlimited. What already waits stays.

        Raises:
            ValueError: a negative size.
        """
        if size < 0:
            raise ValueError(f"receiverQueueSize must be 0 (unlimited) or more, not {size}")
        self._size = size

    def drain(self, deadline: Deadline) -> None:
        """Hand over what waits, until the deadline. No put may follow."""
        self._finish.set()
        self._running.set()
        if not deadline.wait_for_end_of(self._thread):
            self._abandon = True
            # The object in the works may be finished within this.
            self._thread.join(_TICK)

    def left(self) -> list[Any]:
        """Take what waits after `drain`, with the object that a processor hangs at."""
        self._abandon = True
        left = [*self._working, *self._batch]
        while True:
            try:
                left.append(self._queue.get_nowait())
            except queue.Empty:
                return left

    @property
    def _waiting(self) -> int:
        return self._queue.qsize() + len(self._batch)

    def counts(self) -> InboxCounts:
        busy = bool(self._working)
        return _counts_of(self._waiting, self._rejected, self._received, busy)

    def reset_counts(self) -> int:
        """Begin to count anew; returns how many waiting objects count as received."""
        # The one that is processed now may be counted as processed after this.
        waiting = self._received = self._waiting + len(self._working)
        self._rejected = 0
        return waiting
