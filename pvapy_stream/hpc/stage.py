"""The stage: skip, process, account. One object after another, under one lock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import IdStep, SequenceTracker
from pvapy_stream.errors import TransportError
from pvapy_stream.hpc.counts import Baseline, StageCounts
from pvapy_stream.hpc.output import Output
from pvapy_stream.hpc.processor import UserDataProcessor
from pvapy_stream.hpc.repaired import RepairableStage
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.objects import IdReader, id_reader, is_late, is_marked
from pvapy_stream.transport.ports import Return

PUBLISHING = "publishing"
NO_RETURN = "did not return in time"

_T = TypeVar("_T")


def kind_of(error: BaseException) -> str:
    """Kind of an error of a processor in ledgers."""
    return PUBLISHING if isinstance(error, TransportError) else f"process: {type(error).__name__}"


def _no_output(_: StreamObject) -> None:
    return None


class Stage(RepairableStage):
    """Runs a processor on objects and records the fate of each.

    Args:
        processor: user code; its `start` has been called, or is before the first object.
        ledger: the account to write.
        tracker: finds the ids that were missed.
        id_field: field with the object id.
        skip: how many first objects are not processed.
        open_output: makes the output from the first object received; None for no output.
        read_id: reads ids; None: chosen by the structure of the first object.
    """

    def __init__(
        self,
        processor: UserDataProcessor,
        ledger: Ledger,
        tracker: SequenceTracker,
        *,
        id_field: str,
        skip: int = 0,
        open_output: Callable[[StreamObject], Output | None] | None = None,
        read_id: IdReader | None = None,
    ) -> None:
        super().__init__(ledger, tracker)
        self.use(processor)
        self._to_skip = skip
        self._skips = skip > 0
        # Whether the time to drain is over; what comes then is left, and how much that was.
        self.leaving, self.n_left = False, 0
        # Whether user code did not return in time, see `abandon`.
        self.abandoned = False
        self._open_output = open_output or _no_output
        self._wants_output = open_output is not None
        self._id_field = id_field
        self._read_id = read_id
        # Asked once: this is said of each object.
        self._tells = self._log.isEnabledFor(logging.DEBUG)

    def handle(self, obj: StreamObject) -> None:
        """Take an object to its fate. Raises nothing: errors are counted, logged and shown."""
        with self.lock:
            self.taken += 1
            if self.leaving:
                self.leave([(self.account, obj)])
                return
            read_id = self._read_id
            try:
                value = read_id(obj) if read_id else self._first(obj)
            except Exception as error:
                self.no_id(error)
                return
            tracker = self.tracker
            if tracker.last is None and is_marked(obj):
                self._take_marked(obj, value)
                return
            trouble = self._open_from(obj) if self._wants_output else None
            if self._to_skip > 0:
                self._skip(value, trouble)
                return
            if value == self._initial and tracker.last is None:
                # The same object once more, as after a quick change of connections.
                self._initial = None
                self._skipped(value)
                self._repeated(value)
                return
            step = tracker.observe(value) if tracker.last is not None else self._begin(value, obj)
            if step is not IdStep.NEXT:
                if is_marked(obj):
                    self.counts.skipped += 1
                    return
                if step is not IdStep.AGAIN and is_late(obj):
                    self.take_late(value)
                else:
                    self._went_back(value, step)
            self.account.ledger.received.add(value)
            counts = self.counts
            counts.last_time = time.time()
            if counts.first_id is None:
                counts.first_id, counts.first_time = value, counts.last_time
            counts.last_id = value
            if trouble is not None:
                self._failed("opening the output", value, trouble)
                return
            if self._tells:
                self._log.debug("processing object %d", value)
            self._process(value, obj)

    def _begin(self, value: int, obj: StreamObject) -> IdStep:
        """Begin the sequence with the first id, unless it is that of a late object."""
        if is_late(obj):
            return IdStep.BACK
        self._begin_sequence(value)
        return self.tracker.observe(value)

    def _process(self, value: int, obj: StreamObject) -> None:
        """Process an object that was taken."""
        output = self.output
        if output is not None:
            output.input_id = value
            output.sent = False
            output.thread = threading.get_ident()
        try:
            self.processor.process(obj)
        except (Exception, SystemExit) as error:
            # An exit would end this thread alone, without a word.
            self._failed(kind_of(error), value, error)
        else:
            if self.abandoned:
                return
            if output is None:
                self._processed(value, obj)
            elif output.failure is not None:
                self._failed(PUBLISHING, value, output.failure)
            elif output.sent or output.later or self._later:
                self._processed(value, obj)
                if self._gathers:
                    self._published_gathered(value, output)
            else:
                self._filtered(value, output)
        if output is not None:
            output.failure = None

    def _take_marked(self, obj: StreamObject, value: int) -> None:
        """Take the object that a channel was opened with: it shows a structure, and is no frame."""
        trouble = self._open_from(obj) if self._wants_output else None
        if trouble is not None:
            self._log.info("the opening object cannot open the output: %s", trouble)
        self._to_skip = max(0, self._to_skip - 1)
        self.counts.skipped += 1
        self.account.ledger.opened = True
        # A mirror shows an id that was sent before, and may wait before it passes any on.
        self._place = 0 if value == 0 else None

    def _skip(self, value: int, trouble: Exception | None) -> None:
        self._to_skip -= 1
        self._skipped(value)
        self._initial = self._place = value
        if trouble is not None:
            self._log.warning("an initial update cannot open the output: %s", trouble)

    def prepare(self, first: StreamObject) -> None:
        """Open the output from an object received before any that is processed.

        Raises:
            ObjectError: the object has no id.
        """
        with self.lock:
            if self._read_id is None:
                self._first(first)
            if self._wants_output:
                self._open_from(first)

    def _first(self, obj: StreamObject) -> int:
        self._read_id = id_reader(self._id_field, obj)
        return self._read_id(obj)

    def _open_from(self, obj: StreamObject) -> Exception | None:
        """Open the output with an object's structure; the error if it fails, to be tried again."""
        try:
            self.output = self._open_output(obj)
        except Exception as error:
            return error
        self._wants_output = False
        if self.output is not None:
            self.output.ledger = self.account.ledger
        self.processor.dataPublisher = self.output
        return None

    def use(self, processor: UserDataProcessor) -> None:
        """Process what follows with this processor."""
        self.processor = processor
        self._know(processor)

    def reject(self, policy: str, obj: StreamObject) -> None:
        """Write down an object that was dropped before the stage took it."""
        with self.lock:
            try:
                if self._read_id is None:
                    self._read_id = id_reader(self._id_field, obj)
                value = self._read_id(obj)
            except Exception as error:
                self.no_id(error)
                return
            if is_marked(obj):
                return
            # The tracker does not observe it: objects that came earlier may still wait.
            self.ledger.received.add(value)
            self.ledger.reject(policy, value)
            self.tracker.excuse(IdSet([value]))

    def skip_next(self, count: int) -> None:
        """Skip the next objects."""
        self._to_skip = count

    def handle_again(
        self, obj: StreamObject, how: Return, shared: bool = False, source: str = ""
    ) -> bool:
        """Note the first object after a source came back; True if it is no new one, and skipped.

        Args:
            obj: the object.
            how: how the source came back.
            shared: whether the stage gets a share of a stream: each of those who share it is shown
                the same object, so none of them may take it.
            source: names the program that sends it, where that is known.
        """
        with self.lock:
            if how.anew:
                # Whether an object follows or not: each who follows the source has this epoch.
                self._begin_anew()
            if source and source not in self.account.ledger.sources:
                self.account.ledger.sources.append(source)
            known = self._is_known(obj, how, shared)
            if self._place == 0 and not known:
                self.note_absence()
            self.taken += known
            return known

    def _is_known(self, obj: StreamObject, how: Return, shared: bool) -> bool:
        """Whether the first object after a source came back is no new one; then it is noted."""
        if is_marked(obj):
            self.counts.skipped += 1
            return True
        if not self._skips or not how.shown or self._read_id is None:
            return False
        last, place = self.tracker.last, self._place
        if last is None and place is None and not (shared or how.anew):
            # The source has shown nothing yet.
            return False
        try:
            value = self._read_id(obj)
        except Exception as error:
            self.no_id(error)
            return True
        at = place if last is None else last
        if at is None:
            # It was published before this stage was there: another one has it, or nobody.
            if how.anew and value > 0:
                self._note_late_start(value + 1)
            self._skipped(value)
            self._place = value
            return True
        return self._skip_shown(value, at, obj, shared)

    def _skip_shown(self, value: int, at: int, obj: StreamObject, shared: bool) -> bool:
        """Skip what the source shows again, unless it is new; `at` is what it sent or showed."""
        if value == 0 < at:
            # What a channel holds at first. Its source goes on, or the next id shows that it does
            # not: until then the place is kept.
            if obj.hasField("timeStamp"):
                self._skipped(value)
            else:
                # What cannot be marked is known by its id alone.
                self.counts.skipped += 1
            return True
        if (value > at or (is_late(obj) and value in self.tracker.missed)) and not shared:
            return False
        if value < at and not is_late(obj):
            # Nobody takes what is shown.
            self._went_back(value, IdStep.BACK, skipped=1)
            self.tracker.last, self._place = None, value
        elif value > at:
            self._newest_shown = value
        self._skipped(value)
        return True

    def leave(self, waiting: Iterable[tuple[Account, StreamObject]]) -> None:
        """Write down objects that still waited when the time to drain was over."""
        for account, obj in waiting:
            try:
                value = (self._read_id or id_reader(self._id_field, obj))(obj)
            except Exception as error:
                self.no_id(error)
                continue
            # An opening object is no frame, and what the processor hangs at does not wait.
            if is_marked(obj) or (self.abandoned and value == self.counts.last_id):
                continue
            self.n_left += 1
            self.tracker.excuse(IdSet([value]))
            account.ledger.received.add(value)
            account.ledger.left.add(value)

    def abandon(self, accounts: Iterable[Account], newest: int | None) -> None:
        """Close the account though user code does not return, and so holds the lock.

        What it does from now on is not noted; the process is ended by force.
        """
        self.abandoned = True
        accounts = list(accounts)
        self._settle(accounts, self.processor)
        unfinished = getattr(self.processor, "unfinished", None)
        for account in accounts:
            if unfinished is not None:
                account.fail_late(NO_RETURN, unfinished())
            for ledger in account.ledgers:
                if ids := ledger.without_fate():
                    ledger.failed.setdefault(NO_RETURN, IdSet()).update(ids)
        self._close(newest)

    def call(
        self, what: str, function: Callable[..., _T], *args: object, fallback: _T | None = None
    ) -> _T | None:
        """Call the processor between two objects; an error is counted and gives the fallback."""
        with self.lock:
            try:
                return function(*args)
            except Exception as error:
                self.note_error(what, error)
                return fallback

    def settle(
        self, accounts: Iterable[Account], processor: UserDataProcessor | None = None
    ) -> None:
        """Note what became of objects after `process` had returned."""
        with self.lock:
            self._settle(list(accounts), processor or self.processor)

    def _settle(self, accounts: list[Account], processor: UserDataProcessor) -> None:
        late = getattr(processor, "late_failures", None)
        if late is None:
            return
        for done in late.take_done():
            self.counts.processed += sum(one.confirm(done) for one in accounts)
        for policy, ids in late.take_rejected().items():
            for one in accounts:
                one.reject_late(policy, ids)
        for kind, ids in late.take().items():
            n = sum(one.fail_late(kind, ids) for one in accounts)
            self.counts.errors += len(ids)
            if not self._confirms:
                self.counts.processed = max(0, self.counts.processed - n)
            self.troubles.note_late(kind, late.last, len(ids))

    def reset(self, base: Baseline | None = None) -> None:
        """Reset the statistics; the ledger continues.

        Args:
            base: what other parts have counted until now; kept as `counts.base`.
        """
        with self.lock:
            self._note_missed()
            # The sequence continues: without it, ids that go back would not begin a new ledger.
            self.tracker.reset_counts()
            self._missed_before = 0
            self.counts = StageCounts(base or Baseline())
            self.call("resetStats", self.processor.resetStats)

    def finish(self, newest: int | None = None) -> None:
        """Close the account: what should have come up to the source's newest id is missed."""
        with self.lock:
            self._close(newest)

    def _close(self, newest: int | None) -> None:
        # What was rejected after the last object was sent after what should have come by then.
        rejected = self.tracker.excused.last
        if rejected is not None:
            self.tracker.missed.update(self.tracker.overdue(rejected))
        self._note_end(newest)
        self._end_filtered()
        self.counts.end_time = time.time()
