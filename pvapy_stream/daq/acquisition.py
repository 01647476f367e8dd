"""One acquisition: a range of a stream into one file, from the first request to the closed file."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from pvapy_stream.daq.acquisition_file import DiscardedMessages
from pvapy_stream.daq.acquisition_state import AcquisitionState
from pvapy_stream.daq.destination import check_free, discards
from pvapy_stream.daq.items import Feed, Item
from pvapy_stream.daq.pulse_ledgers import KIND, STAGE_ID, channel_of, wanted_by
from pvapy_stream.daq.pulses import Order
from pvapy_stream.daq.source_clock import Opening
from pvapy_stream.daq.states import Phase, Verdict
from pvapy_stream.errors import FileError
from pvapy_stream.files.ending import Ending
from pvapy_stream.files.swissfel_layout import DUPLICATE, OUT_OF_ORDER

_FLAGS = {Order.NEXT: 0, Order.DUPLICATE: DUPLICATE, Order.LATE: OUT_OF_ORDER}

_log = logging.getLogger(__name__)


class Acquisition(AcquisitionState):
    """Writes what lies in its range; requests and messages come from different threads.

    Made with the arguments of `AcquisitionState`.
    """

    # -- requests --------------------------------------------------------------------------------

    def start(
        self,
        pulse_id: int | None,
        path: Path,
        general: Mapping[str, str] | None = None,
        overwrite: bool = False,
        stop: int | None = None,
        oldest: bool = False,
    ) -> None:
        """Open the file and wait for the first pulse of the range.

        Args:
            pulse_id: the first of the range; None: begin now.
            path: the file.
            general: texts for its /general.
            overwrite: whether it may be replaced.
            stop: the last of the range, if it is known.
            oldest: instead of now, begin with the oldest pulse there is.

        Raises:
            ConflictError: it was started before.
            RangeError: the range is impossible.
            FileError: the file cannot be made; then nothing has changed.
        """
        with self._lock:
            now, now_ns = time.monotonic(), time.time_ns()
            asked = self._range.copy()
            asked.set_start(pulse_id, now, 0 if oldest else now_ns)
            if stop is not None:
                asked.set_stop(stop, now, now_ns)
            self._discarded = discards(path)
            if not self._discarded:
                check_free(path, overwrite)
            # Who wrote it, for the audit when this program is killed.
            about: dict[str, str | int] = {
                "stream": self.stream,
                "stage": f"{KIND} {STAGE_ID}",
                "input_channel": channel_of(self.stream),
            }
            if pulse_id is not None:
                about["start_pulse_id"] = pulse_id
            make_file = DiscardedMessages if self._discarded else self._make_file
            self._file = make_file(path, general, about, overwrite)
            if pulse_id is not None:
                self._pulses.expect_from(pulse_id)
            self._general, self.path = dict(general or {}), path
            self._range, self._started_at = asked, now
            self._opening = None if pulse_id is not None or oldest else Opening()
            self._source.start(now)
            _log.info("acquisition %d: %s from pulse %s on", self.number, path, pulse_id)

    def stop(self, pulse_id: int | None) -> None:
        """End with a pulse, which may have passed; None: end now.

        Raises:
            ConflictError: it is over.
            RangeError: the range is impossible.
        """
        with self._lock:
            self._range.set_stop(pulse_id, time.monotonic(), time.time_ns())
            if pulse_id is not None and self._source.feed is not None:
                self._source.feed.stop_at(pulse_id)

    def set_general(self, general: Mapping[str, str]) -> None:
        """Take texts for /general, also while it writes."""
        with self._lock:
            if not self._range.phase.over:
                self._general = dict(general)

    def end(self) -> None:
        """Finish with what is there; `over` shows when that is done."""
        with self._lock:
            if self._range.phase is Phase.WAITING:
                self._range.succeeded()
                self._conclude()
            else:
                self._open()
                self._range.end_now()

    # -- the stream ------------------------------------------------------------------------------

    def follow(self, feed: Feed) -> None:
        """Say where its messages come from; the thread that reads them calls `take` and `look`."""
        with self._lock:
            self._source.feed = feed

    def take(self, message: Item, now: float) -> None:
        """Take a message of the stream; `now`: s on a clock that does not jump."""
        with self._lock:
            self._source.heard(now)
            arrival = time.time_ns()
            self._clock.note(message.timestamp_ns, arrival)
            if self._opening is None:
                self._judge(message, arrival, now)
            else:
                self._opening.hold(message, arrival, now)
                self._open_if_due(now)
        if not self.informed.is_set():
            self.informed.set()

    def _judge(self, message: Item, arrival_ns: int, now: float) -> None:
        sent_at = self._clock.sent_at(message.timestamp_ns, arrival_ns)
        verdict = self._range.judge(message.pulse_id, sent_at, now)
        if verdict in (Verdict.WRITE, Verdict.WRITE_LAST):
            self._write(message)
        elif self._range.phase is Phase.ARMED:
            self._skipped += 1
            self._note_before(message.pulse_id)
        if verdict is not Verdict.WRITE:
            self._finish_if_due()

    def _open_if_due(self, now: float) -> None:
        opening = self._opening
        if opening is not None and (self._range.stop is not None or opening.is_over(now)):
            self._open()

    def _open(self) -> None:
        """Look at the messages that were held."""
        opening, self._opening = self._opening, None
        if opening is not None:
            for message, arrival in opening.release():
                self._judge(message, arrival, self._started_at)

    def _note_before(self, pulse_id: int) -> None:
        # The stream was there before the range: nothing is missing up to here.
        start = self.start_pulse_id
        if start is not None and pulse_id < start:
            self._pulses.seen_before(pulse_id)

    def _write(self, message: Item) -> None:
        assert self._file is not None  # noqa: S101 - the range begins with it
        order = self._pulses.add(message.pulse_id)
        try:
            self._file.add(message, _FLAGS[order])
        except FileError as error:
            self._refused.add(message.pulse_id)
            self._fail(str(error))
            return
        self._last = message

    def look(self, now: float, idle: bool = True) -> None:
        """Go on without a message; call about ten times a second.

        Args:
            now: s on a clock that does not jump.
            idle: whether no message is waiting.
        """
        with self._lock:
            if idle:
                self._source.idle(now)
            self._open_if_due(now)
            if self._range.phase.over or self._range.phase is Phase.WAITING:
                return
            file, feed = self._file, self._source.feed
            assert file is not None  # noqa: S101 - it was started
            self._rates.note(now, file.n_rows, file.n_bytes)
            if self._last is not None and self._last.timestamp_ns:
                self._lag_ns = time.time_ns() - self._last.timestamp_ns
            try:
                file.keep_up()
            except FileError as error:
                self._fail(str(error))
                return
            self._range.look(self._pulses.last, now)
            if feed is not None and feed.finished:
                self._range.end_now()
            self._look_at_clock(now)
            self._finish_if_due()

    def _look_at_clock(self, now: float) -> None:
        """Give up what waited for too long."""
        quiet, feed = self._source.quiet, self._source.feed
        armed = self._range.phase is Phase.ARMED and now - self._started_at
        if self._limits.silence and quiet > self._limits.silence:
            self._fail(
                f"no message from {self.stream} for {quiet:.0f} s; check that its sender runs"
            )
        elif self._limits.armed and armed > self._limits.armed:
            self._fail(
                f"pulse {self.start_pulse_id} did not arrive within {armed:.0f} s; the stream is"
                f" at {feed.newest if feed else None}"
            )

    def fail(self, problem: str) -> None:
        """Come to an end that nobody wanted, with what is there."""
        with self._lock:
            self._open()
            if not self._range.phase.over:
                self._fail(problem)

    # -- the end ---------------------------------------------------------------------------------

    def _finish_if_due(self) -> None:
        if self._range.phase is not Phase.FINISHING:
            return
        problem = self._close("")
        if problem:
            self._range.failed(problem)
        elif self._is_gone():
            first = self.start_pulse_id
            asked = "up to" if first is None else f"{first} to"
            self._range.failed(
                f"pulses {asked} {self.stop_pulse_id} are no longer available: no pulse of the"
                " requested range has arrived"
            )
        else:
            self._range.succeeded()
        self._conclude()

    def _is_gone(self) -> bool:
        """Whether a range was asked for of which nothing came, while the stream is behind it."""
        return self.stop_pulse_id is not None and not (
            self._pulses.came & wanted_by(self._range, self._pulses)
        )

    def _fail(self, problem: str) -> None:
        _log.error("acquisition %d: %s", self.number, problem)
        again = self._close(problem)
        self._range.failed(problem if not again or again == problem else f"{problem}; {again}")
        self._conclude()

    def _close(self, problem: str) -> str:
        """Close the file; what went wrong with that."""
        file = self._file
        if file is None:
            return ""
        lost = self._pulses.lost(self.stop_pulse_id)
        lost += [(first, end - 1) for first, end in self._refused.ranges().tolist()]
        about: dict[str, str | int] = {"ended": problem or "as requested"}
        if self.stop_pulse_id is not None:
            about["stop_pulse_id"] = self.stop_pulse_id
        try:
            file.close(Ending(self.stop_pulse_id, lost, self._general, about))
        except FileError as error:
            return str(error)
        finally:
            self._lost_of_end = file.lost
        return ""

    def _conclude(self) -> None:
        self.informed.set()
        self.over.set()
        _log.info("acquisition %d: %s", self.number, self._range.phase.value)
