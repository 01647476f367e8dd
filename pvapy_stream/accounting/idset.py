"""Sets of object ids that stay small for the id patterns of streams.

Ids of a stream come in order, and a stream split by the distributor gives each consumer runs of
equal width at equal distance: 1,2,3, 7,8,9, 13,14,15. `IdSet` holds such a pattern in one record,
however long it is, so that the account of a day fits in a few hundred bytes. Irregular ids cost a
record each; past a limit, records are sorted and merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MERGE_AT = 4096


class Comb(NamedTuple):
    """``times`` runs of ``width`` ids, one every ``period`` ids, from ``first`` on."""

    first: int
    width: int
    period: int
    times: int


class IdSet:
    """A set of ids, quick to add to in order.

    Not locked: one thread adds. `ranges` may be called from another thread, between two additions
    of the owner's, since each addition leaves the set whole.
    """

    __slots__ = (
        "_closed",
        "_end",
        "_first",
        "_merge_at",
        "_next",
        "_period",
        "_start",
        "_times",
        "_width",
    )

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._closed: list[Comb] = []
        # The pattern that is growing: `times` whole runs, none when it is 0.
        self._first = self._width = self._period = self._times = 0
        # The run that is growing, [start, end); empty when they are equal.
        self._start = self._end = 0
        # Where the run after it has to start for the pattern to go on; None without a pattern.
        self._next: int | None = None
        self._merge_at = _MERGE_AT
        for value in ids:
            self.add(value)

    def add(self, value: int) -> None:
        """Add one id."""
        if value == self._end and self._start != value:
            self._end = value + 1
        elif value == self._next and self._end - self._start == self._width:
            self._times += 1
            self._start, self._end = value, value + 1
            self._next = value + self._period
        else:
            self._begin_run(value, value + 1)

    def add_range(self, first: int, last: int) -> None:
        """Add all ids from first to last, both included."""
        if last < first:
            return
        if first == self._end and self._start != first:
            self._end = last + 1
        else:
            self._begin_run(first, last + 1)

    def add_comb(self, comb: Comb) -> None:
        """Add a whole pattern."""
        if comb.times > 0 and comb.width > 0:
            self._close()
            self._closed.append(comb)

    def update(self, other: IdSet) -> None:
        """Add all ids of another set."""
        for comb in other.combs():
            self.add_comb(comb)

    def _begin_run(self, start: int, end: int) -> None:
        """Begin a run that the fast ways cannot take; it may begin or go on with a pattern."""
        self._close()
        self._start, self._end = start, end
        last = self._closed[-1] if self._closed else None
        if last is None or start <= last.first:
            return
        period = last.period if last.times > 1 else start - last.first
        if period > last.width and start == last.first + period * last.times:
            self._closed.pop()
            self._first, self._width, self._period, self._times = (
                last.first,
                last.width,
                period,
                last.times,
            )
            self._next = start + period

    def _close(self) -> None:
        """Put away the growing run and pattern."""
        self._closed.extend(self._open_combs())
        self._start = self._end = self._times = 0
        self._next = None
        if len(self._closed) >= self._merge_at:
            self._merge()

    def _open_combs(self) -> list[Comb]:
        start, width, times = self._start, self._end - self._start, self._times
        if times and width == self._width:
            return [Comb(self._first, self._width, self._period, times + 1)]
        pattern = [Comb(self._first, self._width, self._period, times)] if times else []
        return [*pattern, Comb(start, width, width, 1)] if width else pattern

    def _merge(self) -> None:
        merged = IdSet()
        for start, end in self.ranges().tolist():
            merged.add_range(start, end - 1)
        self._closed = merged.combs()
        # Ids without any pattern cannot shrink; do not try again at each of them.
        self._merge_at = max(_MERGE_AT, 2 * len(self._closed))

    def combs(self) -> list[Comb]:
        """The patterns; ids that were added twice may be in two of them."""
        return [*self._closed, *self._open_combs()]

    def ranges(self) -> NDArray[np.int64]:
        """Disjoint, sorted, half-open ranges: (n, 2) array of start and end."""
        parts: list[NDArray[np.int64]] = []
        for first, width, period, times in self.combs():
            starts = first + period * np.arange(times, dtype=np.int64)
            parts.append(np.stack([starts, starts + width], axis=1))
        return _union(np.concatenate(parts)) if parts else np.empty((0, 2), np.int64)

    def __len__(self) -> int:
        return int(np.diff(self.ranges()).sum())

    def __bool__(self) -> bool:
        return bool(self._closed) or self._end > self._start

    def __contains__(self, value: int) -> bool:
        return any(
            value >= c.first
            and (value - c.first) // c.period < c.times
            and (value - c.first) % c.period < c.width
            for c in self.combs()
        )

    def __iter__(self) -> Iterator[int]:
        for start, end in self.ranges().tolist():
            yield from range(start, end)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdSet) and np.array_equal(self.ranges(), other.ranges())

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: IdSet) -> IdSet:
        return IdSet.of_ranges(_union(np.concatenate([self.ranges(), other.ranges()])))

    def __sub__(self, other: IdSet) -> IdSet:
        return IdSet.of_ranges(_difference(self.ranges(), other.ranges()))

    def __and__(self, other: IdSet) -> IdSet:
        return self - (self - other)

    @classmethod
    def of_ranges(cls, ranges: NDArray[np.int64]) -> IdSet:
        """A set from half-open ranges, (n, 2)."""
        ids = cls()
        for start, end in ranges.tolist():
            ids.add_range(start, end - 1)
        return ids

    def to_list(self) -> list[list[int]]:
        """For files: [first, width, period, count] of each pattern."""
        return [list(comb) for comb in self.combs()]

    @classmethod
    def from_list(cls, combs: Iterable[Iterable[int]]) -> IdSet:
        """The set that `to_list` wrote.

        Raises:
            ValueError: a record that is not four whole numbers, or cannot be a pattern.
        """
        ids = cls()
        for record in combs:
            comb = Comb(*(int(number) for number in record))
            if comb.width < 1 or comb.times < 1 or comb.period < comb.width:
                raise ValueError(f"{list(comb)} is no id pattern")
            ids.add_comb(comb)
        return ids

    def __str__(self) -> str:
        """Ranges as people write them: ``1-50,53,60-61``; long lists are cut."""
        ranges = self.ranges().tolist()
        text = ",".join(
            str(start) if end == start + 1 else f"{start}-{end - 1}" for start, end in ranges[:8]
        )
        return text + (f",… ({len(ranges)} ranges)" if len(ranges) > 8 else "")

    def __repr__(self) -> str:
        return f"IdSet({self})"


def _union(ranges: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(ranges) == 0:
        return ranges
    ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    reach = np.maximum.accumulate(ranges[:, 1])
    # A range starts anew where it begins past everything before it.
    new = np.concatenate([[True], ranges[1:, 0] > reach[:-1]])
    firsts = np.flatnonzero(new)
    lasts = np.concatenate([firsts[1:] - 1, [len(ranges) - 1]])
    return np.stack([ranges[firsts, 0], reach[lasts]], axis=1)


def _difference(ranges: NDArray[np.int64], holes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ids of disjoint sorted `ranges` that are not in disjoint sorted `holes`."""
    points = np.concatenate([ranges[:, 0], ranges[:, 1], holes[:, 0], holes[:, 1]])
    n, m = len(ranges), len(holes)
    inside = np.concatenate([np.ones(n), -np.ones(n), np.zeros(2 * m)])
    covered = np.concatenate([np.zeros(2 * n), np.ones(m), -np.ones(m)])
    order = np.argsort(points, kind="stable")
    points, inside, covered = points[order], np.cumsum(inside[order]), np.cumsum(covered[order])
    keep = (inside[:-1] > 0) & (covered[:-1] == 0) & (points[1:] > points[:-1])
    return (
        _union(np.stack([points[:-1][keep], points[1:][keep]], axis=1))
        if len(points)
        else np.empty((0, 2), np.int64)
    )
