"""Collectors of four producers that take turns."""

from __future__ import annotations

import random
import time
from collections import deque
from functools import partial

from benchmarks.consumer import burst
from benchmarks.rates import highest
from benchmarks.run import OURS, PVAPY, Collector, Source, alternate, rounds
from benchmarks.table import Row
from pvapy_stream.hpc.reorder import ReorderBuffer

_N = 4
_RATE = 2000.0
# What both hold back until their end: a cache full at most.
_CACHE = 10 * _N
_ARGS = {
    OURS: ("-pid", "1,2,3,4"),
    PVAPY: ("-pid", "1,2,3,4", "-pc", "pvapy.hpc.userDataProcessor.UserDataProcessor"),
}


_N_IDS = 100_000
_HELD = 1000


def run(quick: bool) -> list[Row]:
    """Microseconds of CPU per frame; seconds of the buffer alone."""
    with Source(128, _N) as source:

        def measure(side: str) -> float:
            found = burst(side, source, _ARGS[side], _RATE, program=Collector, held_back=_CACHE)
            # pvapy's skips one initial update in all, and processes those of the other producers.
            if found.lost > 0:
                raise RuntimeError(f"{side} lost {found.lost} frames at {_RATE:g} frames/s")
            return found.cpu

        cpu = alternate(rounds(quick), measure)
        trials = {
            side: partial(burst, side, source, _ARGS[side], program=Collector, held_back=_CACHE)
            for side in (OURS, PVAPY)
        }
        rate = highest("collector, 4 producers, 128x128", trials, quick)
    return [
        Row(
            f"collector, 4 producers, 128x128 at {_RATE:g} frames/s: CPU per frame",
            "us",
            cpu[OURS],
            cpu[PVAPY],
            "ratio <= 0.5 or rate x 2",
            cpu[OURS] <= 0.5 * cpu[PVAPY] or None,
        ),
        rate,
        *_buffer_alone(),
    ]


def _buffer_alone() -> list[Row]:
    """Producers that are up to 200 of their own ids apart."""
    rng = random.Random(1)
    waiting = {k: deque(range(k, _N_IDS, _N)) for k in range(_N)}
    arrivals: list[tuple[int, int]] = []
    while any(waiting.values()):
        for k in rng.sample(range(_N), _N):
            n = min(rng.randrange(200), len(waiting[k]))
            arrivals += [(k, waiting[k].popleft()) for _ in range(n)]
    buffer = ReorderBuffer(range(_N), _HELD, gap_timeout=60)
    out: list[int] = []
    most = 0
    start = time.perf_counter()
    for k, value in arrivals:
        buffer.add(k, value, None, 0.0)
        out += [one.id for one in buffer.release(0.0)]
        most = max(most, len(buffer))
    out += [one.id for one in buffer.drain()]
    seconds = time.perf_counter() - start
    if out != sorted(out) or len(out) > _N_IDS:
        raise RuntimeError("the buffer does not keep the order")
    what = f"reorder buffer alone, {_N_IDS:,} ids of {_N} producers"
    return [
        Row(what, "s", seconds, None, "< 0.5 s", seconds < 0.5),
        Row(
            f"… most objects held, cache of {_HELD}",
            "objects",
            most,
            None,
            "<= cache",
            most <= _HELD,
        ),
    ]
