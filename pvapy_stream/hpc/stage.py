"""The stage: skip, process, account. One object after another, under one lock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import SequenceTracker, Step
from pvapy_stream.errors import PvapyStreamError, TransportError
from pvapy_stream.hpc.latency import Latency
from pvapy_stream.hpc.output import Output
from pvapy_stream.hpc.processor import UserDataProcessor
from pvapy_stream.hpc.troubles import LOG_EVERY, Troubles
from pvapy_stream.pva.objects import IdReader, id_reader, is_marked

NO_ID = "object without an id"
PUBLISHING = "publishing"


@dataclass(slots=True)
class StageCounts:
    """What a stage counted since its start or last reset. Times: s since 1970, 0 for none yet."""

    start_time: float = field(default_factory=time.time)
    end_time: float = 0.0
    first_time: float = 0.0
    last_time: float = 0.0
    first_id: int | None = None
    last_id: int | None = None
    processed: int = 0
    filtered: int = 0
    duplicates: int = 0
    errors: int = 0

    @property
    def receiving_time(self) -> float:
        """Time from the first to the last object, s."""
        return self.last_time - self.first_time


class Stage:
    """Runs a processor on objects and writes down the fate of each.

    Args:
        processor: user code; its `start` has been called, or is before the first object.
        ledger: the account to write.
        tracker: tells which ids were missed.
        id_field: field with the object id.
        skip: how many first objects are not processed.
        open_output: makes the output from the first object received; None for no output.
        read_id: reads ids; told from the first object when not given.
    """

    def __init__(
        self,
        processor: UserDataProcessor,
        ledger: Ledger,
        tracker: SequenceTracker,
        *,
        id_field: str,
        skip: int = 0,
        open_output: Any = None,
        read_id: IdReader | None = None,
    ) -> None:
        self._confirms = self._gathers = self._later = False
        self.use(processor)
        self.account = Account(ledger)
        self.tracker = tracker
        # What no object brings: ids that were missed. They are noted in the account of the first
        # source, whose epochs are those of the stage.
        self._summary = self.account
        self._to_skip = skip
        self._skips = skip > 0
        self.counts = StageCounts()
        self.latency = Latency()
        self.output: Output | None = None
        self._initial: int | None = None
        self._missed_before = 0
        self.lock = threading.RLock()
        self._open_output = open_output
        self._wants_output = open_output is not None
        self._id_field = id_field
        self._read_id = read_id
        # Whether ids that go back begin a ledger; a collector does that itself, for each source.
        self.own_epochs = True
        self._log = logging.getLogger(f"pvapy_stream.{ledger.stage}-{ledger.stage_id}")
        self.troubles = Troubles(self._log)
        # Asked once: this is said of each object.
        self._tells = self._log.isEnabledFor(logging.DEBUG)

    def handle(self, obj: Any) -> None:
        """Take an object to its fate. Raises nothing: errors are counted, logged and shown."""
        with self.lock:
            read_id = self._read_id
            try:
                value = read_id(obj) if read_id else self._first(obj)
            except Exception as error:
                self.no_id(error)
                return
            tracker = self.tracker
            if tracker.last is None and is_marked(obj):
                self._take_marked(obj)
                return
            ledger = self.account.ledger
            trouble = self._open_from(obj) if self._wants_output else None
            if self._to_skip > 0:
                self._skip(value, trouble)
                return
            if value == self._initial and tracker.last is None:
                # The same object once more, as after a quick change of connections.
                self._initial = None
                ledger.skip(value)
                self._repeated(value)
                return
            step = tracker.observe(value)
            if step is not Step.NEXT:
                if is_marked(obj):
                    return
                self._went_back(value, step)
                ledger = self.account.ledger
            ledger.received.add(value)
            counts = self.counts
            counts.last_time = time.time()
            if counts.first_id is None:
                counts.first_id, counts.first_time = value, counts.last_time
            counts.last_id = value
            if trouble is not None:
                self._failed("opening the output", value, trouble)
                return
            output = self.output
            if output is not None:
                output.input_id = value
                output.sent = False
                output.thread = threading.get_ident()
            if self._tells:
                self._log.debug("processing object %d", value)
            try:
                self.processor.process(obj)
            except TransportError as error:
                self._failed(PUBLISHING, value, error)
            except Exception as error:
                self._failed(f"process: {type(error).__name__}", value, error)
            else:
                if output is None:
                    self._processed(value, obj)
                elif output.failure is not None:
                    self._failed(PUBLISHING, value, output.failure)
                elif output.sent or output.later or self._later:
                    self._processed(value, obj)
                else:
                    self._filtered(value, output)
            if output is not None:
                output.failure = None

    def _processed(self, value: int, obj: Any) -> None:
        counts = self.counts
        if not self._confirms:
            counts.processed += 1
            self.account.ledger.processed.add(value)
        if counts.last_time >= self.latency.due:
            self.latency.note(obj)

    def _filtered(self, value: int, output: Output) -> None:
        """The processor returned without publishing: it dropped the object, or gathers several."""
        counts = self.counts
        if self._gathers:
            counts.processed += 1
            self.account.ledger.processed.add(value)
        else:
            counts.filtered += 1
            self.account.ledger.filtered.add(value)
        if output.filtered is not None:
            output.filtered.note(value, output.last_id, counts.last_time)

    def _take_marked(self, obj: Any) -> None:
        """Take the object that a channel was opened with: it shows a structure, and is no frame."""
        trouble = self._open_from(obj) if self._wants_output else None
        if trouble is not None:
            self._log.info("the opening object cannot open the output: %s", trouble)
        self._to_skip = max(0, self._to_skip - 1)
        self.account.ledger.opened = True

    def _skip(self, value: int, trouble: Exception | None) -> None:
        self._to_skip -= 1
        self.account.ledger.skip(value)
        self._initial = value
        if trouble is not None:
            self._log.warning("an initial update cannot open the output: %s", trouble)

    def prepare(self, first: Any) -> None:
        """Open the output from an object received before any that is processed.

        Raises:
            ObjectError: the object has no id.
        """
        with self.lock:
            if self._read_id is None:
                self._first(first)
            if self._wants_output:
                self._open_from(first)

    def _first(self, obj: Any) -> int:
        self._read_id = id_reader(self._id_field, obj)
        return self._read_id(obj)

    def _open_from(self, obj: Any) -> Exception | None:
        """Open the output with an object's structure; why it cannot be told, to be tried again."""
        try:
            self.output = self._open_output(obj)
        except Exception as error:
            return error
        self._wants_output = False
        if self.output is not None:
            self.output.ledger = self.account.ledger
        self.processor.dataPublisher = self.output
        return None

    @property
    def ledger(self) -> Ledger:
        """The ledger of the present epoch."""
        return self.account.ledger

    def account_to(self, account: Account) -> None:
        """Note what follows in another account: a stage with several sources has one for each."""
        self.account = account
        if self.output is not None:
            self.output.ledger = account.ledger

    def use(self, processor: UserDataProcessor) -> None:
        """Process what follows with this processor."""
        self.processor = processor
        self._confirms = bool(getattr(processor, "confirms", False))
        self._gathers = bool(getattr(processor, "gathers", False))
        self._later = bool(getattr(processor, "publishes_later", False))

    def no_id(self, error: Exception) -> None:
        """Count an object whose id cannot be read."""
        self.ledger.anonymous += 1
        self.note_error(NO_ID, error)

    def _went_back(self, value: int, step: Step) -> None:
        ledger = self.account.ledger
        if step is Step.LATE:
            return
        ledger.went_back += 1
        if step is Step.AGAIN:
            self._repeated(value)
            return
        self._begin_epoch(value)
        n = self.tracker.n_restarts
        if n == 1 or n % LOG_EVERY == 0:
            self._log.warning(
                "ids went back to %d (%d times so far): a new epoch; did the source restart?",
                value,
                n,
            )

    def _repeated(self, value: int) -> None:
        self.account.ledger.duplicate.add(value)
        self.counts.duplicates += 1
        n = self.counts.duplicates
        if n == 1 or n % LOG_EVERY == 0:
            self._log.warning("id %d came again (%d such objects so far)", value, n)

    def _begin_epoch(self, value: int) -> None:
        self._note_missed()
        self._missed_before += len(self.tracker.missed)
        self.tracker.begin_epoch(value)
        if self.own_epochs and self.account.begin_epoch() and self.output is not None:
            self.output.ledger = self.account.ledger

    def _note_missed(self) -> None:
        """Note what is missed in this epoch in the ledger."""
        ledger = self._summary.ledger
        ledger.missed.update(self.tracker.missed)
        ledger.unknown.update(self.tracker.unknown)

    def _failed(self, kind: str, value: int, error: Exception) -> None:
        self.account.ledger.fail(kind, value)
        self.counts.errors += 1
        self.troubles.note(kind, f"{kind}: {error}", error, f"object {value} failed")

    @property
    def last_error(self) -> str:
        """The last error of the run; "" for none."""
        return self.troubles.last

    def reject(self, policy: str, obj: Any) -> None:
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

    def handle_again(self, obj: Any, shared: bool = False) -> bool:
        """Note the object a source shows when it came back; True if it is no new one, and skipped.

        Args:
            obj: the object.
            shared: whether the stage gets a share of a stream: each of those who share it is shown
                the same object, so none of them may take it.
        """
        with self.lock:
            if is_marked(obj):
                return True
            last = self.tracker.last
            if not self._skips or last is None or self._read_id is None:
                return False
            value = self._read_id(obj)
            if value == 0 < last and not obj.hasField("timeStamp"):
                # What cannot be marked is known by its id alone.
                return True
            if value > last and not shared:
                return False
            if value < last:
                self._went_back(value, Step.BACK)
                self.tracker.last = None
            self.ledger.skip(value)
            return True

    def leave(self, objects: list[Any]) -> None:
        """Write down objects that still waited when the time to drain was over."""
        with self.lock:
            for obj in objects:
                try:
                    value = (self._read_id or id_reader(self._id_field, obj))(obj)
                except Exception as error:
                    self.no_id(error)
                    continue
                self.ledger.received.add(value)
                self.ledger.left.add(value)

    def call(self, what: str, function: Any, *args: Any, fallback: Any = None) -> Any:
        """Call the processor between two objects; an error is counted and gives the fallback."""
        with self.lock:
            try:
                return function(*args)
            except Exception as error:
                self.note_error(what, error)
                return fallback

    def note_error(self, what: str, error: Exception) -> None:
        """Count an error that met no object."""
        own = isinstance(error, PvapyStreamError)
        message = f"{what}: {error}" if own else f"{what}: {type(error).__name__}: {error}"
        self.counts.errors += 1
        self.troubles.note(what, message, error, "error")

    def settle(self, accounts: Iterable[Account], processor: Any = None) -> None:
        """Note what became of objects after `process` had returned."""
        late = getattr(processor or self.processor, "late_failures", None)
        if late is None:
            return
        accounts = list(accounts)
        with self.lock:
            for done in late.take_done():
                self.counts.processed += sum(one.confirm(done) for one in accounts)
            for kind, ids in late.take().items():
                n = sum(one.fail_late(kind, ids) for one in accounts)
                self.counts.errors += len(ids)
                if not self._confirms:
                    self.counts.processed = max(0, self.counts.processed - n)
                self.troubles.note_late(kind, late.last, len(ids))

    def reset(self) -> None:
        """Begin to count anew; the ledger goes on."""
        with self.lock:
            self._note_missed()
            self.tracker.restart()
            self._missed_before = 0
            self.counts = StageCounts()
            self.latency = Latency()
            if self.output is not None:
                self.output.reset_counts()
            self.call("resetStats", self.processor.resetStats)

    def missed(self, newest: int | None = None) -> IdSet:
        """Ids of this epoch that should have come and did not, since the last reset.

        Args:
            newest: the source's newest id, if it is known; ids up to it are overdue.
        """
        missed = self.tracker.missed
        return missed if newest is None else missed | self.tracker.overdue(newest)

    def count_missed(self, newest: int | None = None) -> int:
        """How many ids should have come and did not, since the last reset."""
        overdue = 0 if newest is None else len(self.tracker.overdue(newest))
        return self._missed_before + len(self.tracker.missed) + overdue

    def excuse(self, ids: IdSet) -> None:
        """These ids will not come: the source dropped them on purpose."""
        with self.lock:
            self.tracker.excuse(ids)
            if self._confirms:
                # A writer records why they are not in its file.
                self.account.ledger.excused.update(ids)

    def finish(self, newest: int | None = None) -> None:
        """Close the account: what should have come up to the source's newest id is missed."""
        with self.lock:
            if newest is not None:
                self.tracker.missed.update(self.tracker.overdue(newest))
            self._note_missed()
            if self.output is not None and self.output.filtered is not None:
                self.output.filtered.flush()
            self.counts.end_time = time.time()

    @property
    def error_counts(self) -> dict[str, int]:
        """Number of errors by kind, in the whole run."""
        return dict(self.troubles.counts)

    @property
    def ok(self) -> bool:
        """Whether nothing failed, in the whole run."""
        return not self.troubles.counts
