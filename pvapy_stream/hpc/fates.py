"""What becomes of the objects of a stage: noted in its ledger, and counted for its status."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import IdStep, SequenceTracker
from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.hpc.counts import StageCounts
from pvapy_stream.hpc.output import Output
from pvapy_stream.hpc.troubles import LOG_EVERY, Troubles
from pvapy_stream.hpc.unbatched import Unbatched
from pvapy_stream.pva.lazy import StreamObject

NO_ID = "object without an id"


class StageFates(Unbatched):
    """The account of a stage; not locked, the stage holds `lock`.

    Args:
        ledger: the account to write.
        tracker: finds the ids that were missed.

    Attributes:
        counts: since the start, or since statistics were reset: then it is another object.
        own_epochs: whether ids that go back begin a ledger; a collector does that itself, for each
            source.
    """

    # What the present processor is, see `UserDataProcessor`.
    _confirms = _gathers = _later = False
    _has_last_ids: Callable[[], bool]

    def __init__(self, ledger: Ledger, tracker: SequenceTracker) -> None:
        self.account = Account(ledger)
        self.tracker = tracker
        # What no object brings: ids that were missed. They are noted in the account of the first
        # source, whose epochs are those of the stage.
        self._summary = self.account
        self.counts = StageCounts()
        # Objects that came to it; who holds the lock knows that none of them is on its way.
        self.taken = 0
        # How often ids began again, as this stage sees it; never set back.
        self.n_begun = 0
        self.output: Output | None = None
        self._missed_before = 0
        self.lock = threading.RLock()
        self.own_epochs = True
        # Position in the sequence before an object of this epoch has arrived: the id of the current
        # object, which was not processed; None: there was no current object.
        self._place: int | None = None
        # What was skipped at first, and may be shown once more.
        self._initial: int | None = None
        # The largest id that the source has shown in this epoch, beyond those that came.
        self._newest_shown: int | None = None
        # Whether the epoch is that of a new source of which no object has come.
        self._fresh = False
        # Whether the connection was gone after the opening object, before anything else came.
        self._away = False
        # What was gathered, of which a result may yet have the id.
        self._gathered = IdSet()
        self._log = logging.getLogger(f"pvapy_stream.{ledger.stage}-{ledger.stage_id}")
        self.troubles = Troubles(self._log)

    def _know(self, processor: object) -> None:
        self._confirms = bool(getattr(processor, "confirms", False))
        self._gathers = bool(getattr(processor, "gathers", False))
        self._later = bool(getattr(processor, "publishes_later", False))
        # A `configure` command may change it.
        self._has_last_ids = lambda: bool(getattr(processor, "publishes_last_id", False))

    @property
    def ledger(self) -> Ledger:
        """The ledger of the present epoch."""
        return self.account.ledger

    def account_to(self, account: Account) -> None:
        """Note what follows in another account: a stage with several sources has one for each."""
        self.account = account
        if self.output is not None:
            self.output.ledger = account.ledger

    def _processed(self, value: int, obj: StreamObject) -> None:
        counts = self.counts
        if not self._confirms:
            counts.processed += 1
            self.account.ledger.processed.add(value)
        if counts.last_time >= counts.latency.due:
            counts.latency.note(obj)

    def _filtered(self, value: int, output: Output) -> None:
        """The processor returned without publishing: it dropped the object, or gathers several."""
        counts = self.counts
        if self._gathers:
            counts.processed += 1
            self.account.ledger.processed.add(value)
        else:
            counts.filtered += 1
            self.account.ledger.filtered.add(value)
        if output.filtered is None:
            return
        if self._gathers and not self._has_last_ids():
            self._gathered.add(value)
        else:
            output.filtered.note(value, output.last_id, counts.last_time)

    def _published_gathered(self, value: int, output: Output) -> None:
        """A gathering processor has published: what came before this result is in it, or dropped.

        Later ids may yet be those of results.
        """
        last = output.last_id
        if output.filtered is not None and last is not None and (value != last or self._gathered):
            self._gathered.add(value)
            self._tell_gathered(output, last)

    def _tell_gathered(self, output: Output, end: int | None) -> None:
        """Tell later stages which ids up to `end` are not published."""
        first = self._gathered.first
        if output.filtered is None or first is None or end is None or end < first:
            return
        ids = self._gathered.between(first, end)
        self._gathered.remove(ids)
        unpublished = ids - self.account.ledger.published.near(ids)
        output.filtered.note_ids(unpublished, output.last_id, self.counts.last_time)

    def _end_filtered(self) -> None:
        """No result of this epoch follows."""
        if self.output is not None and self.output.filtered is not None:
            self._tell_gathered(self.output, self._gathered.last)
            self.output.filtered.flush()

    def _skipped(self, value: int) -> None:
        self.counts.skipped += 1
        self.account.ledger.skip(value)

    def _failed(self, kind: str, value: int, error: BaseException) -> None:
        self.account.ledger.fail(kind, value)
        self.counts.errors += 1
        self.troubles.note(kind, f"{kind}: {error}", error, f"object {value} failed")

    def refuse(self, error: Exception) -> None:
        """Take an object that cannot be read."""
        with self.lock:
            self.taken += 1
            self.no_id(error)

    def no_id(self, error: Exception) -> None:
        """Count an object whose id cannot be read."""
        self.ledger.anonymous += 1
        self.note_error(NO_ID, error)

    def note_error(self, what: str, error: Exception) -> None:
        """Count an error that belongs to no object."""
        own = isinstance(error, PvapyStreamError)
        message = f"{what}: {error}" if own else f"{what}: {type(error).__name__}: {error}"
        self.counts.errors += 1
        self.troubles.note(what, message, error, "error")

    def _went_back(self, value: int, step: IdStep, skipped: int = 0) -> None:
        ledger = self.account.ledger
        if step is IdStep.LATE:
            return
        ledger.went_back += 1
        if step is IdStep.AGAIN:
            self._repeated(value)
            return
        self._begin_epoch(value)
        self._note_late_start(value + skipped)
        n = self.tracker.n_restarts
        if n == 1 or n % LOG_EVERY == 0:
            self._log.warning(
                "ids went back to %d (%d times so far): a new epoch; did the source restart?",
                value,
                n,
            )

    def _note_late_start(self, value: int) -> None:
        """Ids start again, and those before this one did not come: we may have been away."""
        unknown = IdSet()
        if self.own_epochs:
            unknown = self.account.note_late_start(value, but=self.tracker.excused)
        if unknown:
            self.tracker.unknown.update(unknown)
            self.tracker.remark = (
                f"ids started again; whether {unknown} were sent before {value} is unknown"
            )

    def _repeated(self, value: int) -> None:
        self.account.ledger.duplicate.add(value)
        self.counts.duplicates += 1
        n = self.counts.duplicates
        if n == 1 or n % LOG_EVERY == 0:
            self._log.warning("id %d came again (%d such objects so far)", value, n)

    def _begin_epoch(self, value: int) -> None:
        self.finish_batch()
        self._end_filtered()
        self.n_begun += 1
        if self.output is not None:
            self.output.late_ids = IdSet()
        self._note_end()
        self._missed_before += len(self.tracker.missed)
        self.tracker.begin_epoch(value)
        self._place = self._initial = self._newest_shown = None
        self._fresh = self._away = False
        if self.own_epochs and self.account.begin_epoch() and self.output is not None:
            self.output.ledger = self.account.ledger

    def _begin_anew(self) -> None:
        """The source is another one: what comes, however large its ids are, has its own epoch."""
        self.account.ledger.went_back += 1
        self._begin_epoch(0)
        self.tracker.last, self._fresh = None, True
        self.account.ledger.sources, self.account.ledger.lap = [], 1
        self._log.warning("the source is a new one: its ids have an account of their own")

    def _begin_sequence(self, value: int) -> None:
        """Note what did not come before the first object of an epoch, which has come."""
        self._note_unseen(value)
        place, fresh, away = self._place, self._fresh, self._away
        self._place, self._fresh, self._away = None, False, False
        if fresh:
            if not (place and self._shared):
                self._note_late_start(value)
        elif place and value > place and not self._shared:
            # The source sends all that follows what it shows.
            self.tracker.stand_at(place)
        elif away and value > 1 and not self._shared:
            unknown = IdSet.of_range(1, value - 1) - self.tracker.excused
            self.tracker.unknown.update(unknown)
            self.tracker.remark = (
                f"the connection was gone; whether {unknown} were sent before {value} is unknown"
            )

    def _note_unseen(self, value: int) -> None:
        """Note what may have been sent between an object and a late one of before this stage began.

        They are not asked for: another process of this stage may have them.
        """
        ledger = self.account.ledger
        taken = ledger.received - ledger.skipped
        first = taken.first
        if first is None or self._shared or (self.tracker.last is not None and value > first):
            return
        low, high = sorted((first, value))
        ledger.unknown.update(IdSet.of_range(low + 1, high - 1) - taken)

    def note_absence(self) -> None:
        """A source that has opened its channel comes back and has sent objects meanwhile."""
        if self.tracker.last is None:
            self._place, self._away = 0, True

    @property
    def _shared(self) -> bool:
        """Whether others get what this stage does not; the audit finds what came to nobody."""
        return bool(self.account.ledger.group)

    def _note_end(self, newest: int | None = None) -> None:
        """Note what should have come before the epoch ends, which it does here.

        Args:
            newest: the source's newest id; None: it is not known.
        """
        tracker = self.tracker
        place = 0 if self._place is None and self._fresh else self._place
        sent = [value for value in (newest, self._newest_shown) if value is not None]
        if sent:
            last = max(sent)
            if self.own_epochs:
                self.account.ledger.newest = last
            if tracker.last is None and place is not None and last > place and not self._shared:
                # Nothing has come of what followed.
                if place:
                    tracker.stand_at(place)
                else:
                    tracker.unknown.add_range(1, last)
            tracker.missed.update(tracker.overdue(last))
        self._note_missed()

    def end_epoch(self) -> None:
        """Ids begin anew: what was missed up to here belongs to the present ledgers."""
        with self.lock:
            self.finish_batch()
            self.n_begun += 1
            tracker = self.tracker
            self._note_missed()
            self._missed_before += len(tracker.missed)
            tracker.missed, tracker.unknown = IdSet(), IdSet()

    def change_input(self, channel: str, value: int) -> None:
        """What comes from now on comes from another channel, with this id first."""
        with self.lock:
            self._begin_epoch(value)
            self.tracker.last = None
            self.account.ledger.input_channel = channel

    def _note_missed(self) -> None:
        """Note what is missed in this epoch in the ledger."""
        ledger = self._summary.ledger
        if not self.own_epochs and self.tracker.missed & (ledger.received - ledger.skipped):
            # They arrived before ids started again; the first source has sent none since then.
            self._summary.begin_epoch()
            ledger = self._summary.ledger
        ledger.missed.update(self.tracker.missed)
        ledger.unknown.update(self.tracker.unknown)

    def missed(self, newest: int | None = None) -> IdSet:
        """Ids of this epoch that should have come and did not, since the last reset.

        Args:
            newest: the source's newest id, if it is known; ids up to it are overdue.
        """
        missed = self.tracker.missed
        return missed if newest is None else missed | self.tracker.overdue(newest)

    def count_missed(self, newest: int | None = None, after: int | None = None) -> int:
        """How many ids should have come and did not, since the last reset.

        Args:
            newest: the source's newest id, if it is known; ids up to it are overdue.
            after: ids after this one do not count yet; None: all count.
        """
        tracker = self.tracker
        count = self._missed_before + len(tracker.missed)
        if newest is not None:
            count += len(tracker.overdue(newest))
        if after is not None and (last := tracker.missed.last) is not None:
            count -= len(tracker.missed.between(after + 1, last))
        return count

    def excuse(self, ids: IdSet) -> None:
        """These ids will not come: the source dropped them on purpose."""
        with self.lock:
            self.tracker.excuse(ids)
            if self._confirms:
                # A writer records why they are not in its file.
                self.account.ledger.excused.update(ids)

    def pass_on(self, ids: IdSet, handled: int | None = None, published: int | None = None) -> None:
        """Pass on to later stages what a stage before this one filtered.

        Args:
            ids: the ids.
            handled: the id it handled last, None if it is one of several stages.
            published: the id it published last; None for none.
        """
        with self.lock:
            output, last = self.output, self.tracker.last
            if output is None or output.filtered is None:
                return
            later = self._later or self._gathers or output.later or self.n_waiting
            if published is not None and last is not None and last >= published and not later:
                # It has its fate here: what became of it is published.
                published = output.last_id
            output.filtered.pass_on(ids, handled, published)

    def unsettled(self, account: Account) -> int:
        """How many objects of an account will count as processed later; needs the lock."""
        if not self._confirms:
            return 0
        return sum(len(ledger.without_fate()) for ledger in account.ledgers)

    @property
    def last_error(self) -> str:
        """The last error of the run; "" for none."""
        return self.troubles.last

    @property
    def error_counts(self) -> dict[str, int]:
        """Number of errors by kind, in the whole run."""
        return dict(self.troubles.counts)

    @property
    def ok(self) -> bool:
        """Whether nothing failed, in the whole run."""
        return not self.troubles.counts
