"""What a mirror received, by the ids of its source."""

from __future__ import annotations

from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import DISORDER, IdStep, SequenceTracker
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.objects import is_late, is_marked


class MirrorAccount(Account):
    """The ledgers of a mirror, one for each epoch of ids. Not locked.

    Args:
        ledger: of the first epoch.
        alone: whether one monitor receives the whole stream. Only then gaps can be detected here;
            the audit finds other gaps.
    """

    __slots__ = ("_fresh", "_last", "_tracker")

    def __init__(self, ledger: Ledger, alone: bool) -> None:
        super().__init__(ledger)
        self._tracker = SequenceTracker() if alone else None
        # The last id of the current epoch, of received objects and of current objects.
        self._last: int | None = None
        # Whether the source is a new one of which no object has arrived.
        self._fresh = False

    @property
    def overdue(self) -> int:
        """How many ids of the current epoch are missed so far."""
        return len(self._tracker.missed) if self._tracker is not None else 0

    def excuse(self, ids: IdSet) -> None:
        """Ids that the source filtered are not missed."""
        if self._tracker is not None:
            self._tracker.excuse(ids)

    def is_new(self, value: int, returns: bool) -> bool:
        """Whether a current object is new; ids may begin again with it.

        Args:
            value: its id.
            returns: whether its monitor had been there before; else it is one of several that
                connect.
        """
        tracker = self._tracker
        last = tracker.last if tracker is not None else self._last
        if last is None:
            if self._fresh:
                self.note_late_start(value + 1 if value > 0 else value)
            elif tracker is not None:
                tracker.observe(value)
            self._last = value
            return False
        # Several monitors take turns: one may be shown what another has not delivered yet.
        near = 0 if returns else DISORDER
        if value and last - value > near:
            # None processes the current object.
            self._begin(value, skipped=1)
        # 0 is what a channel holds at first; the next id shows whether its source goes on.
        return value > last and tracker is not None

    def take(self, value: int, obj: StreamObject) -> bool:
        """Note that an object arrived; False if it only opens the channel once more."""
        if self._fresh:
            self._fresh = False
            self.note_late_start(value)
        if self._tracker is not None:
            if not self._observe(self._tracker.observe(value), value, obj):
                return False
        elif self._last is not None and self._last - value > DISORDER and not is_late(obj):
            self._begin(value)
        if self._last is None or value > self._last or not is_late(obj):
            self._last = value
        self.ledger.received.add(value)
        return True

    def _observe(self, step: IdStep, value: int, obj: StreamObject) -> bool:
        if step is not IdStep.NEXT and is_marked(obj):
            return False
        if step in (IdStep.BACK, IdStep.LATE) and is_late(obj):
            self._take_late(value)
        elif step is IdStep.BACK:
            self.ledger.went_back += 1
            self._begin(value)
        elif step is IdStep.AGAIN:
            self.ledger.went_back += 1
            self.ledger.duplicate.add(value)
        return True

    def _take_late(self, value: int) -> None:
        """Note an object that a stage before has repaired."""
        if value in self.ledger.received:
            self.ledger.duplicate.add(value)
        else:
            self.excuse(IdSet([value]))
            self.ledger.repaired.add(value)

    def is_late(self, value: int, obj: StreamObject) -> bool:
        """Whether an object that was taken follows larger ids of the same epoch."""
        return self._last is not None and value < self._last and is_late(obj)

    def begin_anew(self) -> None:
        """The source is another one: its ids have a ledger of their own, however large."""
        self.ledger.went_back += 1
        self._begin(0)
        if self._tracker is not None:
            self._tracker.last = None
        self._last, self._fresh = None, True

    def _begin(self, value: int, skipped: int = 0) -> None:
        """Ids decreased: the source has restarted."""
        tracker = self._tracker
        if tracker is not None:
            self.ledger.missed.update(tracker.missed)
            self.ledger.unknown.update(tracker.unknown)
            tracker.begin_epoch(value)
        self.begin_epoch()
        self.note_late_start(value + skipped)
        self._last, self._fresh = value, False

    def copies(self) -> list[Ledger]:
        """The present ledgers, with what is missed so far."""
        made = [Ledger.from_dict(one.to_dict()) for one in self.ledgers]
        if self._tracker is not None:
            made[-1].missed.update(self._tracker.missed)
            made[-1].unknown.update(self._tracker.unknown)
        return made
