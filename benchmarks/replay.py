"""How well a replay keeps the intervals of a recording, beside a timer that does nothing else."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plots import Curve, Plot
from benchmarks.run import OURS, Consumer, channel
from benchmarks.table import Row
from pvapy_stream.files.recording import RecordingFile
from pvapy_stream.frame import Frame
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.pva.serial import dumps
from pvapy_stream.settings import ReplaySettings
from pvapy_stream.sim.pacing import Pacer
from pvapy_stream.sim.replay_server import ReplayServer

_RATE = 1000  # objects/s
_SIZE = 64  # pixels
_WITHIN = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # ms
_GOAL = 0.2  # ms
_WAITED = 30e-6  # s; for a core, from which on an interval says nothing about the program


class _Waits:
    """How long this thread has waited for a core, as Linux counts it."""

    def __init__(self) -> None:
        self._file = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)

    def seconds(self) -> float:
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e9


class _Replay(ReplayServer):
    """Notes how long its thread waits for a core."""

    def __init__(self, settings: ReplaySettings) -> None:
        super().__init__(settings)
        self.waits: list[float] = []
        self._counter: _Waits | None = None

    def _publish_one(self, one: Any, obj: Any, pacer: Pacer) -> None:
        if self._counter is None:
            self._counter = _Waits()
        super()._publish_one(one, obj, pacer)
        self.waits.append(self._counter.seconds())


def run(quick: bool) -> list[Row | Plot]:
    """Parts of the intervals that are kept, over pvas and shm, and by the timer alone."""
    seconds = 3 if quick else 20
    gc.freeze()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording.h5"
        _record(path, seconds * _RATE)
        found = {"timer alone": _timer(seconds)}
        for mode in ("pvas", "shm"):
            found[f"replay over {mode}"] = _replay(path, mode)
    rows: list[Row | Plot] = []
    for label, (deviations, undisturbed) in found.items():
        for what, some in (("", deviations), (", core at hand", undisturbed)):
            part = 100 * float(np.mean(some <= _GOAL))
            goal = "> 99 %" if label[:6] == "replay" else ""
            name = f"{label} at {_RATE} objects/s{what}: intervals kept within {_GOAL:g} ms"
            rows.append(Row(name, "%", part, None, goal, part > 99 if goal else None))
    curves = [
        Curve(label, _WITHIN, [100 * float(np.mean(wrong <= limit)) for limit in _WITHIN])
        for label, (wrong, _) in found.items()
    ]
    title = f"Intervals of a replay, {_SIZE}x{_SIZE} at {_RATE} objects/s"
    label = "deviation from the recorded interval, ms"
    return [*rows, Plot("replay", title, label, "intervals within, %", curves, logarithmic="x")]


def _record(path: Path, n: int) -> None:
    file, build = RecordingFile(path), ObjectBuilder().build
    for k in range(n):
        image = np.full((_SIZE, _SIZE), k, np.uint16)
        at = 10**18 + k * 10**9 // _RATE
        file.add(at, k + 1, [dumps(build(Frame.of(k + 1, image)))])
    file.close()


def _timer(seconds: int) -> tuple[Any, Any]:
    pacer, waits = Pacer(0, threading.Event()), _Waits()
    late: list[float] = []
    waited: list[float] = []
    for k in range(seconds * _RATE):
        pacer.wait_until(k / _RATE, 1 / _RATE, 0.3e-3)
        late.append(pacer.elapsed - k / _RATE)
        waited.append(waits.seconds())
    return _both(np.abs(np.diff(late)), waited)


def _replay(path: Path, mode: str) -> tuple[Any, Any]:
    name = channel("replay")
    settings = ReplaySettings.of(
        file=str(path), channel_name=name, output_mode=mode, wait_for_clients=1, report_period=0,
        shutdown_delay=0,
    )  # fmt: skip
    server = _Replay(settings)
    how = "pva" if mode == "pvas" else mode
    with Consumer(OURS, name, "-im", how):
        if code := server.run(threading.Event()):
            raise RuntimeError(f"the replay has ended with {code}")
    return _both(server.deviations(), server.waits)


def _both(wrong: Any, waited: list[float]) -> tuple[Any, Any]:
    """Deviations, ms: all, and those of intervals at whose ends a core was at hand."""
    wrong = wrong * 1e3
    wait = np.diff(waited, prepend=waited[0])
    return wrong, wrong[np.maximum(wait[1:], wait[:-1]) < _WAITED]
