"""When the next frame is due."""

from __future__ import annotations

import threading
import time

# A wait ends this much early, as a thread wakes up late; what remains is spun at low rates only.
_WAKE = 100e-6
# Rates above this are served in small groups rather than by spinning away the core.
_SPIN_PERIOD = 500e-6
_LATE = 1e-3


class Pacer:
    """Waits for the times start + n/rate: a late frame does not delay those after it.

    After a delay, frames that are due go out at once until the schedule is met, and none before
    its time.

    Args:
        rate: frames/s; 0: no waiting.
        stop: ends every wait.

    Attributes:
        late: how many frames were due for longer than a period, and at least 1 ms, when their turn came.
    """

    def __init__(self, rate: float, stop: threading.Event) -> None:
        self._period = 1 / rate if rate else 0.0
        self._limit = max(self._period, _LATE)
        self._spins = self._period >= _SPIN_PERIOD
        self._stop = stop
        self._start: float | None = None
        self.late = 0

    def wait(self, n: int) -> bool:
        """Wait until frame `n` (0 first) is due; False when stopped. The first call starts the clock."""
        now = time.perf_counter()
        if self._start is None:
            self._start = now
        if not self._period:
            return not self._stop.is_set()
        due = self._start + n * self._period
        if now - due > self._limit:
            self.late += 1
        while (left := due - now) > 0:
            if left > _WAKE:
                if self._stop.wait(left - _WAKE if self._spins else left):
                    return False
            elif not self._spins:
                time.sleep(left)
            now = time.perf_counter()
        return not self._stop.is_set()
