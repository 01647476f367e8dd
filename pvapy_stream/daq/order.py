"""Where in a stream a pulse id, or a time, first came: by bisection, though some come late."""

from __future__ import annotations

from array import array
from bisect import bisect_left

_COMPACT_AT = 4096


class OrderIndex:
    """Values by their sequence number, and the largest so far, which only grows.

    A value that is smaller than the largest by more than `restart` begins a new count, as when a
    source starts again; searches look at the newest count only.

    Args:
        restart: how far back a value may be and still count as late.
    """

    def __init__(self, restart: int) -> None:
        self._restart = restart
        self._values = array("q")
        self._largest = array("q")
        self._head = 0
        self._first = 0
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

    def append(self, value: int) -> None:
        """Add the next value."""
        largest = self.newest
        if largest is not None and value < largest - self._restart:
            self.restarts += 1
            self.count_began = self.next
            if self.largest_dropped is not None:
                self.largest_dropped_before = self.largest_dropped
            self.largest_dropped = largest = None
        if largest is None:
            self.began_with = value
        self._values.append(value)
        self._largest.append(value if largest is None else max(value, largest))

    def drop(self) -> None:
        """Let the oldest value go."""
        if self._first >= self.count_began:
            self.largest_dropped = self._largest[self._head]
        else:
            self.largest_dropped_before = self._largest[self._head]
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
