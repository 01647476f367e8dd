"""``python -m benchmarks.client CHANNEL REQUEST``: monitors a channel until its input ends.

Then prints a JSON line: how many frames came, and the intervals between the time stamps of frames
with consecutive ids, in microseconds: median, 99th percentile of the distance to it, largest.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pvaccess as pva

_NANO = 1_000_000_000


def main() -> None:
    """Monitor until standard input ends."""
    ids: list[int] = []
    stamps: list[int] = []

    def on_update(obj: Any) -> None:
        ids.append(obj.getInt("uniqueId"))
        seconds = obj.getLong("timeStamp.secondsPastEpoch")
        stamps.append(seconds * _NANO + obj.getInt("timeStamp.nanoseconds"))

    pv = pva.Channel(sys.argv[1])
    pv.monitor(on_update, sys.argv[2])
    sys.stdin.read()
    pv.stopMonitor()
    consecutive = np.diff(ids) == 1
    # The step from the object that was there at first is no interval of the stream.
    consecutive[:1] = False
    intervals = np.diff(stamps)[consecutive] / 1e3
    middle = float(np.median(intervals)) if intervals.size else 0.0
    spread = np.abs(intervals - middle) if intervals.size else np.zeros(1)
    print(
        json.dumps(
            {
                "received": len(ids),
                "median": middle,
                "p99": float(np.percentile(spread, 99)),
                "largest": float(spread.max()),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
