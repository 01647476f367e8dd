"""The stage: skip, process, account. One object after another, under one lock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, union
from pvapy_stream.accounting.sequence import SequenceTracker
from pvapy_stream.errors import PvapyStreamError, TransportError
from pvapy_stream.hpc.latency import Latency
from pvapy_stream.hpc.processor import UserDataProcessor
from pvapy_stream.pva.objects import IdReader, id_reader
from pvapy_stream.transport.ports import Publisher, PublisherCounts

NO_ID = "object without an id"

# A failing processor is told of at its first error of each kind, then at every thousandth.
_LOG_EVERY = 1000


class Output:
    """The stage's way out as a processor sees it; notes which ids went out."""

    def __init__(self, publisher: Publisher, ledger: Ledger, id_field: str) -> None:
        self._publisher = publisher
        self.takes_lazy = publisher.takes_lazy
        self.ledger = ledger
        self._id_field = id_field
        self._read_id: IdReader | None = None
        self._know_structure = False
        self.input_id = 0
        self.thread = 0
        self.failure: TransportError | None = None

    def updateOutputChannel(self, pvObject: Any) -> None:
        """Publish an object.

        Raises:
            TransportError: it could not be published; the object counts as failed.
        """
        if not self._know_structure:
            self._know_structure = True
            # An output of another structure may have no id: then it goes by its input's.
            self._read_id = (
                id_reader(self._id_field, pvObject) if pvObject.hasField(self._id_field) else None
            )
        try:
            self._publisher.publish(pvObject)
        except TransportError as error:
            # Kept too: processors written for the incumbent swallow what is raised here. A thread
            # of the processor's own publishes other objects than the one in `process`.
            if threading.get_ident() == self.thread:
                self.failure = error
            raise
        self.ledger.published.add(self._read_id(pvObject) if self._read_id else self.input_id)

    def counts(self) -> PublisherCounts:
        return self._publisher.counts()

    def reset_counts(self) -> None:
        self._publisher.reset_counts()

    def stop(self) -> None:
        self._publisher.stop()


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
        self.processor = processor
        self.ledger = ledger
        self.tracker = tracker
        # What no object brings: ids that were missed.
        self._summary = ledger
        self._to_skip = skip
        self._skips = skip > 0
        self.counts = StageCounts()
        self.latency = Latency()
        self.output: Output | None = None
        self.last_error = ""
        self.lock = threading.RLock()
        self._open_output = open_output
        self._wants_output = open_output is not None
        self._id_field = id_field
        self._read_id = read_id
        self._error_counts: dict[str, int] = {}
        self._log = logging.getLogger(f"pvapy_stream.{ledger.stage}-{ledger.stage_id}")

    def handle(self, obj: Any) -> None:
        """Take an object to its fate. Raises nothing: errors are counted, logged and shown."""
        with self.lock:
            read_id = self._read_id
            try:
                value = read_id(obj) if read_id else self._first(obj)
            except Exception as error:
                self.no_id(error)
                return
            ledger = self.ledger
            ledger.received.add(value)
            trouble = self._open_from(obj) if self._wants_output else None
            if self._to_skip > 0:
                self._to_skip -= 1
                ledger.skipped.add(value)
                if trouble is not None:
                    self._log.warning("an initial update cannot open the output: %s", trouble)
                return
            counts = self.counts
            counts.last_time = time.time()
            if counts.first_id is None:
                counts.first_id, counts.first_time = value, counts.last_time
            counts.last_id = value
            if not self.tracker.observe(value):
                self._went_back(value)
            if trouble is not None:
                self._failed("opening the output", value, trouble)
                return
            output = self.output
            if output is not None:
                output.input_id = value
                output.thread = threading.get_ident()
            try:
                self.processor.process(obj)
            except TransportError as error:
                self._failed(f"publishing: {error}", value, error)
            except Exception as error:
                self._failed(f"process: {type(error).__name__}", value, error)
            else:
                if output is not None and output.failure is not None:
                    self._failed(f"publishing: {output.failure}", value, output.failure)
                else:
                    counts.processed += 1
                    ledger.processed.add(value)
                    if counts.last_time >= self.latency.due:
                        self.latency.note(obj)
            if output is not None:
                output.failure = None

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
            self.output.ledger = self.ledger
        self.processor.dataPublisher = self.output
        return None

    def account_to(self, ledger: Ledger) -> None:
        """Write what follows to another ledger: a stage with several sources has one for each."""
        self.ledger = ledger
        if self.output is not None:
            self.output.ledger = ledger

    def no_id(self, error: Exception) -> None:
        """Count an object whose id cannot be told."""
        self.ledger.anonymous += 1
        self.note_error(NO_ID, error)

    def _went_back(self, value: int) -> None:
        self.ledger.went_back += 1
        if self.ledger.went_back == 1 or self.ledger.went_back % _LOG_EVERY == 0:
            self._log.warning(
                "id %d came again or went back (%d times so far); it is processed; did the source"
                " restart?",
                value,
                self.ledger.went_back,
            )

    def _failed(self, kind: str, value: int, error: Exception) -> None:
        self.counts.errors += 1
        self.last_error = f"{kind}: {error}" if str(error) not in kind else kind
        self.ledger.fail(kind, value)
        seen = self._error_counts[kind] = self._error_counts.get(kind, 0) + 1
        if seen == 1 or seen % _LOG_EVERY == 0:
            # The first of a kind comes with its traceback, unless we raised it and its message is
            # enough.
            trace = error if seen == 1 and not isinstance(error, PvapyStreamError) else None
            self._log.error(
                "object %d failed, %s (%d of this kind so far): %s",
                value,
                kind,
                seen,
                error,
                exc_info=trace,
            )

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
            # The tracker does not hear of it: objects that came earlier may still wait.
            self.ledger.received.add(value)
            self.ledger.reject(policy, value)

    def skip_next(self, count: int) -> None:
        """Skip the next objects."""
        self._to_skip = count

    def handle_again(self, obj: Any) -> bool:
        """Note the object a source shows when it came back; True if it is old, and skipped."""
        with self.lock:
            last = self.tracker.last
            if not self._skips or last is None or self._read_id is None:
                return False
            value = self._read_id(obj)
            if value > last:
                return False
            self.ledger.received.add(value)
            self.ledger.skipped.add(value)
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
        self.counts.errors += 1
        self.last_error = (
            f"{what}: {error}"
            if isinstance(error, PvapyStreamError)
            else f"{what}: {type(error).__name__}: {error}"
        )
        seen = self._error_counts[what] = self._error_counts.get(what, 0) + 1
        if seen == 1 or seen % _LOG_EVERY == 0:
            trace = None if isinstance(error, PvapyStreamError) else error
            self._log.error("%s (%d times so far): %s", what, seen, error, exc_info=trace)

    def settle(self, ledgers: Iterable[Ledger], processor: Any = None) -> None:
        """Write down what failed after `process` had returned, in processors that finish later."""
        late = getattr(processor or self.processor, "late_failures", None)
        if late is None:
            return
        ledgers = list(ledgers)
        with self.lock:
            for kind, ids in late.take().items():
                for ledger in ledgers:
                    ledger.fail_late(kind, ids)
                self.counts.errors += len(ids)
                self.counts.processed = max(0, self.counts.processed - len(ids))
                self._error_counts[kind] = self._error_counts.get(kind, 0) + len(ids)
                self.last_error = late.last

    def reset(self) -> None:
        """Begin to count anew; the ledger goes on."""
        with self.lock:
            self._summary.missed.update(self.missed())
            self.tracker.restart()
            self.counts = StageCounts()
            self.latency = Latency()
            if self.output is not None:
                self.output.reset_counts()
            self.call("resetStats", self.processor.resetStats)

    def missed(self, newest: int | None = None) -> IdSet:
        """Ids that should have come and did not, since the last reset.

        Args:
            newest: the source's newest id, if it is known; ids up to it are overdue.
        """
        missed = self.tracker.missed
        if newest is not None:
            missed = missed | self.tracker.overdue(newest)
        # What was rejected did come.
        return missed - self.rejected() if missed else missed

    def rejected(self) -> IdSet:
        """Ids that were dropped before they were processed."""
        return union(self.ledger.rejected.values())

    def finish(self, newest: int | None = None) -> None:
        """Close the account: what should have come up to the source's newest id is missed."""
        with self.lock:
            if newest is not None:
                self.tracker.missed.update(self.tracker.overdue(newest))
            self._summary.missed.update(self.missed())
            self.counts.end_time = time.time()

    @property
    def error_counts(self) -> dict[str, int]:
        """Number of errors by kind, in the whole run."""
        return dict(self._error_counts)

    @property
    def ok(self) -> bool:
        """Whether nothing failed, in the whole run."""
        return not self._error_counts
