"""Memory of a consumer over a long stream."""

from __future__ import annotations

import threading
import time
from typing import Any

from benchmarks.consumer import PASS_THROUGH
from benchmarks.run import OURS, PVAPY, SIDES, Consumer, Source
from benchmarks.table import Row

_SIZE = 64
_MB = 1e6


def run(quick: bool) -> list[Row]:
    """MB after a tenth and after all of the frames, pass-through; one run each."""
    n, rate = (20_000, 4000) if quick else (200_000, 4000)
    found = {side: _run(side, rate, n) for side in SIDES}
    growth = {side: late - early for side, (early, late, _) in found.items()}
    lost = {side: part[2] for side, part in found.items()}
    what = f"memory, {_SIZE}x{_SIZE} at {rate} frames/s"
    return [
        *(
            Row(
                f"{what}: RSS after {frames:,} frames",
                "MB",
                found[OURS][index] / _MB,
                found[PVAPY][index] / _MB,
            )
            for index, frames in enumerate((n // 10, n))
        ),
        Row(
            f"{what}: growth",
            "MB",
            growth[OURS] / _MB,
            growth[PVAPY] / _MB,
            "< 2 MB",
            growth[OURS] < 2 * _MB,
        ),
        Row(
            f"{what}: growth per frame",
            "bytes",
            growth[OURS] / (0.9 * n),
            growth[PVAPY] / (0.9 * n),
        ),
        Row(f"{what}: lost", "frames", lost[OURS], lost[PVAPY], "0", lost[OURS] == 0),
    ]


def _run(side: str, rate: float, n: int) -> tuple[float, float, int]:
    """Bytes after a tenth of the frames and after all, and how many were lost."""
    with Source(_SIZE) as source, Consumer(side, source.channel, *PASS_THROUGH[side]) as consumer:
        consumer.ready()
        sent: list[dict[str, Any]] = []
        sender = threading.Thread(target=lambda: sent.append(source.burst(rate, n)), daemon=True)
        sender.start()
        early = late = 0
        while sender.is_alive():
            sender.join(1.0)
            late = consumer.rss()
            if not early and (consumer.last_id() or 0) >= n // 10:
                early = late
        time.sleep(0.5)
        late = consumer.rss()
        if not sent:
            raise RuntimeError(f"the source failed: {source.text}")
        return early or late, late, n - consumer.finish()
