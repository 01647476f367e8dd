"""The account of pulse ids of one acquisition: which came, twice or late, and which did not."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import numpy as np

from pvapy_stream.accounting.account import MOST_EPOCHS
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.daq.id_watch import JUMP, IdWatch, Seen

Lost = list[tuple[int, int]]

# A distance of ids that is as rare as this among all is none of the stream's.
_RARE = 50
_MOST_DISTANCES = 64


class Order(Enum):
    """How a pulse id is related to those before it."""

    NEXT = "next"
    DUPLICATE = "duplicate"
    LATE = "late"


class Distances:
    """Learns the distance of a stream's ids: the smallest one that is not rare."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._n = 0

    def learn(self, distance: int) -> None:
        """Take note of the distance of two ids that follow each other."""
        if not 0 < distance <= JUMP:
            return
        self._n += 1
        counts = self._counts
        counts[distance] = counts.get(distance, 0) + 1
        if len(counts) > _MOST_DISTANCES:
            del counts[max(counts)]

    @property
    def usual(self) -> int:
        """The distance; 1 before anything is known."""
        common = [step for step, count in self._counts.items() if count * _RARE >= self._n]
        return min(common or self._counts, default=1)


class Epoch:
    """Ids of a source until it starts again.

    Attributes:
        came: ids that came.
        again: those of them that came more than once.
        first, last: the lowest and the highest of them.
    """

    __slots__ = ("again", "came", "first", "last", "n")

    def __init__(self) -> None:
        self.came = IdSet()
        self.again = IdSet()
        self.first: int | None = None
        self.last: int | None = None
        self.n = 0

    def add(self, pulse_id: int) -> None:
        """Add an id, once."""
        if pulse_id in self.came:
            return
        self.came.add(pulse_id)
        self.n += 1
        self.first = pulse_id if self.first is None else min(self.first, pulse_id)
        self.last = pulse_id if self.last is None else max(self.last, pulse_id)


