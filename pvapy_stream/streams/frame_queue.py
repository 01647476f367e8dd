"""The queue between the thread that receives and those that iterate."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from pvapy_stream.base_settings import Overflow

Wake = Callable[[], None]
_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class FrameQueue(Generic[_T]):
    """A bounded queue with an overflow policy. Any thread may use it.

    Args:
        channel: name of the channel, for the log.
        size: objects that it holds.
        overflow: what a full queue does to an object.
        patience: longest wait for room, s, with the policy ``block``; then objects are dropped
            until some are taken.

    Attributes:
        dropped: objects that were dropped, those too that nobody had taken at the end.
        closed: whether it takes and gives nothing more.
    """

    def __init__(self, channel: str, size: int, overflow: Overflow, patience: float) -> None:
        self._channel = channel
        self._size = size
        self._overflow = overflow
        self._patience = patience
        self._items: deque[_T] = deque()
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._blocked = self._stuck = False
        self._waiting: list[Wake] = []
        self.dropped = 0
        self.closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: _T) -> bool:
        """Put an object into the queue; False when it was dropped."""
        with self._lock:
            taken = not self.closed and (len(self._items) < self._size or self._make_room())
            if taken:
                self._items.append(item)
            else:
                self.dropped += 1
        if self._waiting:
            self.wake_all()
        return taken

    def _make_room(self) -> bool:
        """Make room as the policy says, with the lock held; False when there is none."""
        if self._overflow == "drop-oldest":
            self._items.popleft()
            self.dropped += 1
            return True
        if self._overflow == "drop-newest" or self._stuck:
            return False
        deadline = time.monotonic() + self._patience
        self._blocked = True
        while len(self._items) >= self._size and not self.closed:
            left = deadline - time.monotonic()
            if left <= 0:
                self._give_up()
                break
            self._room.wait(left)
        self._blocked = False
        return not self.closed and not self._stuck

    def _give_up(self) -> None:
        self._stuck = True
        _log.warning(
            "channel %s: no frame was taken for %g s; frames are dropped until one is taken",
            self._channel,
            self._patience,
        )

    def take(self) -> _T | None:
        """Take the oldest object; None when there is none."""
        with self._lock:
            if not self._items:
                return None
            self._stuck = False
            if self._blocked:
                self._room.notify()
            return self._items.popleft()

    def close(self) -> None:
        """Drop what waits, and take nothing more."""
        with self._lock:
            self.closed = True
            self.dropped += len(self._items)
            self._items.clear()
            self._room.notify_all()
        self.wake_all()

    # -- who waits -------------------------------------------------------------------------------

    def add_waiter(self, wake: Wake) -> bool:
        """Have a function called once when there may be news; False when there are some now."""
        with self._lock:
            if self._items or self.closed:
                return False
            self._waiting.append(wake)
            return True

    def remove_waiter(self, wake: Wake) -> None:
        """Call it no more."""
        with self._lock:
            if wake in self._waiting:
                self._waiting.remove(wake)

    def wake_all(self) -> None:
        """Let all who wait look again."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()
