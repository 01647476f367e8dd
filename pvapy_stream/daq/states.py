"""The state machine of an acquisition, without clocks, sockets or files.

::

    waiting ──start──> armed ──first message of the range──> writing ──stop reached──> finishing
       │                 │                                      │                          │
       └─────────────────┴────────────── failed ────────────────┴──────> error    done <──┘
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import Enum

from pvapy_stream.daq.id_watch import IdWatch, Seen
from pvapy_stream.errors import ConflictError, RangeError

_SECOND = 1_000_000_000

# For how long messages from before `start now` are passed over. Those that come still older after
# that are of a sender whose clock is behind.
_BACKLOG = 1.0  # s
# How long messages from before `stop now` are waited for.
_LAST_MESSAGES = 0.5  # s


class Phase(str, Enum):
    """Phase of an acquisition."""

    WAITING = "waiting"
    ARMED = "armed"
    WRITING = "writing"
    FINISHING = "finishing"
    DONE = "done"
    ERROR = "error"

    @property
    def over(self) -> bool:
        """Whether nothing follows."""
        return self in (Phase.DONE, Phase.ERROR)

    @property
    def word(self) -> str:
        """What users of the REST interface know: waiting (for a start), writing, done or error."""
        started = self in (Phase.ARMED, Phase.FINISHING)
        return Phase.WRITING.value if started else self.value


class Verdict(Enum):
    """What to do with a message."""

    SKIP = "skip"
    WRITE = "write"
    WRITE_LAST = "write last"
    BEYOND = "beyond"


@dataclass(slots=True)
class Bound:
    """One end of a range: a pulse id, or a moment.

    Attributes:
        pulse_id: None for a moment.
        time_ns: of the moment, since 1970-01-01 UTC.
        set_at: when it was set, on a clock that does not jump, s.
    """

    pulse_id: int | None
    time_ns: int
    set_at: float


class RangeState:
    """The state of one acquisition. Locked by its owner.

    Times are given by the caller: `now` in s on a clock that does not jump, `time_ns` since
    1970-01-01 UTC.
    """

    def __init__(self) -> None:
        self.phase = Phase.WAITING
        self.start: Bound | None = None
        self.stop: Bound | None = None
        self.problem = ""
        self._watch = IdWatch()

    def copy(self) -> RangeState:
        """Another in the same state."""
        return copy.deepcopy(self)

    def set_start(self, pulse_id: int | None, now: float, time_ns: int) -> None:
        """Start with a pulse, or now.

        Raises:
            ConflictError: it was begun before.
            RangeError: the pulse lies after the stop.
        """
        if self.phase is not Phase.WAITING:
            raise ConflictError(
                f"this acquisition is {self.phase.value}; it has already been started"
            )
        _check_id("start", pulse_id)
        if pulse_id is not None and self.stop is not None:
            _check_order(pulse_id, self.stop.pulse_id)
        self.start = Bound(pulse_id, time_ns, now)
        self.phase = Phase.ARMED

    def set_stop(self, pulse_id: int | None, now: float, time_ns: int) -> None:
        """End with a pulse, which may have passed, or now.

        Raises:
            ConflictError: it is over, or there is nothing to stop.
            RangeError: the pulse lies before the start.
        """
        if self.phase.over or self.phase is Phase.FINISHING:
            raise ConflictError(
                f"this acquisition is {self.phase.value}; it cannot be stopped again"
            )
        _check_id("stop", pulse_id)
        if pulse_id is None and self.phase is Phase.WAITING:
            raise ConflictError("no acquisition was started, so there is none to stop")
        if pulse_id is not None and self.start is not None and self.start.pulse_id is not None:
            _check_order(self.start.pulse_id, pulse_id)
        self.stop = Bound(pulse_id, time_ns, now)

    def judge(self, pulse_id: int, time_ns: int | None, now: float) -> Verdict:
        """Decide what to do with a message, and update the phase."""
        if self.phase not in (Phase.ARMED, Phase.WRITING):
            return Verdict.SKIP
        seen = self._watch.see(pulse_id)
        if self._too_late(pulse_id, time_ns):
            if seen is Seen.DOUBTED:
                # This may be one damaged message, which must not end the acquisition.
                return Verdict.SKIP
            self.phase = Phase.FINISHING
            return Verdict.BEYOND
        if self._too_early(pulse_id, time_ns, now):
            return Verdict.SKIP
        self.phase = Phase.WRITING
        if self.stop is not None and pulse_id == self.stop.pulse_id:
            self.phase = Phase.FINISHING
            return Verdict.WRITE_LAST
        return Verdict.WRITE

    def look(self, newest: int | None, now: float) -> None:
        """Update the phase without a message: the stop may have been passed, or its time is over.

        Args:
            newest: the highest received pulse id.
            now: s.
        """
        stop = self.stop
        if stop is None or self.phase not in (Phase.ARMED, Phase.WRITING):
            return
        if stop.pulse_id is None:
            reached = now - stop.set_at >= _LAST_MESSAGES
        else:
            reached = newest is not None and newest >= stop.pulse_id
        if reached:
            self.phase = Phase.FINISHING

    def _too_early(self, pulse_id: int, time_ns: int | None, now: float) -> bool:
        start = self.start
        if start is None:
            return True
        if start.pulse_id is not None:
            return pulse_id < start.pulse_id
        if self.phase is Phase.WRITING or not time_ns:
            return False
        return time_ns < start.time_ns and now - start.set_at < _BACKLOG

    def _too_late(self, pulse_id: int, time_ns: int | None) -> bool:
        stop = self.stop
        if stop is None:
            return False
        if stop.pulse_id is not None:
            return pulse_id > stop.pulse_id
        return bool(time_ns) and time_ns > stop.time_ns  # type: ignore[operator]

    def end_now(self) -> None:
        """Finish with the messages so far."""
        if not self.phase.over:
            self.phase = Phase.FINISHING

    def succeeded(self) -> None:
        """All is written."""
        self.phase = Phase.DONE

    def failed(self, problem: str) -> None:
        """End in error."""
        self.phase, self.problem = Phase.ERROR, problem


def _check_id(what: str, pulse_id: int | None) -> None:
    if pulse_id is not None and not 0 <= pulse_id < 2**63:
        raise RangeError(f"{what} pulse id {pulse_id} is out of range; it goes from 0 to 2^63 - 1")


def _check_order(start: int, stop: int | None) -> None:
    if stop is not None and stop < start:
        raise RangeError(f"stop pulse id {stop} is before start pulse id {start}; swap them")
