"""Curves for the page on tuning: what a queue covers, and what more consumers bring."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack

from benchmarks.plots import Curve, Plot
from benchmarks.run import OURS, PROCESSORS, Consumer, Simulator, Source, channel
from benchmarks.table import Row

_QUEUE_SIZE = 256  # 65 kB a frame: sockets hold a few MB more than the queue
_SIZE = 128
_RATE = 1000.0  # frames/s
_PAUSES = (0.2, 0.4)  # s
_QUEUES = (1, 50, 100, 200, 400, 800)
_CONSUMERS = (1, 2, 4, 8)
_WORK = 0.004  # s a frame


def run(quick: bool) -> list[Row | Plot]:
    """Frames lost by queue size; frames/s by number of consumers."""
    return [*_queues(), *_shares(quick)]


def _queues() -> list[Row | Plot]:
    """A consumer over PVA that pauses once, in a stream of 1000 frames/s."""
    curves: list[Curve] = []
    with Source(_QUEUE_SIZE) as source:
        for pause in _PAUSES:
            lost = [_lost(source, pause, queue) for queue in _QUEUES]
            curves.append(Curve(f"pause of {pause:g} s", _QUEUES, lost))
    rows = [
        Row(
            f"queue of {queue} over PVA, {curve.label} at {_RATE:g} frames/s: lost",
            "frames",
            lost,
            None,
        )
        for curve in curves
        for queue, lost in zip(curve.x, curve.y, strict=True)
    ]
    title = f"Lost in one pause of a consumer, 256x256 at {_RATE:g} frames/s over PVA"
    plot = Plot("tuning-queue", title, "server queue size, frames", "frames lost", curves)
    return [*rows, plot]


def _lost(source: Source, pause: float, queue: int) -> int:
    n = int(1.5 * _RATE)
    arguments = f'{{"at": {n // 3}, "pause": {pause}}}'
    processor = ("-pf", PROCESSORS[OURS], "-pc", "Pausing", "-pa", arguments)
    # The last -sqs counts.
    with Consumer(OURS, source.channel, *processor, "-sqs", queue) as consumer:
        consumer.ready()
        source.burst(_RATE, n)
        time.sleep(pause + 0.5)
        return n - consumer.finish()


def _shares(quick: bool) -> list[Row | Plot]:
    """Consumers over shared memory that share a stream, 4 ms of work a frame."""
    seconds = 1.5 if quick else 4.0
    curves: list[Curve] = []
    for what in ("waits", "computes"):
        rates = [_shared(number, what, int(number * seconds / _WORK)) for number in _CONSUMERS]
        curves.append(Curve(f"the processor {what}", _CONSUMERS, rates))
    rows = [
        Row(f"{number} consumers, {curve.label} {_WORK * 1e3:g} ms a frame", "frames/s", rate, None)
        for curve in curves
        for number, rate in zip(curve.x, curve.y, strict=True)
    ]
    title = f"{_WORK * 1e3:g} ms of work a frame, stream shared over shm, 2 cores"
    plot = Plot("tuning-consumers", title, "consumers", "frames/s", curves, logarithmic="x")
    return [*rows, plot]


def _shared(number: int, what: str, n: int) -> float:
    """Frames/s of all consumers together."""
    name = channel("shm")
    arguments = f'{{"seconds": {_WORK}, "{what}": true}}'
    processor = ("-pf", PROCESSORS[OURS], "-pc", "Working", "-pa", arguments)
    with ExitStack() as stack:
        consumers = [
            stack.enter_context(
                Consumer(OURS, name, "-im", "shm", "-dg", "g", "-ds", str(k), *processor)
            )
            for k in range(number)
        ]
        with Simulator(
            OURS, "-om", "shm", "-fps", 0, "-rt", 0, "--n-publish", n, "--wait-for-clients", number,
            "-shd", 30, size=_SIZE, name=name,
        ) as simulator:  # fmt: skip
            simulator.rate(120)
        texts = [consumer.interrupt() for consumer in consumers]
    counts, rates = ([float(re.findall(rf"{field}\W+([\d.]+)", text)[0]) for text in texts]
                     for field in ("nProcessed", "processedRate"))  # fmt: skip
    if sum(counts) != n:
        raise RuntimeError(f"{n - sum(counts):g} of {n} frames were lost")
    return sum(rates)
