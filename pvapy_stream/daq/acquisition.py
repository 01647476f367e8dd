"""One acquisition: a range of a stream into one file, from the first request to the closed file."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.daq.accounts import KIND, STAGE_ID, Fates, channel_of, enter, wanted_by
from pvapy_stream.daq.acquisition_file import AcquisitionFile, DiscardedMessages
from pvapy_stream.daq.destination import check_free, discards
from pvapy_stream.daq.feeds import Feed
from pvapy_stream.daq.nexus_file import NexusMessages
from pvapy_stream.daq.progress import Progress, Rates
from pvapy_stream.daq.pulses import Order, PulseAccount, count
from pvapy_stream.daq.source_clock import Opening, SourceClock
from pvapy_stream.daq.states import Bound, Phase, Range, Verdict
from pvapy_stream.daq.watch import SourceWatch
from pvapy_stream.errors import FileError
from pvapy_stream.files.swissfel import SwissfelFile
from pvapy_stream.files.swissfel_layout import DUPLICATE, OUT_OF_ORDER
from pvapy_stream.transport.bsread_codec import Message

_FLAGS = {Order.NEXT: 0, Order.DUPLICATE: DUPLICATE, Order.LATE: OUT_OF_ORDER}
_EXPECTING = (Phase.ARMED, Phase.WRITING)
_DISK_WAIT = 1.0  # s
_DISK_LIMIT = 20.0  # s; an error is final for those who ask, so it is not told too soon
_MOST_RANGES = 100  # that are told while it runs

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an acquisition waits, s; 0: for ever.

    Attributes:
        silence: for a source from which nothing comes.
        armed: for the first pulse of the range, while others come.
    """

    silence: float = 300.0
    armed: float = 3600.0


