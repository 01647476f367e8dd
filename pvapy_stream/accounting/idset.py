"""Sets of object ids: small for the id patterns of streams, and bounded by the intervals otherwise.

Ids of a stream come in order, and a stream split by the distributor gives each consumer runs of
equal width at equal distance: 1,2,3, 7,8,9, 13,14,15. `IdSet` holds such a pattern in one record,
however long it is. Irregular ids, as of a hit finder, cost 8 bytes for each interval. The number of
ids is kept, so that `len` costs nothing, and an id that is far from the others costs one interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pvapy_stream.accounting.idstore import IdStore
from pvapy_stream.accounting.intervals import (
    KEPT,
    NONE,
    Comb,
    Ranges,
    comb_ranges,
    compress,
    cut,
    difference,
    packed_text,
    ranges_of_text,
    union,
)

__all__ = ["Comb", "IdSet"]


_PLAIN_RECORDS = 20_000  # intervals that a file lists one by one; more are packed


class IdSet(IdStore):
    """A set of ids, quick to add to in order.

    Not locked: a thread that reads while another one adds needs a lock that both use.
    """

    __slots__ = ()

    # -- adding ----------------------------------------------------------------------------------

    def add_range(self, first: int, last: int) -> None:
        """Add all ids from first to last, both included."""
        if last < first:
            return
        if first == self._end and self._start != first:
            self._end = last + 1
        elif first >= self._end:
            self._begin_run(first, last + 1)
        else:
            self._add_ranges(np.array([[first, last + 1]], np.int64))

    def add_comb(self, comb: Comb) -> None:
        """Add a whole pattern."""
        if comb.times <= 0 or comb.width <= 0:
            return
        if comb.width >= comb.period or comb.times == 1:
            self.add_range(comb.first, comb.end - 1)
        elif comb.times >= KEPT and comb.first >= self._end:
            self._close()
            self._seal()
            self._append_block(comb)
        else:
            self._add_ranges(comb_ranges(comb))

    def update(self, other: IdSet) -> None:
        """Add all ids of another set."""
        if not other:
            return
        if not self:
            self._rebuild(other.ranges())
        else:
            self._add_ranges(other.ranges())

    def _add_ranges(self, ranges: Ranges) -> None:
        if len(ranges) and int(ranges[0, 0]) >= self._end:
            for start, end in ranges.tolist():
                self.add_range(start, end - 1)
        else:
            self._rebuild(union(np.concatenate([self.ranges(), ranges])))

    def remove(self, other: IdSet) -> None:
        """Remove ids; the time depends on how many intervals are between the first and the last."""
        first, last = other.first, other.last
        if first is not None and last is not None and self._has_within(first, last):
            self._remove_within(first, last, other.ranges())

    # -- reading ---------------------------------------------------------------------------------

    def combs(self) -> list[Comb]:
        """The ids as patterns."""
        found: list[Comb] = []
        for block in compress(self.ranges(), keep=3):
            if isinstance(block, Comb):
                found.append(block)
            else:
                found += [Comb(start, end - start, end - start, 1) for start, end in block.tolist()]
        return found

    def between(self, first: int, last: int) -> IdSet:
        """The ids from first to last, both included."""
        if not self or first > last or first >= self._end:
            return IdSet()
        low, high = self._blocks_within(first, last)
        parts = [
            comb_ranges(cut(block, first, last))
            if isinstance(block, Comb)
            else block.ranges(first, last)
            for block in self._blocks[low:high]
        ]
        low, high = self._closed_within(first, last)
        if low < high:
            parts.append(self._closed_ranges(low, high))
        parts += [comb_ranges(cut(comb, first, last)) for comb in self._open_combs()]
        low, high = self._late_within(first, last)
        if low < high:
            ids = np.array(self._late[low:high], np.int64)
            parts.append(np.stack([ids, ids + 1], axis=1))
        ranges = union(np.concatenate(parts)) if parts else NONE
        ranges = np.minimum(np.maximum(ranges, first), last + 1)
        return IdSet.of_ranges(ranges[ranges[:, 1] > ranges[:, 0]])

    @property
    def first(self) -> int | None:
        """The smallest id; None for no ids."""
        candidates = [*self._firsts[:1], *self._starts[:1], *self._late[:1]]
        candidates += [comb.first for comb in self._open_combs()]
        return min(candidates, default=None)

    @property
    def last(self) -> int | None:
        """The largest id; None for no ids."""
        return self._end - 1 if self else None

    def __iter__(self) -> Iterator[int]:
        for start, end in self.ranges().tolist():
            yield from range(start, end)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdSet) and np.array_equal(self.ranges(), other.ranges())

    __hash__ = None  # type: ignore[assignment]

    def __or__(self, other: IdSet) -> IdSet:
        return IdSet.of_ranges(union(np.concatenate([self.ranges(), other.ranges()])))

    def __sub__(self, other: IdSet) -> IdSet:
        return IdSet.of_ranges(difference(self.ranges(), other.near(self).ranges()))

    def __and__(self, other: IdSet) -> IdSet:
        ranges = self.near(other).ranges()
        return IdSet.of_ranges(difference(ranges, difference(ranges, other.near(self).ranges())))

    def near(self, other: IdSet) -> IdSet:
        """The ids of this set between the first and the last id of another set."""
        first, last = other.first, other.last
        return IdSet() if first is None or last is None else self.between(first, last)

    def copy(self) -> IdSet:
        """An independent set with the same ids."""
        return IdSet.of_ranges(self.ranges())

    # -- forms -----------------------------------------------------------------------------------

    @classmethod
    def of_ranges(cls, ranges: Ranges) -> IdSet:
        """A set from half-open ranges, (n, 2), in any order."""
        ids = cls()
        ids._rebuild(union(ranges))
        return ids

    @classmethod
    def of_range(cls, first: int, last: int) -> IdSet:
        """The ids from first to last, both included."""
        ids = cls()
        ids.add_range(first, last)
        return ids

    def to_list(self) -> list[list[int] | str]:
        """For files: [first, width, period, count] of each pattern; many intervals as a text."""
        ranges = self.ranges()
        if len(ranges) <= _PLAIN_RECORDS:
            return [list(comb) for comb in self.combs()]
        return [
            list(block) if isinstance(block, Comb) else packed_text(block)
            for block in compress(ranges)
        ]

    @classmethod
    def from_list(cls, combs: Iterable[Sequence[int] | str]) -> IdSet:
        """The set that `to_list` wrote.

        Raises:
            ValueError: a record that is not four whole numbers, or cannot be a pattern.
        """
        parts: list[Ranges] = []
        for record in combs:
            if isinstance(record, str):
                parts.append(ranges_of_text(record))
                continue
            comb = Comb(*(int(number) for number in record))
            if comb.width < 1 or comb.times < 1 or comb.period < comb.width:
                raise ValueError(f"{list(comb)} is not an id pattern")
            parts.append(comb_ranges(comb))
        return cls.of_ranges(np.concatenate(parts)) if parts else cls()

    def __str__(self) -> str:
        """Ranges as people write them: ``1-50,53,60-61``; long lists are cut."""
        ranges = self.ranges()
        text = ",".join(
            str(start) if end == start + 1 else f"{start}-{end - 1}"
            for start, end in ranges[:8].tolist()
        )
        return text + (f",… ({len(ranges)} ranges)" if len(ranges) > 8 else "")

    def __repr__(self) -> str:
        return f"IdSet({self})"
