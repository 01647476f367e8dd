"""When the next frame is due."""

from __future__ import annotations

import math
import threading
import time

# A wait ends this much early, as a thread wakes up late; what remains is spun, at low rates only.
WAKE = 100e-6
# Rates above one frame in this time are served in small groups rather than by spinning a core away.
_SPIN_PERIOD = 500e-6
_LATE = 1e-3


class Pacer:
    """Waits for the times start + n/rate: a late frame does not delay those after it.

    After a delay, frames that are due go out at once until the schedule is met, and none before
    its time.

    Args:
        rate: frames/s; 0: no waiting.
        stop: ends every wait.
        runtime: s after the first frame when the schedule ends; 0: never.

    Attributes:
        behind: whether the next frame is due, too.
        late: how many frames were due for more than a period, and 1 ms, when their turn came.
    """

    def __init__(self, rate: float, stop: threading.Event, runtime: float = 0) -> None:
        self._period = 1 / rate if rate else 0.0
        self._early = WAKE if self._period >= _SPIN_PERIOD else 0.0
        self._stop = stop
        self._runtime = runtime if runtime > 0 else math.inf
        self._start: float | None = None
        self.late = 0
        self.behind = False

    def wait(self, n: int) -> bool:
        """Wait until frame `n` (0 first) is due; False when stopped or over."""
        return self.wait_until(n * self._period, self._period, self._early)

    def wait_until(self, due: float, period: float, early: float = WAKE) -> bool:
        """Wait until what has its own time is due; False when stopped or over.

        Args:
            due: time after the first call, s.
            period: time from then to what is next, s.
            early: how much earlier the wait ends, s; the rest is spun.
        """
        now = time.perf_counter()
        if self._start is None:
            self._start = now
        elapsed = now - self._start
        if period and elapsed - due > max(period, _LATE):
            self.late += 1
        until = min(due, self._runtime)
        while (left := until - elapsed) > 0:
            if left > early and self._stop.wait(left - early):
                return False
            elapsed = time.perf_counter() - self._start
        self.behind = elapsed >= due + period
        return due < self._runtime and elapsed < self._runtime and not self._stop.is_set()

    @property
    def elapsed(self) -> float:
        """Time since the first call, s."""
        return 0.0 if self._start is None else time.perf_counter() - self._start