class Acquisition:
    """Writes what lies in its range; requests and messages come from different threads.

    Args:
        number: 1 for the first of a program.
        stream: address of the stream, which is noted in the file.
        limits: how long it waits.
        make_file: the kind of its file.
    """

    def __init__(
        self,
        number: int,
        stream: str,
        limits: Limits | None = None,
        make_file: type[SwissfelFile] | type[NexusMessages] = SwissfelFile,
    ) -> None:
        self.number = number
        self.stream = stream
        self.path: Path | None = None
        # Set when something is known of the stream: where it is, or that it is over.
        self.informed = threading.Event()
        self.over = threading.Event()
        self._limits = limits or Limits()
        self._make_file = make_file
        self._lock = threading.RLock()
        self._range = Range()
        self._pulses = PulseAccount()
        self._rates = Rates()
        self._file: AcquisitionFile | None = None
        self._general: dict[str, str] = {}
        self._discarded = False
        self._steps, self._moved_at = 0, time.monotonic()
        self._skipped = 0
        self._started_at = 0.0
        self._last: Message | None = None
        self._lag_ns: int | None = None
        self._source = SourceWatch(stream)
        self._clock = SourceClock()
        # None when messages need not be held.
        self._opening: Opening | None = None
        self._refused = IdSet()  # pulses that the file did not take
        self._known = Progress(number, Phase.WAITING.value, Phase.WAITING.word)
        self._lost_of_end: list[tuple[int, int]] | None = None

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        return self._range.phase

    @property
    def start_pulse_id(self) -> int | None:
        """First pulse id that was asked for."""
        start = self._range.start
        return start.pulse_id if start else None

    @property
    def stop_pulse_id(self) -> int | None:
        """Last pulse id that was asked for."""
        stop = self._range.stop
        return stop.pulse_id if stop else None

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
        """Finish with what is there; `over` tells when that is done."""
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

    def take(self, message: Message, now: float) -> None:
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

    def _judge(self, message: Message, arrival_ns: int, now: float) -> None:
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

    def _write(self, message: Message) -> None:
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
                f"nothing came from {self.stream} for {quiet:.0f} s; see whether its sender runs"
            )
        elif self._limits.armed and armed > self._limits.armed:
            self._fail(
                f"pulse {self.start_pulse_id} did not come within {armed:.0f} s; the stream is at"
                f" {feed.newest if feed else None}"
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
                f"pulses {asked} {self.stop_pulse_id} are gone: none of the range that was asked"
                " for has come"
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
        about: dict[str, str | int] = {"ended": problem or "as asked for"}
        if self.stop_pulse_id is not None:
            about["stop_pulse_id"] = self.stop_pulse_id
        try:
            file.close(self.stop_pulse_id, lost, self._general, about)
        except FileError as error:
            return str(error)
        finally:
            self._lost_of_end = file.lost
        return ""

    def _conclude(self) -> None:
        self.informed.set()
        self.over.set()
        _log.info("acquisition %d: %s", self.number, self._range.phase.value)

    # -- what is known ---------------------------------------------------------------------------

    def lost(self) -> list[tuple[int, int]]:
        """Ranges of pulse ids that were asked for and are lost, first and last."""
        with self._lock:
            if self._lost_of_end is not None:
                return self._lost_of_end
            return self._pulses.lost(None)

    def enter(self, ledgers: list[Ledger]) -> None:
        """Enter its pulses into an account, a ledger for each epoch of ids."""
        with self._lock:
            enter(ledgers, self._range, self._pulses, self._fates())

    def not_saved(self) -> IdSet:
        """Pulses that came, were asked for and are not in the file; known at the end."""
        with self._lock:
            fates = self._fates()
            came = self._pulses.came & wanted_by(self._range, self._pulses)
            missing = fates.unwritten | (IdSet() if fates.saved is None else came - fates.saved)
            return came & missing

    def _fates(self) -> Fates:
        file = self._file
        if file is None:
            return Fates()
        return Fates(
            file.unwritten | self._refused,
            file.saved,
            file.damaged,
            self._discarded,
            self._range.phase.over,
        )

    def progress(self) -> Progress:
        """How it stands; while the disk lets it wait, how it stood before."""
        if not self._lock.acquire(timeout=_DISK_WAIT):
            return self._busy(time.monotonic())
        try:
            self._moved_at = time.monotonic()
            self._known = self._progress()
        finally:
            self._lock.release()
        return self._known

    def _busy(self, now: float) -> Progress:
        """How it stands while the file is at work, as when it makes many channels."""
        steps = self._file.n_steps if self._file is not None else 0
        if steps != self._steps:
            self._steps, self._moved_at = steps, now
        still = now - self._moved_at
        if still < _DISK_LIMIT:
            return replace(self._known, problem="the file is being worked on; that takes long")
        problem = f"the disk has not answered for {still:.0f} s"
        return replace(self._known, problem=problem, status=Phase.ERROR.value)

    def _progress(self) -> Progress:
        phase, file, pulses, feed = self.phase, self._file, self._pulses, self._source.feed
        rate, byte_rate = (0.0, 0.0) if phase.over else self._rates.rates()
        lost = self.lost() if pulses.n_lost or phase.over else []
        return Progress(
            number=self.number,
            phase=phase.value,
            status=self._word(),
            problem=self._range.problem or self._trouble(),
            source=self._source.state,
            file=str(self.path or ""),
            start_pulse_id=self.start_pulse_id,
            stop_pulse_id=self.stop_pulse_id,
            start_ns=_moment(self._range.start),
            stop_ns=_moment(self._range.stop),
            first_pulse_id=pulses.first,
            last_pulse_id=pulses.last,
            last_timestamp_ns=self._last.timestamp_ns if self._last else None,
            newest_pulse_id=feed.newest if feed else None,
            rows=file.n_rows if file else 0,
            n_bytes=file.n_bytes if file else 0,
            rate=rate,
            byte_rate=byte_rate,
            lag=None if self._lag_ns is None else self._lag_ns / 1e9,
            time_left=self._time_left(rate),
            skipped=self._skipped,
            duplicates=pulses.n_duplicates,
            late=pulses.n_late,
            malformed=feed.n_errors if feed else 0,
            damaged=file.bad_values if file else {},
            n_lost=count(lost, pulses.step) if phase.over else pulses.n_lost,
            lost=lost[-_MOST_RANGES:],
            last_error=feed.last_error if feed else "",
        )

    def _word(self) -> str:
        silent = self.phase in _EXPECTING and self._source.is_silent
        return Phase.ERROR.value if silent else self.phase.word

    def _trouble(self) -> str:
        silent = self.phase in _EXPECTING and self._source.is_silent
        return self._source.trouble if silent else ""

    def _time_left(self, rate: float) -> float | None:
        newest = self._pulses.last
        if self.stop_pulse_id is None or newest is None or not rate:
            return None
        return max(0, self.stop_pulse_id - newest) / self._pulses.step / rate


def _moment(bound: Bound | None) -> int | None:
    return None if bound is None or bound.pulse_id is not None else bound.time_ns
