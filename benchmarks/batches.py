"""The mean of each 128x128 image: 64 images with one call of numpy, and one image at a time."""

from __future__ import annotations

from statistics import median

from benchmarks.chain import Flow, search, unpaced_flow
from benchmarks.run import OURS, PROCESSORS, PVAPY, rounds
from benchmarks.table import Row

_SIZE, _BATCH = 128, 64
_FIRST = 800.0  # frames/s
_FRAMES = 40_000
_GOAL = 30

_MEAN = {side: ("-pf", file, "-pc", "Mean") for side, file in PROCESSORS.items()}
_WAYS = {
    "one by one": _MEAN[OURS],
    "in batches of 64": (*_MEAN[OURS], "--batch-size", _BATCH),
}


def run(quick: bool) -> list[Row]:
    """CPU per frame of ours in both ways, and the highest rates against pvapy's one by one."""
    n = _FRAMES // 4 if quick else _FRAMES
    theirs = search(_SIZE, _FIRST, 1 if quick else 2, _MEAN[PVAPY], stages=1, published=False)
    found: dict[str, list[Flow]] = {way: [] for way in _WAYS}
    for _ in range(rounds(quick)):
        for way, args in _WAYS.items():
            found[way].append(unpaced_flow(_SIZE, n, args, 1, "shm"))
    cpu = {way: median(flow.cpu for flow in flows) for way, flows in found.items()}
    rows: list[Row] = []
    for way, flows in found.items():
        rate = median(flow.rate for flow in flows)
        name = f"mean, one consumer, {_SIZE}x{_SIZE}, {way} over shm"
        goal = f"ratio >= {_GOAL}" if way != "one by one" else ""
        met = rate >= _GOAL * theirs.rate if goal else None
        rows += [
            Row(f"{name}: highest lossless rate", "frames/s", rate, theirs.rate, goal, met),
            Row(f"{name}: CPU per frame", "us", cpu[way], theirs.cpu),
        ]
    one, batch = cpu.values()
    rows.append(Row("mean in batches over one by one, both ours: CPU", "times", batch / one, None))
    return rows
