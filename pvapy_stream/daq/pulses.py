"""The account of pulse ids of one acquisition: which came, twice or late, and which did not."""

from __future__ import annotations

from enum import Enum

import numpy as np

from pvapy_stream.accounting.idset import IdSet


class Order(Enum):
    """How a pulse id stands to those before it."""

    NEXT = "next"
    DUPLICATE = "duplicate"
    LATE = "late"


class PulseAccount:
    """Notes pulse ids as they come. One thread adds.

    Pulses of a stream come at a constant distance, which need not be 1; it is learned from the
    ids. Ids between two that came, at that distance and not there, are lost.

    Attributes:
        n_duplicates: ids that came again.
        n_late: ids that came after a higher one.
    """

    def __init__(self) -> None:
        self.n_duplicates = 0
        self.n_late = 0
        self.first: int | None = None
        self.last: int | None = None
        self._came = IdSet()
        self._step: int | None = None
        self._n = 0
        self._start: int | None = None
        self._before: int | None = None

    def seen_before(self, pulse_id: int) -> None:
        """Note an id from before the range, which tells the distance of pulses."""
        self._learn(self._before, pulse_id)
        self._before = pulse_id

    def _learn(self, before: int | None, pulse_id: int) -> None:
        if before is not None and pulse_id > before:
            step = pulse_id - before
            if self._step is None or step < self._step:
                self._step = step

    def expect_from(self, first: int) -> None:
        """Say which id should be the first; what is missing from there on is lost."""
        self._start = first

    @property
    def step(self) -> int:
        """Distance of pulses."""
        return self._step or 1

    @property
    def came(self) -> IdSet:
        """The ids that came."""
        return self._came

    @property
    def lowest(self) -> int | None:
        """The lowest id that came."""
        return min((int(start) for start in self._came.ranges()[:1, 0]), default=None)

    @property
    def n_came(self) -> int:
        """How many different ids came."""
        return self._n

    def add(self, pulse_id: int) -> Order:
        """Note an id."""
        last = self.last
        if last is None:
            self._learn(self._before, pulse_id)
            self.first = self.last = pulse_id
        elif pulse_id > last:
            self._learn(last, pulse_id)
            self.last = pulse_id
        elif pulse_id in self._came:
            self.n_duplicates += 1
            return Order.DUPLICATE
        else:
            self.n_late += 1
            self._came.add(pulse_id)
            self._n += 1
            self.first = min(pulse_id, last if self.first is None else self.first)
            return Order.LATE
        self._came.add(pulse_id)
        self._n += 1
        return Order.NEXT

    @property
    def n_lost(self) -> int:
        """How many ids are lost so far."""
        if self.first is None or self.last is None:
            return 0
        start = self._first_expected(self.first)
        return max(0, (self.last - start) // self.step + 1 - self._n)

    def _first_expected(self, first: int) -> int:
        """The first id that could have come, seen from one that did."""
        if self._start is None:
            return first
        return first - max(0, first - self._start) // self.step * self.step

    def lost(self, until: int | None = None) -> list[tuple[int, int]]:
        """Ranges of ids that are lost, first and last.

        Args:
            until: the last id that should have come, when it is known.
        """
        if self.first is None or self.last is None:
            known = self._start is not None and until is not None and until >= self._start
            return [(self._start, until)] if known else []  # type: ignore[list-item]
        step = self.step
        ranges = self._came.ranges()
        start = self._first_expected(self.first)
        end = self.last if until is None else self.last + max(0, until - self.last) // step * step
        # Between the end of a range and the start of the next, both of ids that came.
        before = np.concatenate([[start - step], ranges[:, 1] - 1])
        after = np.concatenate([ranges[:, 0], [end + step]])
        gaps = np.flatnonzero(after - before > step)
        return [(int(before[k]) + step, int(after[k]) - step) for k in gaps]
