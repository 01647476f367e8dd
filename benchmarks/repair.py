"""What it costs to keep the past and to be ready to repair, and how long a repair takes."""

from __future__ import annotations

import statistics
import threading
import time

import numpy as np

from benchmarks.plots import Curve, Plot
from benchmarks.run import OURS, SETTLE, Consumer, channel, wait_for
from benchmarks.table import Row
from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import LazyObject, StreamObject
from pvapy_stream.pva.net.kept_updates import MOST_ASKED
from pvapy_stream.sim.pacing import Pacer
from pvapy_stream.transport.own_hosted import OwnHostedPublisher
from pvapy_stream.transport.own_monitor import OwnMonitorReceiver
from pvapy_stream.transport.past_reader import PastReader
from pvapy_stream.transport.pva_library import PvaSettings

_RATES = {128: 3000, 1024: 150}  # frames/s, by width and height, uint16
_KEPT = 64  # MB
_GAPS = (1, 10, 100, 1000)  # ids
_LIMIT = 60.0  # s


def run(quick: bool) -> list[Row | Plot]:
    """CPU with nothing missed, and times of repairs."""
    rows = [_cost(size, 1 if quick else 7, 2 if quick else 5) for size in _RATES]
    curves: list[Curve] = []
    for size in _RATES:
        lookup, times = _repairs(size, 3 if quick else 15)
        curves.append(Curve(f"{size}x{size}", _GAPS, times))
        if size == min(_RATES):
            name = f"{MOST_ASKED} ids of the past are found at the source"
            rows.append(Row(name, "ms", lookup, None, "< 10 ms", lookup < 10))
        name = f"{_GAPS[-1]} missed objects of {size}x{size} are asked for, sent and read"
        rows.append(Row(name, "ms", times[-1], None, "", None))
    title = "Repair of missed objects over loopback, uint16"
    return [*rows, Plot("repair", title, "missed objects", "time, ms", curves, logarithmic="xy")]


def _cost(size: int, rounds: int, seconds: float) -> Row:
    """CPU of source and consumer together, over that without the two options."""
    pairs = [(_cpu(size, seconds, True), _cpu(size, seconds, False)) for _ in range(rounds)]
    ratio = statistics.median(ready / plain for ready, plain in pairs)
    name = f"{size}x{size}, nothing missed: CPU with --keep-past and --repair over that without"
    return Row(name, "", ratio, None, "≤ 1.01", ratio <= 1.01)


def _cpu(size: int, seconds: float, ready: bool) -> float:
    """CPU s of source and consumer."""
    name = channel("repair")
    publisher = OwnHostedPublisher(name, PvaSettings.of(keep_past=_KEPT if ready else 0))
    publisher.open(LazyObject(Frame.of(0, np.zeros((size, size), np.uint16))))
    n = round(seconds * _RATES[size])
    frames = [np.full((size, size), k, np.uint16) for k in range(10)]
    try:
        with Consumer(OURS, name, *(["--repair"] if ready else [])) as consumer:
            consumer.ready()
            before, began = consumer.cpu(), time.thread_time()
            pacer = Pacer(_RATES[size], threading.Event())
            for k in range(1, n + 1):
                pacer.wait(k)
                publisher.publish(LazyObject(Frame.of(k, frames[k % 10])))
            own = time.thread_time() - began
            time.sleep(SETTLE)
            return own + consumer.cpu() - before
    finally:
        publisher.stop()


def _repairs(size: int, rounds: int) -> tuple[float, list[float]]:
    """Time to find 1,000 ids, and times of repairs by their number of ids; ms."""
    name = channel("repair")
    n = max(_GAPS)
    memory = n * (size * size * 2 + 10_000) / 2**20
    publisher = OwnHostedPublisher(name, PvaSettings.of(keep_past=memory))
    receiver = OwnMonitorReceiver(name)
    reader = PastReader(name, "field()")
    try:
        for k in range(1, n + 1):
            publisher.publish(LazyObject(Frame.of(k, np.full((size, size), k, np.uint16))))
        receiver.start(lambda obj: None)
        source = wait_for(lambda: receiver.source, _LIMIT, "the source")
        kept = publisher.kept
        assert kept is not None
        began = time.perf_counter()
        found = sum(kept.get(k) is not None for k in range(1, MOST_ASKED + 1))
        lookup = time.perf_counter() - began
        if found != MOST_ASKED:
            raise RuntimeError(f"{found} of {MOST_ASKED} ids were kept")
        times = [
            statistics.median(_repair(reader, source, gap) for _ in range(rounds)) for gap in _GAPS
        ]
        return 1e3 * lookup, times
    finally:
        reader.close()
        receiver.stop()
        publisher.stop()


def _repair(reader: PastReader, source: str, n: int) -> float:
    came: list[StreamObject] = []

    def take(obj: StreamObject) -> bool:
        came.append(obj)
        return True

    began = time.perf_counter()
    reader.read(range(1, n + 1), source, take, lambda: True)
    took = time.perf_counter() - began
    if len(came) != n:
        raise RuntimeError(f"{len(came)} of {n} objects came")
    return 1e3 * took
