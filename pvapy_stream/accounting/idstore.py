"""How a set of ids is kept in memory, and how it grows.

Blocks of closed intervals and of patterns, then intervals that are not packed yet, the pattern and
the run that grow, and ids that came out of order.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

import numpy as np

from pvapy_stream.accounting.intervals import (
    KEPT,
    NONE,
    Comb,
    PackedIntervals,
    Ranges,
    comb_ranges,
    compress,
    cut,
    difference,
    holds,
    pattern,
    union,
)

_PACK_AT = 2048  # intervals in one packed block
_LATE_AT = 4096  # ids out of order that are kept apart before they are merged
_PATTERN = 4  # equal runs in a row that are taken for a pattern
_FLOOR = -(2**63)  # below all ids


def _n_ids(ranges: Ranges) -> int:
    return int((ranges[:, 1] - ranges[:, 0]).sum())


def _without(
    block: Comb | PackedIntervals, first: int, last: int, holes: Ranges
) -> Iterator[Comb | PackedIntervals]:
    """A block without `holes`, which are between first and last; a pattern is split only there."""
    if isinstance(block, Comb):
        inner = cut(block, first, last)
        before = (inner.first - block.first) // block.period
        yield from pattern(block, 0, before)
        yield from _packed(difference(comb_ranges(inner), holes))
        yield from pattern(block, before + inner.times, block.times)
    else:
        yield from _packed(difference(block.ranges(), holes))


def _packed(ranges: Ranges) -> Iterator[PackedIntervals]:
    if len(ranges):
        yield PackedIntervals(ranges)


class IdStore:
    """Ids in order, quick to add to.

    Not locked: a thread that reads while another one adds needs a lock that both use.
    """

    __slots__ = (
        "_blocks",
        "_count",
        "_end",
        "_ends",
        "_first",
        "_firsts",
        "_late",
        "_next",
        "_period",
        "_start",
        "_starts",
        "_times",
        "_width",
    )

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._clear()
        for value in ids:
            self.add(value)

    def _clear(self) -> None:
        # Sorted and disjoint: blocks, closed intervals, the pattern and the run that grow.
        self._blocks: list[Comb | PackedIntervals] = []
        self._firsts: list[int] = []
        self._starts: array[int] = array("q")
        self._ends: array[int] = array("q")
        # The pattern that is growing: `times` whole runs, none when it is 0.
        self._first = self._width = self._period = self._times = 0
        # The run that is growing, [start, end); empty when they are equal.
        self._start: int = _FLOOR
        self._end: int = _FLOOR
        # Where the run after it has to start for the pattern to continue; None without a pattern.
        self._next: int | None = None
        # Ids of blocks and closed intervals.
        self._count = 0
        # Ids that came out of order, sorted; none of them is above.
        self._late: list[int] = []

    def add(self, value: int) -> None:
        """Add one id."""
        if value == self._end and self._start != value:
            self._end = value + 1
        elif value == self._next and self._end - self._start == self._width:
            self._times += 1
            self._start, self._end = value, value + 1
            self._next = value + self._period
        elif value >= self._end:
            self._begin_run(value, value + 1)
        elif value not in self:
            insort(self._late, value)
            if len(self._late) >= max(_LATE_AT, (len(self._blocks) * _PACK_AT) >> 3):
                self._rebuild(self.ranges())

    def _begin_run(self, start: int, end: int) -> None:
        """Begin a new run of ids; if the last runs are equal, they become a pattern."""
        if self._times or len(self._starts) >= _PACK_AT:
            self._close()
        elif (before := self._end - self._start) > 0:
            self._starts.append(self._start)
            self._ends.append(self._end)
            self._count += before
        starts, ends = self._starts, self._ends
        self._start, self._end = start, end
        if len(starts) < _PATTERN or start + starts[-2] != 2 * starts[-1]:
            return
        period, width = start - starts[-1], ends[-1] - starts[-1]
        for k in range(2, _PATTERN + 1):
            if starts[1 - k] - starts[-k] != period or ends[-k] - starts[-k] != width:
                return
        self._first, self._width, self._period = starts[-_PATTERN], width, period
        self._times = _PATTERN
        self._count -= _PATTERN * width
        del starts[-_PATTERN:], ends[-_PATTERN:]
        self._next = start + period

    def _close(self) -> None:
        """Move the growing run and pattern to the closed intervals or the blocks."""
        start, end, times = self._start, self._end, self._times
        if times:
            whole = end - start == self._width
            comb = Comb(self._first, self._width, self._period, times + whole)
            self._times, self._next = 0, None
            if comb.times >= KEPT:
                self._seal()
                self._append_block(comb)
            else:
                for k in range(comb.times):
                    first = comb.first + k * comb.period
                    self._put_run(first, first + comb.width)
            if not whole and end > start:
                self._put_run(start, end)
        elif end > start:
            self._put_run(start, end)
        self._start = self._end = max(end, self._end)
        if len(self._starts) >= _PACK_AT:
            self._seal()

    def _put_run(self, start: int, end: int) -> None:
        self._starts.append(start)
        self._ends.append(end)
        self._count += end - start

    def _seal(self) -> None:
        """Pack the closed intervals."""
        if self._starts:
            ranges = self._closed_ranges()
            self._starts, self._ends = array("q"), array("q")
            end, count = self._end, self._count
            self._append_block(PackedIntervals(ranges))
            self._count = count
            self._start = self._end = max(end, self._end)

    def _append_block(self, block: Comb | PackedIntervals) -> None:
        self._blocks.append(block)
        self._firsts.append(block.first)
        self._count += block.n_ids
        self._start = self._end = block.end

    def _closed_ranges(self, low: int = 0, high: int | None = None) -> Ranges:
        pairs = [np.array(self._starts[low:high], np.int64), np.array(self._ends[low:high])]
        return np.stack(pairs, axis=1)

    def _closed_within(self, first: int, last: int) -> tuple[int, int]:
        """Start and stop index of the closed intervals that have ids from first to last."""
        return bisect_right(self._ends, first), bisect_right(self._starts, last)

    def _blocks_within(self, first: int, last: int) -> tuple[int, int]:
        """Start and stop index of the blocks that have ids from first to last."""
        low = max(0, bisect_right(self._firsts, first) - 1)
        if low < len(self._blocks) and self._blocks[low].end <= first:
            low += 1
        return low, bisect_right(self._firsts, last)

    def _late_within(self, first: int, last: int) -> tuple[int, int]:
        """Start and stop index of the ids out of order from first to last."""
        return bisect_left(self._late, first), bisect_right(self._late, last)

    def _has_within(self, first: int, last: int) -> bool:
        """Whether there may be ids from first to last."""
        if first >= self._end:
            return False
        parts = (self._closed_within, self._late_within, self._blocks_within)
        return any(low < high for low, high in (part(first, last) for part in parts)) or any(
            cut(comb, first, last).times for comb in self._open_combs()
        )

    def _rebuild(self, ranges: Ranges) -> None:
        """Replace all ids by those of sorted, disjoint ranges."""
        self._clear()
        for block in compress(ranges):
            if isinstance(block, Comb):
                self._append_block(block)
            else:
                for part in range(0, len(block), _PACK_AT):
                    self._append_block(PackedIntervals(block[part : part + _PACK_AT]))
        self._reopen()

    def _remove_within(self, first: int, last: int, holes: Ranges) -> None:
        """Remove sorted, disjoint ranges, all of them between first and last."""
        self._close()
        low, high = self._late_within(first, last)
        if low < high:
            late = np.array(self._late[low:high], np.int64)
            at = np.searchsorted(holes[:, 0], late, side="right") - 1
            self._late[low:high] = late[(at < 0) | (late >= holes[at, 1])].tolist()
        low, high = self._closed_within(first, last)
        if low < high:
            pairs = self._closed_ranges(low, high)
            rest = difference(pairs, holes)
            self._count -= _n_ids(pairs) - _n_ids(rest)
            self._starts[low:high] = array("q", rest[:, 0].tolist())
            self._ends[low:high] = array("q", rest[:, 1].tolist())
        low, high = self._blocks_within(first, last)
        touched = self._blocks[low:high]
        if touched:
            rest = [part for block in touched for part in _without(block, first, last, holes)]
            self._count += sum(one.n_ids for one in rest) - sum(one.n_ids for one in touched)
            self._blocks[low:high] = rest
            self._firsts[low:high] = [block.first for block in rest]
        if last >= self._end - 1:
            # The largest id may have been removed.
            tops = [*self._ends[-1:], *(b.end for b in self._blocks[-1:])]
            tops += [value + 1 for value in self._late[-1:]]
            self._start = self._end = max(tops, default=_FLOOR)

    def _reopen(self) -> None:
        """Make the last block a growing pattern or open intervals again, so that ids extend it."""
        last = self._blocks[-1] if self._blocks else None
        if last is None:
            return
        self._blocks.pop()
        self._firsts.pop()
        if isinstance(last, Comb):
            self._count -= last.n_ids
            self._first, self._width, self._period = last.first, last.width, last.period
            self._times = last.times - 1
            self._start = last.end - last.width
            self._end, self._next = last.end, self._start + last.period
            return
        self._count -= last.n_ids
        ranges = last.ranges()
        for start, end in ranges[:-1].tolist():
            self._put_run(start, end)
        self._start, self._end = int(ranges[-1, 0]), int(ranges[-1, 1])

    def _open_combs(self) -> list[Comb]:
        start, width, times = self._start, self._end - self._start, self._times
        if times and width == self._width:
            return [Comb(self._first, self._width, self._period, times + 1)]
        pattern = [Comb(self._first, self._width, self._period, times)] if times else []
        return [*pattern, Comb(start, width, width, 1)] if width else pattern

    def ranges(self) -> Ranges:
        """Disjoint, sorted, half-open ranges: (n, 2) array of start and end."""
        parts = [
            comb_ranges(block) if isinstance(block, Comb) else block.ranges()
            for block in self._blocks
        ]
        if self._starts:
            parts.append(self._closed_ranges())
        parts += map(comb_ranges, self._open_combs())
        if self._late:
            late = np.array(self._late, np.int64)
            parts.append(np.stack([late, late + 1], axis=1))
        return union(np.concatenate(parts)) if parts else NONE

    def __contains__(self, value: int) -> bool:
        if value >= self._end:
            return False
        late = self._late
        if late and (at := bisect_left(late, value)) < len(late) and late[at] == value:
            return True
        if value >= self._start or (self._times and value >= self._first):
            return any(holds(comb, value) for comb in self._open_combs())
        if self._starts and value >= self._starts[0]:
            at = bisect_right(self._starts, value) - 1
            return value < self._ends[at]
        at = bisect_right(self._firsts, value) - 1
        if at < 0:
            return False
        block = self._blocks[at]
        return holds(block, value) if isinstance(block, Comb) else value in block

    def __len__(self) -> int:
        return self._count + self._times * self._width + self._end - self._start + len(self._late)

    def __bool__(self) -> bool:
        return bool(self._count or self._times or self._end > self._start or self._late)
