"""Two-stage chains: simulator, consumer, consumer; over PVA and over shared memory."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from benchmarks.consumer import PASS_THROUGH, TRANSPOSE
from benchmarks.plots import Curve, Plot
from benchmarks.run import OURS, PVAPY, Consumer, Source
from benchmarks.table import Row
from benchmarks.watched import Stage, connected

_SIZES = {4096: (20.0, 400), 512: (600.0, 20_000), 128: (800.0, 60_000)}
_STEP = 1.35
_SECONDS = 2.0
_KEEPS_UP = 0.3  # s; the last frame is through the chain so soon after it was published
_GOALS = {4096: (2.2, 10), 512: (3, 8), 128: (8, 8)}
_CPU_GOALS = {4096: 0.6, 128: 0.25}
_WAITING = 2**26  # bytes of frames that wait for a stage over PVA
_UNPACED = 1e9  # frames/s


@dataclass(frozen=True, slots=True)
class Flow:
    """A run of a chain: frames/s, and CPU time per frame of the first consumer, us."""

    rate: float
    cpu: float


def run(quick: bool) -> list[Row | Plot]:
    """Highest rates at which every frame is processed at the end, then CPU per frame."""
    rows: list[Row] = []
    flows: dict[int, Flow] = {}
    rates: dict[str, list[float]] = {"pvapy": [], "ours over PVA": [], "ours over shm": []}
    for size, (first, n) in _SIZES.items():
        frames = n // 4 if quick else n
        theirs = search(size, first, 1 if quick else 2, PASS_THROUGH[PVAPY], stages=2)
        ours = unpaced_flow(size, frames, PASS_THROUGH[OURS], 2, "pva")
        flows[size] = flow = unpaced_flow(size, frames, PASS_THROUGH[OURS], 2, "shm")
        for curve, found in zip(rates.values(), (theirs, ours, flow), strict=True):
            curve.append(found.rate)
        name = f"chain of two, {size}x{size}: highest lossless rate"
        for how, found, goal in (
            ("PVA", ours.rate, _GOALS[size][0]),
            ("shm", flow.rate, _GOALS[size][1]),
        ):
            what = f"{name}, ours over {how}"
            met = found >= goal * theirs.rate
            rows.append(Row(what, "frames/s", found, theirs.rate, f"ratio >= {goal}", met))
        if size in _CPU_GOALS:
            for how, cpu, goal in (("PVA", ours.cpu, _CPU_GOALS[size]), ("shm", flow.cpu, 0.3)):
                what = f"chain of two, {size}x{size}: CPU per frame, ours over {how}"
                met = cpu <= goal * theirs.cpu
                rows.append(Row(what, "us", cpu, theirs.cpu, f"ratio <= {goal}", met))
    at_4096 = flows[4096]
    longer = _longer(at_4096, _SIZES[4096][1] // (4 if quick else 1))
    return [*rows, *_transpose(quick), _over_copy(at_4096), *longer, _plot(rates)]


def _plot(rates: dict[str, list[float]]) -> Plot:
    return Plot(
        "chain",
        "Simulator and two consumers on one host, 2 cores",
        "image, uint8",
        "highest lossless rate, frames/s",
        [Curve(label, [*_SIZES], found) for label, found in rates.items()],
        {size: f"{size}x{size}" for size in _SIZES},
        "xy",
    )


def _over_copy(flow: Flow) -> Row:
    """Bytes that the source of the chain moves, over those of numpy alone."""
    source, into = (np.ones((4096, 4096), np.uint8) for _ in range(2))
    times = []
    for _ in range(50):
        start = time.perf_counter()
        np.copyto(into, source)
        times.append(time.perf_counter() - start)
    rate = 1 / sorted(times)[len(times) // 2]
    # Only the simulator copies each frame; the consumers pass on references.
    return Row(
        "chain of two over shm, 4096x4096: copies/s of the source, over numpy's",
        "times",
        flow.rate / rate,
        None,
        ">= 0.6",
        flow.rate / rate >= 0.6,
    )


def _longer(flow: Flow, frames: int) -> list[Row]:
    """What consumers cost that copy nothing."""
    longer = unpaced_flow(4096, frames, PASS_THROUGH[OURS], 4, "shm")
    name = "chain of four over shm, 4096x4096:"
    rate, cpu = longer.rate / flow.rate, longer.cpu / 1e3
    return [
        Row(f"{name} highest lossless rate, over that of a chain of two", "times", rate, None,
            ">= 0.9", rate >= 0.9),
        Row(f"{name} CPU per frame of the first consumer", "ms", cpu, None, "<= 0.05", cpu <= 0.05),
    ]  # fmt: skip


def _transpose(quick: bool) -> list[Row]:
    """Highest rate of one consumer that transposes 128x128."""
    theirs = search(128, 800.0, 1 if quick else 2, TRANSPOSE[PVAPY], stages=1)
    n = 10_000 if quick else 40_000
    ours, shm = (unpaced_flow(128, n, TRANSPOSE[OURS], 1, mode) for mode in ("pva", "shm"))
    name = "transpose, one consumer, 128x128: highest lossless rate, ours over"
    return [
        Row(f"{name} {how}", "frames/s", flow.rate, theirs.rate, f"ratio >= {goal}",
            flow.rate >= goal * theirs.rate)
        for how, flow, goal in (("PVA", ours, 2), ("shm", shm, 4))
    ]  # fmt: skip


def search(
    size: int,
    rate: float,
    halvings: int,
    args: tuple[object, ...],
    stages: int,
    published: bool = True,
) -> Flow:
    """Go up until pvapy loses frames, then halve the interval a few times.

    `published`: whether its last stage publishes each frame.
    """
    best, failed = Flow(0.0, float("inf")), 0.0
    with Source(size) as source:
        while halvings >= 0 and rate > 2:
            found = _burst(source, rate, args, stages, published)
            if found is not None:
                best = max(best, found, key=lambda flow: flow.rate)
            if found is None or found.rate < 0.97 * rate:
                failed = rate
            if not failed:
                rate *= _STEP
                continue
            halvings -= 1
            rate = (best.rate + failed) / 2 if best.rate else rate / 2
    return best


def _burst(
    source: Source, rate: float, args: tuple[object, ...], stages: int, published: bool
) -> Flow | None:
    """One burst through a chain; None when frames were lost or it did not keep up."""
    n = max(10, int(rate * _SECONDS))
    chain: list[Consumer] = []
    try:
        name = source.channel
        for _ in range(stages):
            chain.append(Consumer(PVAPY, name, *args))
            name = chain[-1].output
        for consumer in chain:
            consumer.ready()
        before = chain[0].cpu()
        sent = source.burst(rate, n)
        start = time.monotonic()
        if not published:
            time.sleep(_KEEPS_UP)
        while published and (chain[-1].last_id() or 0) < sent["last"]:
            if time.monotonic() - start > _KEEPS_UP:
                return None
            time.sleep(0.01)
        cpu = chain[0].cpu() - before
        if any(consumer.finish() < n for consumer in chain):
            return None
        return Flow(sent["rate"], cpu / n * 1e6)
    finally:
        for consumer in chain:
            consumer.__exit__()


def unpaced_flow(
    size: int, n: int, args: tuple[object, ...], stages: int, mode: str = "shm"
) -> Flow:
    """Send frames as fast as a chain of ours takes them; all must be processed at its end.

    Raises:
        RuntimeError: some were not.
    """
    waiting = 0 if mode == "shm" else min(max(4, _WAITING // size**2), 1000)
    source_mode = "own" if mode == "pva" else mode
    with Source(size, mode=source_mode) as source, ExitStack() as stack:
        chain: list[Stage] = []
        name = source.channel
        for _ in range(stages):
            chain.append(stack.enter_context(Stage(Consumer, name, mode, *args, "-sqs", waiting)))
            name = chain[-1].program.output
        connected(chain)
        before = chain[0].program.cpu()
        source.burst(_UNPACED, n)
        chain[-1].wait_processed(n)
        cpu = chain[0].program.cpu() - before
        processed, rate = [stage.finish() for stage in chain][-1]
        if processed != n:
            raise RuntimeError(f"{n - processed} of {n} frames were lost")
        return Flow(rate, cpu / n * 1e6)
