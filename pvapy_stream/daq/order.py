"""Where in a stream a pulse id, or a time, first came: by bisection, though some come late."""

from __future__ import annotations

from array import array
from bisect import bisect_left

from pvapy_stream.daq.id_watch import JUMP, IdWatch, Seen

_COMPACT_AT = 4096


class OrderIndex:
    """Values by their sequence number, and the largest so far, which only grows.

    A value that is smaller than the largest by more than `restart` begins a new count, as when a
    source starts again; searches look at the newest count only. A value that is far from the others
    and stays alone is odd: it begins no count, and hides nothing.

    Args:
        restart: how far back a value may be and still count as late.
        jump: how far ahead a value may be without being doubted.
    """

    def __init__(self, restart: int, jump: int = JUMP) -> None:
        self._watch = IdWatch(restart, jump)
        self._values = array("q")
        self._largest = array("q")
        self._head = 0
        self._first = 0
        # Sequence numbers of odd values, also of the last one when it is doubted.
        self._odd: set[int] = set()
        # Sequence number at which the newest count begins.
        self.count_began = 0
        self.restarts = 0
        # With which value.
        self.began_with: int | None = None
        # The largest value that was let go, of the newest count and of those before.
        self.largest_dropped: int | None = None
        self.largest_dropped_before: int | None = None

    def __len__(self) -> int:
        return len(self._values) - self._head

    @property
    def next(self) -> int:
        """Sequence number of the value that comes next."""
        return self._first + len(self)

    @property
    def newest(self) -> int | None:
        """Largest value of the newest count."""
        return self._largest[-1] if len(self) else self.largest_dropped

    def is_odd(self, sequence: int) -> bool:
        """Whether a value is odd; of the last one, whether only the next one can decide."""
        return sequence in self._odd

    def append(self, value: int) -> None:
        """Add the next value."""
        seen = self._watch.see(value)
        if seen is Seen.DOUBTED:
            self._odd.add(self.next)
            self._put(value, self.newest)
            return
        if seen is not Seen.FOLLOWS:
            self._believe_last(restarted=seen is Seen.RESTARTED)
        largest = self.newest
        if largest is None:
            self.began_with = value
        self._put(value, value if largest is None else max(value, largest))

    def _put(self, value: int, largest: int | None) -> None:
        self._values.append(value)
        self._largest.append(value if largest is None else largest)

    def _believe_last(self, restarted: bool) -> None:
        """The last value, which was doubted, is how the stream goes on."""
        last = self.next - 1
        self._odd.discard(last)
        if restarted:
            self.restarts += 1
            self.count_began = last if len(self) else self.next
            if self.largest_dropped is not None:
                self.largest_dropped_before = self.largest_dropped
            self.largest_dropped = None
        if len(self):
            self._largest[-1] = self._values[-1]
            if restarted:
                self.began_with = self._values[-1]

    def drop(self) -> None:
        """Let the oldest value go."""
        if self._first >= self.count_began:
            self.largest_dropped = self._largest[self._head]
        else:
            self.largest_dropped_before = self._largest[self._head]
        self._odd.discard(self._first)
        self._first += 1
        self._head += 1
        if self._head >= _COMPACT_AT and self._head * 2 >= len(self._values):
            # Each value is moved at most once for each that was dropped.
            del self._values[: self._head]
            del self._largest[: self._head]
            self._head = 0

    def value(self, sequence: int) -> int:
        """The value with this number, which must not be gone."""
        return self._values[sequence - self._first + self._head]

    def find(self, value: int) -> int:
        """Sequence number of the first value of the newest count that is not smaller."""
        begin = max(self.count_began, self._first) - self._first + self._head
        return bisect_left(self._largest, value, begin) - self._head + self._first
