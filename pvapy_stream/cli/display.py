"""What a command shows while it runs, and at its end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

from pvapy_stream.cli.console import FittedTable
from pvapy_stream.cli.live import LiveDisplay
from pvapy_stream.hpc.service import StageReport
from pvapy_stream.settings import StageSettings
from pvapy_stream.status.counted import rate
from pvapy_stream.status.fields import values
from pvapy_stream.status.snapshot import Snapshot

Reports = Mapping[int, StageReport]

_GROUPS = ("receiver", "publisher", "queue", "metadata", "processor", "user")
_LOSSES = ("missed", "rejected", "errors")
_COLUMNS = (
    "id", "state", "received", "processed", "frames/s", "filtered", "published",
    "queued", *_LOSSES, "last id",
)  # fmt: skip
_STATE_STYLES = {
    "running": "green",
    "stopped": "cyan",
    "failed": "bold red",
    "disconnected": "yellow",
    "waiting": "yellow",
    "paused": "magenta",
}


class StageDisplay(Protocol):
    """Shows reports as they come."""

    def show(self, reports: Reports) -> None: ...

    def close(self) -> None: ...


def make_display(settings: StageSettings, console: Console) -> StageDisplay:
    """A live table on a terminal; elsewhere plain lines, when a report period was asked for."""
    if console.is_terminal and not settings.disable_curses:
        return LiveTable(console)
    return PlainLines(console, settings.report_period, settings.report_stats)


class StageRates:
    """Rates between one report and the next, in 1/s, by stage."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, str], tuple[float, int, float]] = {}

    def of(self, stage_id: int, name: str, count: int) -> float:
        now = time.monotonic()
        then, before, rate = self._last.get((stage_id, name), (now, count, 0.0))
        if now - then >= 0.5:
            rate = max(0, count - before) / (now - then)
            self._last[stage_id, name] = now, count, rate
        elif (stage_id, name) not in self._last:
            self._last[stage_id, name] = now, count, 0.0
        return rate


class LiveTable:
    """A table that stays in place: a line for each consumer and one for all."""

    def __init__(self, console: Console) -> None:
        self._rates = StageRates()
        self._live = LiveDisplay(console)

    def show(self, reports: Reports) -> None:
        self._live.update(status_table(reports, self._rates))

    def close(self) -> None:
        self._live.close()


class PlainLines:
    """One line a stage, every report period."""

    def __init__(self, console: Console, period: float, kinds: Sequence[str]) -> None:
        self._console = console
        self._period = period
        self._kinds = kinds
        self._next = time.monotonic() + period

    def show(self, reports: Reports) -> None:
        now = time.monotonic()
        if self._period <= 0 or now < self._next:
            return
        self._next = now + self._period
        for line in stats_lines(reports, self._kinds):
            self._console.print(line, soft_wrap=True)

    def close(self) -> None:
        pass


def status_table(reports: Reports, rates: StageRates) -> FittedTable:
    """Counts, rates, queue depth and losses of each stage."""
    table = FittedTable(_COLUMNS, left=("state",))
    total: dict[str, float] = dict.fromkeys(
        ("received", "processed", "rate", "filtered", "published", "queued", *_LOSSES),
        0.0,
    )
    for stage_id, report in sorted(reports.items()):
        snapshot = report.snapshot
        row = snapshot.counts()
        row["rate"] = rates.of(stage_id, "processed", snapshot.processor_stats.n_processed)
        for name in total:
            total[name] += row[name]
        state = Text(snapshot.state, _STATE_STYLES.get(snapshot.state, ""))
        last = str(snapshot.processor_stats.last_object_id)
        table.add_row(str(stage_id), state, *_cells(row), last)
    if len(reports) > 1:
        table.set_total("all", "", *_cells(total), "")
    return table


def _groups(kind: str, snapshot: Snapshot) -> dict[str, Mapping[str, Any]]:
    """The statistics of a kind, by what they are of; a collector has receivers for producers."""
    stats = values(snapshot)
    found = {kind: stats.get(f"{kind}Stats", {})}
    for name, group in stats.items():
        _, separator, number = name.partition("Stats_")
        if separator and name.startswith("producer") and kind == "receiver":
            found[f"{kind} {number}"] = group["receiverStats"]
        elif separator and name.startswith(kind):
            found[f"{kind} {number}"] = group
    return {name: group for name, group in found.items() if group}


def _cells(row: Mapping[str, Any]) -> list[str | Text]:
    cells: list[str | Text] = [
        f"{row['received']:.0f}",
        f"{row['processed']:.0f}",
        f"{row['rate']:.1f}",
        f"{row['filtered']:.0f}",
        f"{row['published']:.0f}",
        f"{row['queued']:.0f}",
    ]
    return cells + [Text(f"{row[name]:.0f}", "bold red" if row[name] else "") for name in _LOSSES]


def stats_lines(reports: Reports, kinds: Sequence[str]) -> list[str]:
    """The chosen statistics of each stage, and of all together."""
    lines = []
    for stage_id, report in sorted(reports.items()):
        lines.append(
            f"{report.snapshot.kind} {stage_id}: {report.snapshot.state}"
            + (f" - {report.problem}" if report.problem else "")
        )
        for group in _GROUPS if report.snapshot.started else ():
            if group in kinds or "all" in kinds:
                for label, found in _groups(group, report.snapshot).items():
                    shown = (f"{name} {_shown(name, value)}" for name, value in found.items())
                    lines.append(f"  {label:9} {'  '.join(shown)}")
    if len(reports) > 1:
        lines.append(
            "all: " + "  ".join(f"{name} {value}" for name, value in combined(reports).items())
        )
    return lines


def combined(reports: Reports) -> dict[str, str]:
    """Sums over all stages; rates over the time in which any of them received."""
    snapshots = [report.snapshot for report in reports.values()]
    processors = [one.processor_stats for one in snapshots]
    busy = [one for one in processors if one.first_object_time > 0]
    first = min((one.first_object_time for one in busy), default=0.0)
    last = max((one.last_object_time for one in busy), default=0.0)
    processed = sum(one.n_processed for one in processors)
    return {
        "nProcessed": str(processed),
        "processedRate": f"{rate(processed, last - first):.4f}Hz",
        "nFiltered": str(sum(one.n_filtered for one in processors)),
        "nMissed": str(sum(one.n_missed for one in processors)),
        "nErrors": str(sum(one.n_errors for one in processors)),
        "nRejected": f"{sum(one.counts()['rejected'] for one in snapshots):.0f}",
    }


def _shown(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return "{" + "  ".join(f"{key} {_shown(key, item)}" for key, item in value.items()) + "}"
    if isinstance(value, float):
        unit = "Hz" if name.endswith("Rate") else "s" if name.endswith("ime") else ""
        return f"{value:.4f}{unit}"
    return str(value)
