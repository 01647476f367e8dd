"""The part of a stage that takes repaired objects: they were missed, and its source kept them."""

from __future__ import annotations

from abc import abstractmethod

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, union
from pvapy_stream.hpc.fates import StageFates
from pvapy_stream.pva.lazy import StreamObject

_MOST_UNKNOWN = 100_000  # ids


class RepairableStage(StageFates):
    """A stage whose missed ids may come later.

    Attributes:
        n_repaired: objects that came because this stage asked for them, since the start.
    """

    n_repaired = 0
    leaving = False  # whether the time to drain is over

    @abstractmethod
    def _process(self, value: int, obj: StreamObject) -> None:
        """Process an object that was taken."""

    def take_repaired(self, obj: StreamObject, value: int, epoch: int) -> bool:
        """Process an object that was missed; False if it is not missed now, and was not taken.

        Args:
            obj: the object.
            value: its id.
            epoch: `n_begun` of when it was missed.
        """
        with self.lock:
            one = IdSet([value])
            if self.leaving or self.n_begun != epoch or not self.still_missed(one):
                return False
            self._note_repaired(one)
            self.n_repaired += 1
            self.account.ledger.received.add(value)
            # What waits for its batch came before, and a repaired frame does not wait for others.
            self.finish_batch()
            self._process(value, obj)
            self.finish_batch()
            return True

    def still_missed(self, ids: IdSet) -> IdSet:
        """Those of some ids of this epoch that have not come; needs the lock."""
        noted = self.tracker, self._summary.ledger
        # When statistics are reset, the ledger alone has what was missed before.
        return ids & union(s.near(ids) for one in noted for s in (one.missed, one.unknown))

    @property
    def to_repair(self) -> IdSet:
        """Ids of this epoch that may be asked for, since the last reset; needs the lock."""
        missed, unknown = self.tracker.missed, self.tracker.unknown
        # Of a jump, hardly any were sent.
        return missed | unknown if 0 < len(unknown) <= _MOST_UNKNOWN else missed

    def _note_repaired(self, ids: IdSet) -> None:
        """Ids are not missed any more."""
        self.counts.repaired += len(ids)
        self.account.ledger.repaired.update(ids)
        if self.output is not None:
            self.output.late_ids.update(ids)
        self.tracker.missed.remove(ids)
        self.tracker.unknown.remove(ids)
        ledger = self._summary.ledger
        for noted in (ledger.missed, ledger.unknown):
            noted.remove(ids)
        self._forget_unrepairable(ids)

    def _forget_unrepairable(self, ids: IdSet) -> None:
        """Ids need not be repaired any more."""
        noted = self._summary.ledger.unrepairable
        for reason, unrepairable in [*noted.items()]:
            unrepairable.remove(ids)
            if not unrepairable:
                del noted[reason]

    def excuse(self, ids: IdSet) -> None:
        """These ids will not come: the source dropped them on purpose."""
        with self.lock:
            super().excuse(ids)
            self._forget_unrepairable(ids)

    def take_late(self, value: int) -> None:
        """Note an object that follows larger ids, as those do that a stage before repaired."""
        ledger = self.account.ledger
        if value in ledger.received:
            self._repeated(value)
            return
        self._note_unseen(value)
        self._note_repaired(IdSet([value]))

    def note_unrepairable(self, reason: str, ids: IdSet, ledger: Ledger) -> None:
        """Note why missed ids of a ledger cannot come any more; they stay missed."""
        with self.lock:
            present = ledger is self._summary.ledger
            known = self.still_missed(ids) if present else ids & (ledger.missed | ledger.unknown)
            if known:
                ledger.unrepairable.setdefault(reason, IdSet()).update(known)

    @property
    def missing_in(self) -> Ledger:
        """The ledger in which missed ids are noted."""
        return self._summary.ledger

    def expect_to(self, newest: int) -> None:
        """Count as missed what should have come up to an id, before the end is noted."""
        with self.lock:
            tracker = self.tracker
            if overdue := tracker.overdue(newest):
                tracker.missed.update(overdue)
                tracker.stand_at(newest)
