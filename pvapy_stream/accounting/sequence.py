"""Which ids were missed, told from those that came."""

from __future__ import annotations

from pvapy_stream.accounting.idset import Comb, IdSet


class SequenceTracker:
    """Tells which ids were missed, from the ids that came and the pattern they should follow.

    A client of the distributor gets runs of ``run`` sequential ids; from the last id of a run to
    the first of its next one the step is ``offset``. Without distributor, both are 1. With
    ``repeats`` an id may come several times in a row, as from several producers.
    """

    __slots__ = ("last", "missed", "n_restarts", "offset", "repeats", "run", "run_end")

    def __init__(self, offset: int = 1, run: int = 1, repeats: bool = False) -> None:
        self.offset = offset
        self.run = run
        self.repeats = repeats
        self.missed = IdSet()
        self.n_restarts = 0
        self.last: int | None = None
        self.run_end = 0

    def restart(self) -> None:
        """Forget what came; the next id starts a new sequence, and a new count."""
        self.last = None
        self.missed = IdSet()
        self.n_restarts = 0

    def observe(self, value: int) -> bool:
        """Take note of an id; True if it follows, False if it is not larger than the one before."""
        last = self.last
        self.last = value
        if last is None:
            self.run_end = value + self.run - 1
        elif value == (last + 1 if last < self.run_end else last + self.offset):
            if last >= self.run_end:
                self.run_end = value + self.run - 1
        elif value > last:
            self._note_gap(last, value)
        elif self.repeats and value == last:
            pass
        else:
            # A repeated object, or a source that started its numbers again.
            self.run_end = value + self.run - 1
            self.n_restarts += value != last
            return False
        return True

    def overdue(self, newest: int) -> IdSet:
        """Ids up to `newest` that should have come after the last one."""
        if self.last is None or newest <= self.last:
            return IdSet()
        probe = SequenceTracker(self.offset, self.run)
        probe.last, probe.run_end = self.last, self.run_end
        probe._note_gap(self.last, newest + 1)
        return probe.missed

    def _note_gap(self, last: int, value: int) -> None:
        """Write down what should have come between two ids."""
        rest_of_run = min(self.run_end, value - 1)
        if last < self.run_end:
            self._miss(Comb(last + 1, rest_of_run - last, rest_of_run - last, 1))
        period = self.run - 1 + self.offset
        first = self.run_end + self.offset
        if value < first:
            # Within the run, or between runs: the share of the stream has changed.
            if value > self.run_end:
                self.run_end = value + self.run - 1
            return
        whole = (value - first) // period
        self._miss(Comb(first, self.run, period, whole))
        first += whole * period
        width = min(value - first, self.run)
        self._miss(Comb(first, width, max(width, 1), 1))
        # An id between two runs starts a run of its own.
        self.run_end = (first if value < first + self.run else value) + self.run - 1

    def _miss(self, comb: Comb) -> None:
        if comb.width > 0 and comb.times > 0:
            self.missed.add_comb(comb)
