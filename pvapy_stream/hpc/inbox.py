"""Where objects wait between the thread that receives them and the stage that takes them."""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from pvapy_stream import bursts
from pvapy_stream.hpc.counts import InboxCounts
from pvapy_stream.hpc.deadline import Deadline
from pvapy_stream.transport.ports import Return

Handle = Callable[[Any], None]
Reject = Callable[[str, Any], None]


class Returned(Struct, frozen=True):
    """The first object after the other side reconnected, and how it did."""

    obj: Any
    how: Return
    source: str = ""  # names the program that sends it, where that is known

    def copy(self) -> Returned:
        """One that may be kept."""
        return Returned(self.obj.copy(), self.how, self.source)


HandleReturned = Callable[[Returned], None]


def _unwrapped(obj: Any) -> Any:
    return obj.obj if isinstance(obj, Returned) else obj


QUEUE_FULL = "receiver queue full"
PAUSED_FULL = "pause queue full"

_TICK = 0.2  # s; how soon a waiting thread notices that it should end
_FOR_EVER = 3600.0  # s

_log = logging.getLogger(__name__)


class DirectInbox:
    """No queue: the receiving thread runs the stage. While paused, a bounded number waits."""

    def __init__(
        self,
        handle: Handle,
        reject: Reject,
        pause_size: int = 100,
        handle_returned: HandleReturned | None = None,
    ) -> None:
        self._handle = handle
        self._handle_returned = handle_returned or (lambda one: handle(one.obj))
        self._reject = reject
        self._pause_size = pause_size
        self._held: deque[Any] = deque()
        self._holding = False
        self._paused = False
        self._lock = threading.Lock()
        self._entered = self._delivered = self._rejected = 0

    def put(self, obj: Any) -> bool:
        """Take an object of the transport, which may be reused when this returns.

        Returns:
            whether it was taken; else it was rejected.
        """
        if self._holding:
            with self._lock:
                if self._holding:
                    if len(self._held) >= self._pause_size:
                        self._rejected += 1
                        self._reject(PAUSED_FULL, obj)
                        return False
                    self._held.append(obj.copy())
                    self._entered += 1
                    return True
        self._entered += 1
        self._delivered += 1
        self._handle(obj)
        return True

    def put_returned(self, returned: Returned) -> None:
        """Take the first object after the other side reconnected; it is never rejected."""
        with self._lock:
            self._entered += 1
            if self._holding:
                self._held.append(returned.copy())
                return
        self._delivered += 1
        self._handle_returned(returned)

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
            self._delivered += 1
            if type(obj) is Returned:
                self._handle_returned(obj)
            else:
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
        left = list(map(_unwrapped, self._held))
        self._held.clear()
        return left

    def counts(self) -> InboxCounts:
        return InboxCounts.of(self._delivered, self._entered, self._rejected)


class QueueInbox:
    """A queue and the thread that runs the stage; a full queue rejects the newest object.

    Args:
        handle: the stage.
        reject: called with the reason and the object that is rejected.
        size: of the queue; 0 is unlimited.
        accumulate: how many objects are waited for, before the stage gets them.
        accumulation_timeout: how long they are waited for, s.
        waits: whether the sender is made to wait while the queue is full, unless it is paused.
        handle_returned: called with the first object after the other side reconnected.
    """

    def __init__(
        self,
        handle: Handle,
        reject: Reject,
        size: int,
        accumulate: int = -1,
        accumulation_timeout: float = 1.0,
        waits: bool = False,
        handle_returned: HandleReturned | None = None,
    ) -> None:
        self._handle = handle
        self._handle_returned = handle_returned or (lambda one: handle(one.obj))
        self._reject = reject
        self._size = size
        self._accumulate = accumulate
        self._accumulation_timeout = accumulation_timeout
        self._waits = waits
        self._room = threading.Event()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._batch: deque[Any] = deque()
        # What is processed now.
        self._working: list[Any] = []
        self._running = threading.Event()
        self._running.set()
        self._finish = threading.Event()
        self._abandon = False
        self._thread = threading.Thread(target=self._run, name="stage", daemon=True)
        self._entered = self._delivered = self._rejected = 0

    def put(self, obj: Any) -> bool:
        """Take an object of the transport, which may be reused when this returns.

        Returns:
            whether it was taken; else it was rejected.
        """
        if self._full() and not (self._waits and self._has_room()):
            self._rejected += 1
            self._reject(QUEUE_FULL, obj)
            return False
        copy = obj.copy()
        # Before the queue has it: it may be delivered at once.
        self._entered += 1
        self._queue.put(copy)
        return True

    def put_returned(self, returned: Returned) -> None:
        """Take the first object after the other side reconnected; it is never rejected."""
        copy = returned.copy()
        self._entered += 1
        self._queue.put(copy)

    def _full(self) -> bool:
        return 0 < self._size <= self._waiting + len(self._working)

    def _has_room(self) -> bool:
        """Wait until there is room; False when there will be none."""
        while self._full():
            if not self._running.is_set() or self._finish.is_set():
                return False
            self._room.clear()
            if self._full():
                self._room.wait(_TICK)
        return True

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while self._gather():
            while self._batch:
                if not self._running.wait(_TICK):
                    continue
                if self._abandon:
                    return
                obj = self._batch.popleft()
                self._working = [obj]
                self._delivered += 1
                bursts.begin() if self._waiting else bursts.end()
                try:
                    if type(obj) is Returned:
                        self._handle_returned(obj)
                    else:
                        self._handle(obj)
                except Exception:
                    # The stage handles errors itself; without this thread it would get no more.
                    _log.exception("an object has no fate")
                self._working = []
                if self._waits:
                    self._room.set()

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
                return list(map(_unwrapped, left))

    @property
    def _waiting(self) -> int:
        return self._queue.qsize() + len(self._batch)

    def counts(self) -> InboxCounts:
        busy = bool(self._working)
        return InboxCounts.of(self._delivered, self._entered, self._rejected, busy)
