"""Building an NTNDArray from an array."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from pvapy.utility.adImageUtility import AdImageUtility

from benchmarks.table import Row
from pvapy_stream.frame import Frame
from pvapy_stream.pva.ntndarray import ObjectBuilder

_REPEATS = {128: 2000, 512: 500, 4096: 10}


def run(quick: bool) -> list[Row]:
    """Microseconds per object, uint8 images; in this process."""
    rows = []
    for size, repeats in _REPEATS.items():
        image = np.random.default_rng(1).integers(0, 256, (size, size), np.uint8)
        into = np.empty_like(image)
        builder = ObjectBuilder()
        calls: dict[str, Callable[[], Any]] = {
            "ours": lambda b=builder, i=image: b.build(Frame.of(1, i)),
            "pvapy": lambda i=image: AdImageUtility.generateNtNdArray2D(1, i),
            "copy": lambda i=image: i.copy(),
            "copyto": lambda i=image, o=into: np.copyto(o, i),
        }
        times = _times(calls, max(3, repeats // (10 if quick else 1)), 3 if quick else 7)
        target, met = ("", None)
        if size == 128:
            target, met = "< 20 us", times["ours"] < 20
        rows.append(
            Row(
                f"build an NTNDArray, {size}x{size}",
                "us",
                times["ours"],
                times["pvapy"],
                target,
                met,
            )
        )
        if size == 4096:
            # An object owns its pixels, so the least it costs is a copy into memory of its own;
            # memory at hand is what a copy costs when no pages have to be had first.
            for name, what in (
                ("copy", "image.copy(), new memory"),
                ("copyto", "np.copyto, memory at hand"),
            ):
                ours, pvapy = times["ours"] / times[name], times["pvapy"] / times[name]
                aim = ("<= 1.5", ours <= 1.5) if name == "copy" else ("", None)
                rows.append(Row(f"… over {what}", "times", ours, pvapy, *aim))
    return rows


def _times(calls: dict[str, Callable[[], Any]], repeats: int, n: int) -> dict[str, float]:
    """Microseconds per call: medians of n, in turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(n + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            if turn:  # the first is for warming up
                found[name].append((time.perf_counter() - start) / repeats * 1e6)
    return {name: median(values) for name, values in found.items()}
