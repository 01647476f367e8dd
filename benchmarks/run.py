"""Processes under measurement: started, looked at from outside, and always ended."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pvaccess as pva

HERE = Path(__file__).parent
ROOT = HERE.parent

OURS = "ours"
PVAPY = "pvapy"
SIDES = (OURS, PVAPY)

_CONSUMER = {OURS: ("pvapy_stream.cli.main", "consumer"), PVAPY: ("pvapy.cli.hpcConsumer",)}
_COLLECTOR = {OURS: ("pvapy_stream.cli.main", "collector"), PVAPY: ("pvapy.cli.hpcCollector",)}
_SIMULATOR = {OURS: ("pvapy_stream.cli.main", "sim"), PVAPY: ("pvapy.cli.adSimServer",)}
PROCESSORS = {OURS: HERE / "processors.py", PVAPY: HERE / "pvapy_processors.py"}

SETTLE = 0.5  # s; what a process still does after its channel is there
_numbers = itertools.count(1)


def channel(what: str) -> str:
    """A channel name that nothing else uses."""
    return f"bench:{os.getpid()}:{what}:{next(_numbers)}"


def rounds(quick: bool) -> int:
    """How often each figure is measured."""
    return 1 if quick else 3


def alternate(n: int, measure: Callable[[str], float]) -> dict[str, float]:
    """Measure ours, pvapy, ours, pvapy …; the medians."""
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(n):
        for side in SIDES:
            found[side].append(measure(side))
    return {side: median(values) for side, values in found.items()}


def wait_for(condition: Callable[[], Any], timeout: float, what: str, period: float = 0.05) -> Any:
    """Wait for a condition; its value.

    Raises:
        TimeoutError: it did not come within `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(period)
    return value


class Child:
    """A Python program with all it prints; killed at the end of its `with`."""

    def __init__(self, module: str, *args: object) -> None:
        self.module = module
        self.started = time.time()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.ended:
            self.process.kill()
        self.process.wait(10)
        self._reader.join(5)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def wait(self, timeout: float) -> str:
        """Wait for its end; what it printed."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"still running after {timeout:g} s: {self.module}\n{self.text}"
            ) from None
        self._reader.join(5)
        return self.text

    def interrupt(self, timeout: float = 20) -> str:
        """Stop it as a user does; what it printed."""
        if not self.ended:
            self.process.send_signal(signal.SIGINT)
        return self.wait(timeout)

    def ask(self, line: str, timeout: float) -> dict[str, Any]:
        """Send a line and wait for the JSON line that answers."""
        before = len(self.lines)
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        wait_for(
            lambda: len(self.lines) > before or self.ended, timeout, f"answer to {line!r}", 0.01
        )
        if len(self.lines) == before:
            raise RuntimeError(f"ended before it answered {line!r}: {self.text}")
        return json.loads(self.lines[before])

    def cpu(self) -> float:
        """CPU seconds so far, all threads."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def rss(self) -> int:
        """Memory it holds, bytes."""
        return psutil.Process(self.process.pid).memory_info().rss

    def private(self) -> int:
        """Memory of its own, without files and lanes that are mapped, bytes."""
        found = psutil.Process(self.process.pid).memory_info()
        return found.rss - found.shared

    @property
    def ended(self) -> bool:
        """Whether the process is over."""
        return self.process.poll() is not None

    @property
    def text(self) -> str:
        """What it printed so far."""
        return "".join(self.lines)


class Source(Child):
    """Hosts one channel or several and publishes bursts of frames on demand, see `source.py`."""

    def __init__(self, size: int, n_channels: int = 0, mode: str = "pva") -> None:
        self.channel = channel("in") + (":*" if n_channels else "")
        super().__init__("benchmarks.source", self.channel, size, n_channels or 1, mode)

    def burst(self, rate: float, n: int) -> dict[str, Any]:
        """Publish `n` frames at `rate` frames/s and wait until they are out."""
        return self.ask(f"{rate} {n}", n / rate * 4 + 20)

    def stream(self, rate: float) -> None:
        """Publish until the end of this source."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{rate} {2**30}\n")
        self.process.stdin.flush()


class Consumer(Child):
    """A consumer of one side, with an output channel."""

    programs = _CONSUMER

    def __init__(self, side: str, source: str, *args: object, runtime: float = 300) -> None:
        self.output = channel("out")
        self._pv: pva.Channel | None = None
        module, *command = self.programs[side]
        channels = ("-ic", source, "-oc", self.output)
        super().__init__(module, *command, *channels, "-sqs", 1000, "-rt", runtime, "-dc", *args)

    def ready(self, timeout: float = 20) -> None:
        """Wait until it has had its initial update: its output channel is there then."""
        wait_for(lambda: self.ended or self.last_id() is not None, timeout, "the output channel")
        if self.ended:
            raise RuntimeError(f"the consumer ended: {self.wait(5)}")
        time.sleep(SETTLE)

    def last_id(self) -> int | None:
        """The id of the newest object on the output channel; None when it is not there."""
        pv = self._pv or pva.Channel(self.output)
        pv.setTimeout(1.0)
        try:
            found = int(pv.get("field(uniqueId)")["uniqueId"])
        except pva.PvaException:
            return None
        self._pv = pv
        return found

    def finish(self) -> int:
        """Stop it; how many objects it says it processed."""
        text = self.interrupt()
        found = re.findall(r"nProcessed\W+(\d+)", text)
        if not found:
            raise RuntimeError(f"no nProcessed in what the consumer printed: {text}")
        return int(found[0])


class Collector(Consumer):
    """A collector of one side; `source` has a ``*`` for the producers."""

    programs = _COLLECTOR


class Simulator(Child):
    """The simulator of one side, with random frames that are repeated."""

    def __init__(self, side: str, *args: object, size: int = 128, name: str = "") -> None:
        self.channel = name or channel("sim")
        module, *command = _SIMULATOR[side]
        frames = ("-nx", size, "-ny", size, "-nf", 100)
        super().__init__(module, *command, "-cn", self.channel, *frames, "-rp", 0, "-dc", *args)

    def rate(self, timeout: float) -> tuple[int, float]:
        """Wait for its end; frames and frames/s as it prints them."""
        text = self.wait(timeout)
        found = re.search(r"Published frames:\s*(\d+) @ ([\d.]+) fps", text)
        if not found:
            raise RuntimeError(f"the simulator published nothing: {text}")
        return int(found[1]), float(found[2])
