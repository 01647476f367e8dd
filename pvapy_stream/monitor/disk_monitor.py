"""Free space of disks, and when they will be full."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from pvapy_stream.base_settings import opt
from pvapy_stream.errors import MonitorError
from pvapy_stream.monitor.base import Clock, Sample, SamplingMonitor
from pvapy_stream.monitor.kinds import MonitorKind
from pvapy_stream.monitor.outbox import Notifier
from pvapy_stream.monitor.series_store import SeriesStore
from pvapy_stream.settings import AlarmRule, MonitorSettings
from pvapy_stream.settings.text_types import Names

GB = 2**30
TABLE = "disk_usage.txt"

_HEADER = "time\tpath\ttotal_gb\tused_gb\tfree_gb\n"
_FULL_IN_AT_MOST = 24 * 365.0  # h; what takes longer is not filling up

_log = logging.getLogger(__name__)


class DiskSettings(MonitorSettings):
    """Free space of disks."""

    QUANTITIES: ClassVar[Mapping[str, str]] = {
        "total": "GB",
        "used": "GB",
        "free": "GB",
        "used_percent": "%",
        "full_in": "h",
    }

    paths: Annotated[Names, opt("-p --path", "Disks", metavar="PATH", many=True)] = Field(
        (".",), min_length=1, description="a path on each disk to watch"
    )
    min_free: Annotated[float | None, opt("--min-free", "Disks", "GB", metavar="N")] = Field(
        None, ge=0, description="raise an alarm if less is free; GB are 2^30 bytes, as in df -h"
    )
    trend_time: Annotated[float, opt("--trend-time", "Disks", "min", metavar="T")] = Field(
        30,
        gt=0,
        description=(
            "the time until the disk is full is estimated from the change in this last time"
        ),
    )


class Trend:
    """When a falling value reaches 0, from its last values. Pure.

    Args:
        span: s of the past that count.
    """

    def __init__(self, span: float) -> None:
        self._span = span
        self._points: deque[tuple[float, float]] = deque()

    def add(self, now: float, value: float) -> float:
        """Take a value; s until it is 0, NaN when it does not fall or too little is known."""
        points = self._points
        points.append((now, value))
        while now - points[0][0] > self._span:
            points.popleft()
        if len(points) < 3:
            return math.nan
        times, values = np.array(points).T
        times = times - times.mean()
        spread = float(times @ times)
        slope = float(times @ values) / spread if spread else 0.0
        return value / -slope if slope < 0 else math.nan


class DiskMonitor(SamplingMonitor):
    """Total, used and free space of some paths, also to a table with tabs."""

    kind = "disk"

    def __init__(
        self,
        settings: DiskSettings,
        store: SeriesStore | None = None,
        notifiers: Iterable[Notifier] = (),
        clock: Clock | None = None,
    ) -> None:
        if settings.min_free is not None:
            low = AlarmRule("free", "<", settings.min_free, settings.min_free, unit="GB")
            settings = settings.replace(alarms=(*settings.alarms, low))
        super().__init__(settings, store, notifiers, clock)
        self._paths = settings.paths
        self._trends = {path: Trend(60 * settings.trend_time) for path in settings.paths}
        self._table_fails = False

    def sample(self) -> list[Sample]:
        samples: list[Sample] = []
        rows: list[str] = []
        problems: list[str] = []
        now = self.clock.wall()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now))
        for path in self._paths:
            try:
                usage = shutil.disk_usage(path)
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
                continue
            total, used, free = (value / GB for value in (usage.total, usage.used, usage.free))
            full_in = self._trends[path].add(self.clock.now(), free) / 3600
            if full_in > _FULL_IN_AT_MOST:
                full_in = math.nan
            # Of what users can have: a part is often kept for the system.
            percent = 100 * used / (used + free) if used + free else 0.0
            samples += [
                Sample(path, "total", total, "GB"),
                Sample(path, "used", used, "GB"),
                Sample(path, "free", free, "GB"),
                Sample(path, "used_percent", percent, "%"),
                Sample(path, "full_in", full_in, "h"),
            ]
            rows.append(f"{stamp}\t{path}\t{total:.3f}\t{used:.3f}\t{free:.3f}\n")
        self._write(rows)
        if problems and not samples:
            raise MonitorError(f"no disk can be monitored: {'; '.join(problems)}; see --path")
        for problem in problems:
            self.note_problem(problem)
        return samples

    def _write(self, rows: list[str]) -> None:
        file = self.working_dir / TABLE
        try:
            _append(file, rows)
            self._table_fails = False
        except OSError as error:
            # This monitor exists to report a full disk; it must not stop because of it.
            if not self._table_fails:
                _log.error("cannot write %s: %s", file, error.strerror)
            self._table_fails = True


def _append(file: Path, rows: list[str]) -> None:
    with file.open("a", encoding="utf-8") as table:
        if table.tell() == 0:
            table.write(_HEADER)
        table.writelines(rows)


MONITOR = MonitorKind(
    "disk", DiskSettings, DiskMonitor, "free space, and the time until a disk is full", rank=10
)
