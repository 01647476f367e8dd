"""Workflows: what a step costs, how fast sets are, and how soon many stages are ready.

pvapy has no workflows: its column stays empty.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.table import Row
from pvapy_stream.workflow import (
    Collector,
    Consumer,
    Mirror,
    Protocol,
    Simulator,
    StreamSet,
    Workflow,
    Writer,
    run_workflow,
)

_ITEMS = (1000, 10_000)
_MANY = 1_000_000


class Three(Protocol):
    """Three steps for each item, which do nothing."""

    threads = 4
    n = 0

    def insert_all_steps(self) -> None:
        for number in range(self.n):
            first = self.insert_step(self.step, number, prerequisites=[])
            second = self.insert_step(self.step, number, prerequisites=[first])
            self.insert_step(self.step, number, prerequisites=[second])

    def step(self, number: int) -> None:
        pass


def run(quick: bool) -> list[Row]:
    """Cost of steps and sets as they grow, and the start of workflows."""
    rows = [_steps(n) for n in (_ITEMS[:1] if quick else _ITEMS)]
    rows += _sets(10_000, 20_000 if quick else _MANY)
    rows += [_ready(n) for n in ((1,) if quick else (1, 4, 8))]
    return rows


def _row(what: str, unit: str, ours: float, target: str, met: bool | None) -> Row:
    return Row(f"workflow: {what}", unit, ours, None, target, met)


def _steps(n: int) -> Row:
    protocol = Three()
    protocol.n = n
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        protocol.run(Path(folder) / "run")
        each = (time.perf_counter() - start) / n * 1e3
    return _row(f"3 steps for each of {n} items, threads", "ms/item", each, "< 1 ms", each < 1)


def _sets(appended: int, many: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.sqlite"
        written = StreamSet.create(path)
        read = StreamSet.read(path)
        seen: list[float] = []
        for number in range(1, 6):
            written.append({"number": number})
            start = time.perf_counter()
            while len(read) < number:
                time.sleep(0.001)
            seen.append(time.perf_counter() - start)
        start = time.perf_counter()
        for number in range(appended):
            written.append({"number": number, "file": f"/data/{number:08d}.tif"})
        written.flush()
        rate = appended / (time.perf_counter() - start)
        for number in range(many - appended):
            written.append({"number": number})
        written.close()
        start = time.perf_counter()
        opened = StreamSet.read(path)
        opened.page(len(opened) // 2, 100)
        page = (time.perf_counter() - start) * 1e3
        opened.release()
        read.release()
    delay = statistics.median(seen)
    return [
        _row("appending to a set", "items/s", rate, "> 5000", rate > 5000),
        _row("an item seen by a reader", "s", delay, "< 0.2 s", delay < 0.2),
        _row(f"open a set of {many} items, a page of its middle", "ms", page, "", None),
    ]


def _ready(consumers: int) -> Row:
    """A workflow of simulator, mirror, consumers, collector and writer."""
    flow = Workflow("ready")
    cam = flow.add(
        Simulator(n_publish=50, frame_rate=100, n_x_pixels=8, n_y_pixels=8, n_frames=4), "cam"
    )
    mirror = flow.add(Mirror(input=cam["output"]), "mirror")
    work = flow.add(Consumer(input=mirror["output"], n_consumers=consumers), "work")
    gather = flow.add(Collector(input=work["output"]), "gather")
    flow.add(Writer(input=gather["output"], output="scan.h5"), "disk")
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_workflow(flow, Path(folder) / "run", say=said.append)
    if not outcome.ok:
        raise RuntimeError("; ".join(outcome.problems))
    seconds = float(re.search(r"after ([\d.]+) s", "\n".join(said))[1])
    n = consumers + 4
    met = seconds < 5 if n == 8 else None
    return _row(f"{n} programs are ready after", "s", seconds, "< 5 s" if n == 8 else "", met)
