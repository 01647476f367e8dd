"""Status of an acquisition, in numbers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_WINDOW = 2.0  # s over which rates are taken
_EVERY = 0.2  # s


@dataclass(frozen=True, slots=True)
class Progress:
    """Status of an acquisition at one moment.

    Attributes:
        number: 1 for the first of a program.
        phase: waiting, armed, writing, finishing, done or error.
        status: the phase in the words of the REST interface; ``error`` also while the source is
            silent in the middle of a range.
        problem: reason of the error, or the current problem.
        source: alive, silent, or unseen (no message has ever arrived).
        file: where it writes.
        start_pulse_id, stop_pulse_id: the range asked for; None where no pulse id was given.
        start_ns, stop_ns: moments asked for, since 1970-01-01 UTC; None where a pulse id was given.
        first_pulse_id, last_pulse_id: first and newest pulse written.
        last_timestamp_ns: time of the newest, since 1970-01-01 UTC.
        newest_pulse_id: newest pulse id of the source.
        rows, n_bytes: messages written, and their size.
        rate: messages/s.
        byte_rate: bytes/s.
        lag: s between the time of the newest message and now; None when it has no time.
        time_left: s until the stop is reached at this rate; None when that is unknown.
        skipped: messages from before the range.
        duplicates, late: pulses that came again, or after a higher one.
        malformed: messages that could not be read.
        damaged: values that could not be read, by channel.
        n_lost: pulses of the range that did not come.
        lost: their ranges, first and last; at most 100, the newest.
        last_error: what was wrong with the last malformed message.
    """

    number: int
    phase: str
    status: str
    problem: str = ""
    source: str = "unseen"
    file: str = ""
    start_pulse_id: int | None = None
    stop_pulse_id: int | None = None
    start_ns: int | None = None
    stop_ns: int | None = None
    first_pulse_id: int | None = None
    last_pulse_id: int | None = None
    last_timestamp_ns: int | None = None
    newest_pulse_id: int | None = None
    rows: int = 0
    n_bytes: int = 0
    rate: float = 0.0
    byte_rate: float = 0.0
    lag: float | None = None
    time_left: float | None = None
    skipped: int = 0
    duplicates: int = 0
    late: int = 0
    malformed: int = 0
    damaged: dict[str, int] = field(default_factory=dict)
    n_lost: int = 0
    lost: list[tuple[int, int]] = field(default_factory=list)
    last_error: str = ""


class Rates:
    """Rows and bytes per second over the last two seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int, int]] = deque()

    def note(self, now: float, rows: int, n_bytes: int) -> None:
        """Note what there is at a moment, s."""
        if self._seen and now - self._seen[-1][0] < _EVERY:
            return
        self._seen.append((now, rows, n_bytes))
        while now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()

    def rates(self) -> tuple[float, float]:
        """Rows/s and bytes/s."""
        if len(self._seen) < 2:
            return 0.0, 0.0
        (before, rows, size), (now, more, larger) = self._seen[0], self._seen[-1]
        return (more - rows) / (now - before), (larger - size) / (now - before)
