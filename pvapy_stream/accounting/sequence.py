"""Which ids were missed, derived from those that arrived."""

from __future__ import annotations

from enum import Enum

from pvapy_stream.accounting.idset import Comb, IdSet

# A step over more ids than this is a jump: it is unknown whether those ids were sent.
JUMP = 1_000_000
# An id that follows larger ones is out of order if it is at most this much smaller.
DISORDER = 64
# Used as the last id when the next one is known to begin a new epoch; larger than any id.
_BEFORE_RESTART = 2**63


class IdStep(Enum):
    """How an id follows the one before."""

    NEXT = "next"  # as expected, or after ids that were missed
    AGAIN = "again"  # the same id as the one before
    LATE = "late"  # out of order: larger ids arrived before it
    BACK = "back"  # ids went back: a new epoch


class SequenceTracker:
    """Finds the missed ids from the ids that arrived and the pattern they should follow.

    A client of the distributor gets runs of ``run`` consecutive ids; the step from the last id of a
    run to the first id of its next run is ``offset``. Without a distributor, both are 1. With
    ``repeats`` the same id may arrive several times in a row, for example from several producers.

    Attributes:
        missed: ids of the present epoch that should have arrived and did not.
        unknown: ids skipped by a jump; it is unknown whether they were sent.
        excused: ids that are never missed although `observe` does not see them: they arrived in
            another way, or the source dropped them on purpose.
        remark: a message about what is unknown; "" if nothing is.
        blind: whether gaps mean nothing, as for one set of a group whose source filters.
    """

    __slots__ = (
        "blind",
        "excused",
        "last",
        "missed",
        "n_restarts",
        "offset",
        "remark",
        "repeats",
        "run",
        "run_end",
        "unknown",
    )

    def __init__(self, offset: int = 1, run: int = 1, repeats: bool = False) -> None:
        self.offset = offset
        self.run = run
        self.repeats = repeats
        self.blind = False
        self.restart()

    def restart(self) -> None:
        """Reset everything; the next id begins a new sequence."""
        self.missed = IdSet()
        self.unknown = IdSet()
        self.excused = IdSet()
        self.n_restarts = 0
        self.remark = ""
        self.last: int | None = None
        self.run_end = 0

    def reset_counts(self) -> None:
        """Set the counts to zero; the sequence continues."""
        self.missed, self.unknown = IdSet(), IdSet()
        self.n_restarts = 0
        self.remark = ""

    def begin_epoch(self, value: int) -> None:
        """Begin a new epoch with this id, after ids went back. Earlier missed ids are discarded."""
        self.missed = IdSet()
        self.unknown = IdSet()
        self.excused = IdSet()
        self.n_restarts += 1
        self.last = value
        self.run_end = value + self.run - 1

    def stand_at(self, value: int) -> None:
        """Continue after an id that did not arrive: the next id is expected to follow it."""
        self.last = self.run_end = value

    def expect_restart(self) -> None:
        """Ids start again: the next one is `IdStep.BACK`, however large it is."""
        if self.last is not None:
            self.last = _BEFORE_RESTART

    def observe(self, value: int) -> IdStep:
        """Process an id. After `IdStep.BACK`, the caller decides whether to call `begin_epoch`."""
        last = self.last
        if last is None:
            self.last = value
            self.run_end = value + self.run - 1
        elif value == (last + 1 if last < self.run_end else last + self.offset):
            self.last = value
            if last >= self.run_end:
                self.run_end = value + self.run - 1
        elif value > last:
            self.last = value
            self._note_gap(last, value)
        elif value == last:
            return IdStep.NEXT if self.repeats else IdStep.AGAIN
        elif last - value <= DISORDER and value in self.missed:
            self.missed.remove(IdSet([value]))
            return IdStep.LATE
        else:
            return IdStep.BACK
        return IdStep.NEXT

    def excuse(self, ids: IdSet) -> None:
        """Never count ids as missed: they arrived in another way, or were dropped on purpose."""
        self.missed.remove(ids)
        self.unknown.remove(ids)
        last, top = self.last, ids.last
        newer = ids if last is None or top is None else ids.between(last + 1, top)
        if newer:
            self.excused.update(newer)

    def go_blind(self, why: str) -> None:
        """Ignore gaps from now on, and discard the missed ids of this epoch."""
        self.blind = True
        self.remark = why
        self.missed = IdSet()

    def overdue(self, newest: int) -> IdSet:
        """Ids up to `newest` that should have arrived after the last one."""
        if self.last is None or newest <= self.last or self.blind:
            return IdSet()
        probe = SequenceTracker(self.offset, self.run)
        probe.last, probe.run_end, probe.excused = self.last, self.run_end, self.excused.copy()
        probe._note_gap(self.last, newest + 1)
        return probe.missed

    def _note_gap(self, last: int, value: int) -> None:
        """Record the ids that should have arrived between two ids."""
        if self.blind:
            return
        if value - last > JUMP:
            self._note_jump(last, value)
            return
        rest_of_run = min(self.run_end, value - 1)
        if last < self.run_end:
            self._miss(Comb(last + 1, rest_of_run - last, rest_of_run - last, 1))
        period = self.run - 1 + self.offset
        first = self.run_end + self.offset
        if value < first:
            # Within the run, or between runs: the number of sets in the group has changed.
            if value > self.run_end:
                self.run_end = value + self.run - 1
            return
        whole = (value - first) // period
        if whole:
            self._miss(Comb(first, self.run, period, whole))
            first += whole * period
        if width := min(value - first, self.run):
            self._miss(Comb(first, width, width, 1))
        # An id between two runs starts a run of its own.
        self.run_end = (first if value < first + self.run else value) + self.run - 1
        if self.excused and (self.excused.last or 0) < value:
            self.excused = IdSet()

    def _note_jump(self, last: int, value: int) -> None:
        self.remark = f"ids jumped from {last} to {value}; those between are unknown"
        self.unknown.add_range(last + 1, value - 1)
        self.run_end = value + self.run - 1

    def _miss(self, comb: Comb) -> None:
        if comb.width <= 0 or comb.times <= 0:
            return
        if not self.excused:
            self.missed.add_comb(comb)
            return
        missed = IdSet()
        missed.add_comb(comb)
        missed.remove(self.excused.between(comb.first, comb.end - 1))
        self.missed.update(missed)
