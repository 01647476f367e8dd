"""Collectors of four producers that take turns."""

from __future__ import annotations

from benchmarks.consumer import burst
from benchmarks.run import OURS, PVAPY, Collector, Source, alternate, rounds
from benchmarks.table import Row

_N = 4
_RATE = 2000.0
# What both hold back until their end: a cache full at most.
_CACHE = 10 * _N
_ARGS = {
    OURS: ("-pid", "1,2,3,4"),
    PVAPY: ("-pid", "1,2,3,4", "-pc", "pvapy.hpc.userDataProcessor.UserDataProcessor"),
}


def run(quick: bool) -> list[Row]:
    """Microseconds of CPU per frame."""
    with Source(128, _N) as source:

        def measure(side: str) -> float:
            found = burst(side, source, _ARGS[side], _RATE, program=Collector, held_back=_CACHE)
            if found.lost:
                raise RuntimeError(f"{side} lost {found.lost} frames at {_RATE:g} frames/s")
            return found.cpu

        cpu = alternate(rounds(quick), measure)
    return [
        Row(
            f"collector, 4 producers, 128x128 at {_RATE:g} frames/s: CPU per frame",
            "us",
            cpu[OURS],
            cpu[PVAPY],
            "ratio <= 0.5",
            cpu[OURS] <= 0.5 * cpu[PVAPY],
        )
    ]
