"""How long objects take from the detector until they are processed."""

from __future__ import annotations

import math
import time
from collections import deque

import numpy as np

from pvapy_stream.pva.lazy import StreamObject, time_of

_PERIOD = 0.01  # s; at most one object in this time is looked at, whatever the rate
_KEPT = 500  # latest latencies, from which percentiles are computed


class Latency:
    """Latencies of a sample of the objects, from the time stamps they came with.

    It is as good as the clocks of detector and host agree.

    Attributes:
        due: when the next object is looked at, s since 1970.
    """

    __slots__ = ("_latest", "_n", "_total", "due")

    def __init__(self) -> None:
        self.due = 0.0
        self._latest: deque[float] = deque(maxlen=_KEPT)
        self._n = 0
        self._total = 0.0

    def note(self, obj: StreamObject) -> None:
        """Take an object that has just been processed; raises nothing."""
        now = time.time()
        self.due = now + _PERIOD
        try:
            taken = time_of(obj)
        except Exception:
            taken = 0
        if not taken:
            # Objects of this stream have no time: do not look again.
            self.due = math.inf
            return
        latency = now - taken / 1e9
        self._latest.append(latency)
        self._n += 1
        self._total += latency

    def stats(self) -> dict[str, float]:
        """`latencyStats` of the status channel: s; 0 when nothing was looked at."""
        latest = list(self._latest)
        if not latest:
            return dict.fromkeys(("n", "sum", "p50", "p90", "p99", "max"), 0)
        # As np.percentile does it, which imports masked arrays for this.
        ranks = np.array((0.5, 0.9, 0.99)) * (len(latest) - 1)
        p50, p90, p99 = np.interp(ranks, np.arange(len(latest)), sorted(latest)).tolist()
        return {
            "n": self._n,
            "sum": self._total,
            "p50": p50,
            "p90": p90,
            "p99": p99,
            "max": max(latest),
        }