class PulseAccount:
    """Notes pulse ids as they come. One thread adds.

    Pulses of a stream come at a constant distance, which need not be 1; it is learned from the
    ids. Ids between two that came, at that distance and not there, are lost. Where a source starts
    again, a new epoch begins, and nothing is lost between it and the one before. An id that is far
    from the others and stays alone is odd: it shows nothing about others.

    Attributes:
        n_duplicates: ids that came again.
        n_late: ids that came after a higher one.
        odd: ids that are far from all others.
    """

    def __init__(self) -> None:
        self.n_duplicates = 0
        self.n_late = 0
        self.odd = IdSet()
        self.epochs = [Epoch()]
        self._watch = IdWatch()
        self._distances = Distances()
        self._start: int | None = None
        self._before: int | None = None
        self._known: tuple[tuple[int, int, int], int] = ((-1, 0, 0), 0)

    def seen_before(self, pulse_id: int) -> None:
        """Note an id from before the range, which shows the distance of pulses."""
        if self._before is not None:
            self._distances.learn(pulse_id - self._before)
        self._before = pulse_id

    def expect_from(self, first: int) -> None:
        """Say which id should be the first; what is missing from there on is lost."""
        self._start = first

    @property
    def step(self) -> int:
        """Distance of pulses."""
        return self._distances.usual

    @property
    def first(self) -> int | None:
        """The lowest id of the first epoch."""
        return self.epochs[0].first

    @property
    def last(self) -> int | None:
        """The highest id of the present epoch."""
        return self.epochs[-1].last

    @property
    def came(self) -> IdSet:
        """The ids that came, of all epochs, and odd ones."""
        whole = self.odd.copy()
        for epoch in self.epochs:
            whole.update(epoch.came)
        return whole

    @property
    def lowest(self) -> int | None:
        """The lowest id that came."""
        found = [epoch.first for epoch in self.epochs if epoch.first is not None]
        return min(found, default=None)

    @property
    def highest(self) -> int | None:
        """The highest id that came."""
        found = [epoch.last for epoch in self.epochs if epoch.last is not None]
        return max(found, default=None)

    def add(self, pulse_id: int) -> Order:
        """Note an id."""
        doubted = self._watch.doubted
        seen = self._watch.see(pulse_id)
        if seen is Seen.DOUBTED:
            return self._doubt(pulse_id)
        if seen is not Seen.FOLLOWS and doubted is not None:
            self._believe(doubted, restarted=seen is Seen.RESTARTED)
        return self._take(pulse_id)

    def _doubt(self, pulse_id: int) -> Order:
        if pulse_id in self.odd or any(pulse_id in epoch.came for epoch in self.epochs):
            self.n_duplicates += 1
            self.odd.add(pulse_id)
            return Order.DUPLICATE
        self.odd.add(pulse_id)
        self.n_late += pulse_id < (self.last or 0)
        return Order.LATE

    def _believe(self, doubted: int, restarted: bool) -> None:
        """What seemed odd is how the stream goes on."""
        self.odd.remove(IdSet([doubted]))
        epoch = self.epochs[-1]
        if epoch.n == 1:
            # Then the one before was odd.
            self.odd.update(epoch.came)
            self.epochs[-1] = Epoch()
        elif restarted and len(self.epochs) < MOST_EPOCHS:
            self.epochs.append(Epoch())
        self.epochs[-1].add(doubted)

    def _take(self, pulse_id: int) -> Order:
        epoch = self.epochs[-1]
        last = epoch.last
        if last is None or pulse_id > last:
            before = self._before if last is None else last
            if before is not None:
                self._distances.learn(pulse_id - before)
            epoch.add(pulse_id)
            if len(self.epochs) > 1 and any(pulse_id in one.came for one in self.epochs[:-1]):
                self.n_duplicates += 1
                return Order.DUPLICATE
            return Order.NEXT
        if pulse_id in epoch.came:
            epoch.again.add(pulse_id)
            self.n_duplicates += 1
            return Order.DUPLICATE
        epoch.add(pulse_id)
        self.n_late += 1
        return Order.LATE

    @property
    def n_lost(self) -> int:
        """How many ids are lost so far."""
        key = len(self.epochs), self.epochs[-1].n, self.step
        if self._known[0] != key:
            self._known = key, count(self.lost(), self.step)
        return self._known[1]

    def lost(self, until: int | None = None) -> Lost:
        """Ranges of ids that are lost, first and last.

        Args:
            until: the last id that should have come, when it is known.
        """
        return [one for epoch in self.lost_by_epoch(until) for one in epoch]

    def lost_by_epoch(self, until: int | None = None) -> list[Lost]:
        """The same for each epoch; what none of them brought is with the last."""
        step, epochs = self.step, self.epochs
        if len(epochs) == 1:
            return [gaps(epochs[0].came, self._start, until, step)]
        found = [
            gaps(one.came, None if n else self._start, None, step) for n, one in enumerate(epochs)
        ]
        if until is None:
            return found
        if self._start is None:
            # Nothing is known of ids between epochs.
            return [*found[:-1], gaps(epochs[-1].came, None, until, step)]
        found = [_cut(one, until) for one in found]
        nowhere = _ids(gaps(self.came, self._start, until, step))
        nowhere.remove(_ids(one for epoch in found for one in epoch))
        more = [(first, end - 1) for first, end in nowhere.ranges().tolist()]
        return [*found[:-1], sorted(found[-1] + more)]


def gaps(came: IdSet, start: int | None, until: int | None, step: int) -> Lost:
    """Ranges of ids at a distance that are not among those that came, first and last.

    Args:
        came: ids that came.
        start: the first that should have come, when it is known.
        until: the last that should have come, when it is known; nothing after it is lost.
        step: distance of ids.
    """
    if until is not None:
        came = came - IdSet.of_range(until + 1, 2**63 - 2)
    ranges = came.ranges()
    if not len(ranges):
        known = start is not None and until is not None and until >= start
        return [(start, until)] if known else []  # type: ignore[list-item]
    first, last = int(ranges[0, 0]), int(ranges[-1, 1]) - 1
    begin = first if start is None else first - max(0, first - start) // step * step
    end = last if until is None else last + (until - last) // step * step
    # Between the end of a range and the start of the next, both of ids that came.
    before = np.concatenate([[begin - step], ranges[:, 1] - 1])
    after = np.concatenate([ranges[:, 0], [end + step]])
    where = np.flatnonzero(after - before > step)
    return [
        (b + step, b + (a - b - 1) // step * step)
        for b, a in zip(before[where].tolist(), after[where].tolist(), strict=True)
    ]


def count(ranges: Iterable[tuple[int, int]], step: int) -> int:
    """How many ids at a distance some ranges have."""
    return sum((last - first) // step + 1 for first, last in ranges)


def _cut(ranges: Lost, until: int) -> Lost:
    return [(first, min(last, until)) for first, last in ranges if first <= until]


def _ids(ranges: Iterable[tuple[int, int]]) -> IdSet:
    found = np.array([(first, last + 1) for first, last in ranges], np.int64)
    return IdSet.of_ranges(found.reshape(-1, 2))
