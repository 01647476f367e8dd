"""A stage whose processor gets many frames at a time."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from pvapy_stream import bursts
from pvapy_stream.accounting.account import Account
from pvapy_stream.hpc.frame_batch import BatchBuilder, FrameBatch
from pvapy_stream.hpc.processor import (
    BatchResultError,
    UserDataProcessor,
    publish_result,
    results_of,
    takes_batches,
)
from pvapy_stream.hpc.stage import Stage, kind_of
from pvapy_stream.pva.lazy import pv_object

_LAST = 1.0  # s; for the thread to end
_TICK = 0.001  # s; between two looks whether a batch is processed

_log = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    """An object that waits for its batch to be complete."""

    value: int
    obj: Any
    account: Account


class BatchStage(Stage):
    """A stage that gathers frames, and gives them to `FrameProcessor.process_batch`.

    A frame is in the ledger as received from when it is taken; it has its fate when its batch was
    processed. A batch is processed when it has all its frames, when its time is over, before a
    frame of another shape or pixel type, before an epoch of ids begins, and when `finish_batch` or
    `hurry` ask for it. With a processor without `process_batch` it is a plain stage.

    Args:
        args, options: as of `Stage`.
        batch_size: frames of a batch.
        batch_timeout: how long the first frame of a batch waits for the others, s.
    """

    def __init__(
        self, *args: Any, batch_size: int, batch_timeout: float = math.inf, **options: Any
    ) -> None:
        self._builder = BatchBuilder(batch_size)
        self._timeout = batch_timeout
        self._waiting: list[_Waiting] = []
        # How many batches were taken to be processed.
        self._n_taken = 0
        # When the present batch is processed though it is not complete; monotonic, s.
        self._due = math.inf
        self._woken = threading.Event()
        # Whether the thread waits for the first frame of a batch.
        self._idle = False
        self._ended = False
        self._thread: threading.Thread | None = None
        super().__init__(*args, **options)

    def use(self, processor: UserDataProcessor) -> None:
        super().use(processor)
        self.batching = self._builder.size > 1 and takes_batches(processor)

    @property
    def n_waiting(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How many frames wait for their batch to be complete."""
        return len(self._waiting)

    # -- the thread that processes batches whose time is over ------------------------------------

    def start(self) -> None:
        if self.batching or self._timeout < math.inf:
            self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
            self._thread.start()

    def end(self) -> None:
        self._ended = True
        self._woken.set()
        if self._thread is not None:
            self._thread.join(_LAST)

    def hurry(self) -> None:
        if self._waiting:
            self._due = -math.inf
            self._woken.set()

    def acquire(self, patience: float) -> bool:
        deadline = time.monotonic() + patience
        # What comes from now on need not be processed.
        number = self._n_taken if self._waiting else self._n_taken - 1
        # By a thread of its own: if user code does not return, this one goes on.
        self.hurry()
        while self.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            if self._n_taken > number:
                return True
            self.lock.release()
            if time.monotonic() > deadline:
                break
            time.sleep(_TICK)
        return False

    def _run(self) -> None:
        while not self._ended:
            # Said first: who sets `_due` after this was read must know that we are to be woken.
            self._idle = True
            if self._due == math.inf:
                self._woken.wait()
            self._idle = False
            self._woken.clear()
            left = self._due - time.monotonic()
            if left > 0:
                if left < math.inf:
                    self._woken.wait(left)
                continue
            with self.lock:
                if self.leaving:
                    return
                # It may have been complete meanwhile, and another one have begun.
                if self._due <= time.monotonic():
                    self.counts.batches.timed_out += self._due > -math.inf
                    try:
                        self.finish_batch()
                    except Exception:
                        _log.exception("a batch could not be processed")

    # -- gathering -------------------------------------------------------------------------------

    def _process(self, value: int, obj: Any) -> None:
        if not self.batching:
            # Of a processor that was replaced just now.
            self.finish_batch()
            super()._process(value, obj)
            return
        builder = self._builder
        try:
            kept = builder.add(obj)
            if kept is None:
                self.counts.batches.split += 1
                self.finish_batch()
                kept = builder.add(obj)
        except Exception as error:
            self._failed(f"process: {type(error).__name__}", value, error)
            return
        waiting = self._waiting
        waiting.append(_Waiting(value, kept, self.account))
        if len(waiting) >= builder.room:
            self.finish_batch()
        elif len(waiting) == 1:
            self._due = time.monotonic() + self._timeout
            if self._idle:
                self._woken.set()

    def unsettled(self, account: Account) -> int:
        # Without a fate are those that wait, too.
        own = 0 if self._confirms else sum(one.account is account for one in self._waiting)
        return super().unsettled(account) + own

    def leave_batch(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._builder.take()
        self._leave(waiting)

    def _leave(self, waiting: Iterable[_Waiting]) -> None:
        for one in waiting:
            self.n_left += 1
            one.account.ledger.left.add(one.value)

    # -- processing ------------------------------------------------------------------------------

    def finish_batch(self) -> None:
        waiting, self._waiting, self._due = self._waiting, [], math.inf
        if not waiting:
            return
        account = self.account
        batch = self._builder.take()
        self._n_taken += 1
        if not self.batching:
            for one in waiting:
                self.account_to(one.account)
                super()._process(one.value, pv_object(one.obj))
            self.account_to(account)
            return
        self.counts.batches.batches += 1
        self.counts.batches.frames += len(waiting)
        alone = bursts.current() is None
        if alone:
            # What is published is sent together.
            bursts.begin()
        try:
            if not self._process_batch(batch, waiting):
                self._process_alone(batch, waiting)
        finally:
            self.account_to(account)
            if alone:
                bursts.end()

    def _process_batch(self, batch: FrameBatch, waiting: list[_Waiting]) -> bool:
        """Process frames together; False if this failed, and they are to be tried alone."""
        processor: Any = self.processor
        output = self.output
        if output is not None:
            output.input_id, output.sent = waiting[-1].value, False
            output.thread = threading.get_ident()
        kind = ""
        try:
            results = results_of(processor, batch)
        except BatchResultError as error:
            failure, kind, retries = error, "process: wrong results", False
        except (Exception, SystemExit) as error:
            # An exit would end this thread alone, without a word.
            failure, kind, retries = error, kind_of(error), processor.retries_frames
        else:
            if not self.abandoned:
                self._take_results(batch, waiting, results)
            return True
        if output is not None:
            output.failure = None
        if self.abandoned:
            return True
        if retries and len(waiting) > 1:
            self.counts.batches.retried += 1
            return False
        for one in waiting:
            self.account_to(one.account)
            self._failed(kind, one.value, failure)
        return True

    def _process_alone(self, batch: FrameBatch, waiting: list[_Waiting]) -> None:
        """Process each frame of a batch alone, so that only those fail that cause it."""
        for number, one in enumerate(waiting):
            if self.abandoned:
                return
            if self.leaving:
                self._leave(waiting[number:])
                return
            self._process_batch(batch.alone(number), [one])

    def _take_results(self, batch: FrameBatch, waiting: list[_Waiting], results: list[Any]) -> None:
        """Publish the results of frames, and write down what became of each."""
        output = self.output
        # What was published in `process_batch` itself: which frames that were is not known.
        sent = output is not None and (output.sent or output.later or self._later)
        if output is None and all(result is None for result in results):
            self._processed_all(waiting)
            return
        done: list[_Waiting] = []
        try:
            for number, (one, result) in enumerate(zip(waiting, results, strict=True)):
                if self.abandoned:
                    return
                if self.leaving:
                    self._leave(waiting[number:])
                    return
                self.account_to(one.account)
                if isinstance(result, BaseException):
                    self._failed(f"process: {type(result).__name__}", one.value, result)
                elif result is None:
                    if output is None or sent:
                        done.append(one)
                    else:
                        self._filtered(one.value, output)
                elif self._publish(one, batch, number, result):
                    done.append(one)
        finally:
            self._processed_all(done)

    def _publish(self, one: _Waiting, batch: FrameBatch, number: int, result: Any) -> bool:
        """Publish the result of a frame; whether the frame is processed now."""
        processor: Any = self.processor
        output = self.output
        if output is not None:
            output.input_id, output.sent, output.failure = one.value, False, None
        try:
            # A damaged one raises here, if the processor has not looked at it.
            publish_result(processor, result, batch[number], one.obj)
        except Exception as error:
            self._failed(kind_of(error), one.value, error)
        else:
            if output is None or output.sent or output.later or self._later:
                if self._gathers and output is not None:
                    self._published_gathered(one.value, output)
                return not self.abandoned
            self._filtered(one.value, output)
        if output is not None:
            output.failure = None
        return False

    def _processed_all(self, done: list[_Waiting]) -> None:
        """Write down that objects are processed: a run of ids at a time."""
        if not done:
            return
        counts = self.counts
        if not self._confirms:
            counts.processed += len(done)
            for account, first, last in _runs(done):
                account.ledger.processed.add_range(first, last)
        if counts.last_time >= counts.latency.due:
            # The one that waited longest.
            counts.latency.note(done[0].obj)


def _runs(done: list[_Waiting]) -> Iterator[tuple[Account, int, int]]:
    """Runs of successive ids, each with its account, its first and its last id."""
    first, _, account = done[0]
    last = first
    for value, _, other in islice(done, 1, None):
        if value == last + 1 and other is account:
            last = value
            continue
        yield account, first, last
        first = last = value
        account = other
    yield account, first, last
