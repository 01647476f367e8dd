"""What is known of an acquisition: its parts, its ledger, and its state in numbers."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.daq.acquisition_file import AcquisitionFile, MakeFile
from pvapy_stream.daq.items import Item
from pvapy_stream.daq.progress import Progress, Rates
from pvapy_stream.daq.pulse_ledgers import Fates, enter, wanted_by
from pvapy_stream.daq.pulses import PulseAccount, count
from pvapy_stream.daq.source_clock import Opening, SourceClock
from pvapy_stream.daq.source_watch import SourceWatch
from pvapy_stream.daq.states import Bound, Phase, RangeState

_EXPECTING = (Phase.ARMED, Phase.WRITING)
_DISK_WAIT = 1.0  # s
_DISK_LIMIT = 20.0  # s; an error is final for those who ask, so it is not reported too soon
_MOST_RANGES = 100  # that are reported while it runs


@dataclass(frozen=True, slots=True)
class AcquisitionLimits:
    """How long an acquisition waits, s; 0: for ever.

    Attributes:
        silence: for a source from which nothing comes.
        armed: for the first pulse of the range, while others come.
    """

    silence: float = 300.0
    armed: float = 3600.0


class AcquisitionState:
    """Reports the state of an acquisition to any thread; `Acquisition` changes it.

    Args:
        number: 1 for the first of a program.
        stream: address of the stream, which is noted in the file.
        make_file: the kind of its file.
        limits: how long it waits.
    """

    def __init__(
        self,
        number: int,
        stream: str,
        make_file: MakeFile,
        limits: AcquisitionLimits | None = None,
    ) -> None:
        self.number = number
        self.stream = stream
        self.path: Path | None = None
        # Set when something is known of the stream: where it is, or that it is over.
        self.informed = threading.Event()
        self.over = threading.Event()
        self._limits = limits or AcquisitionLimits()
        self._make_file = make_file
        self._lock = threading.RLock()
        self._range = RangeState()
        self._pulses = PulseAccount()
        self._rates = Rates()
        self._file: AcquisitionFile | None = None
        self._general: dict[str, str] = {}
        self._discarded = False
        self._steps, self._moved_at = 0, time.monotonic()
        self._skipped = 0
        self._started_at = 0.0
        self._last: Item | None = None
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
        """Its state."""
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
        """Its state; while it waits for the disk, its state before."""
        if not self._lock.acquire(timeout=_DISK_WAIT):
            return self._busy(time.monotonic())
        try:
            self._moved_at = time.monotonic()
            self._known = self._progress()
        finally:
            self._lock.release()
        return self._known

    def _busy(self, now: float) -> Progress:
        """Its state while the file is at work, as when it makes many channels."""
        steps = self._file.n_steps if self._file is not None else 0
        if steps != self._steps:
            self._steps, self._moved_at = steps, now
        still = now - self._moved_at
        if still < _DISK_LIMIT:
            return replace(self._known, problem="an operation on the file takes long")
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
