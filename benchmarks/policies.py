"""Four consumers that share a stream in turns, or by the lengths of their queues."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from benchmarks.run import channel, wait_for
from benchmarks.table import Row
from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.transport.policy import LEAST_QUEUED, RUNS
from pvapy_stream.transport.shm import ShmPublisher, ShmReceiver
from pvapy_stream.transport.shm_settings import ShmSettings

_CONSUMERS = 4
_QUEUE = 8
_TIME = 0.002  # s; to process a frame, in which others run
_LIMIT, _LOOK = 60.0, 0.001  # s


def run(quick: bool) -> list[Row]:
    """Rates by policy, over those of fixed runs, in alternating turns."""
    n, rounds = (1000, 1) if quick else (3000, 5)
    rows: list[Row] = []
    for what, slowdown, goal in (("one three times slower", 3, 1.5), ("all alike", 1, 0.95)):
        pairs = [
            (_rate(LEAST_QUEUED, slowdown, n), _rate(RUNS, slowdown, n)) for _ in range(rounds)
        ]
        ratio = statistics.median(ours / runs for ours, runs in pairs)
        name = f"{_CONSUMERS} consumers over shm, {what}: rate of least-queued over that of runs"
        rows.append(Row(name, "", ratio, None, f"≥ {goal:g}", ratio >= goal))
    return rows


def _rate(policy: str, slowdown: int, n: int) -> float:
    """Frames/s until all are processed."""
    name = channel("policies")
    pixels = np.zeros((128, 128), np.uint16)
    publisher = ShmPublisher(name, ShmSettings.of())
    publisher.open(LazyObject(Frame.of(0, pixels)))
    done = [0] * _CONSUMERS
    receivers: list[ShmReceiver] = []
    try:
        for number in range(_CONSUMERS):
            seconds = _TIME * (slowdown if not number else 1)

            def process(obj: Any, number: int = number, seconds: float = seconds) -> None:
                if obj.id:
                    time.sleep(seconds)
                    done[number] += 1

            receivers.append(ShmReceiver(name, "g", queue=_QUEUE, policy=policy))
            receivers[-1].start(process)
            wait_for(lambda n=number: publisher.subscribers > n, _LIMIT, "a consumer", _LOOK)
        began = time.monotonic()
        for number in range(1, n + 1):
            publisher.publish(LazyObject(Frame.of(number, pixels)))
        wait_for(lambda: sum(done) == n, _LIMIT, "all frames", _LOOK)
        return n / (time.monotonic() - began)
    finally:
        for one in receivers:
            one.stop()
        publisher.stop()
