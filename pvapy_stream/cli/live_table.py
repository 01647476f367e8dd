"""A live table of stages on a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from pvapy_stream.cli.console import FittedTable, make_console
from pvapy_stream.cli.display import Reports
from pvapy_stream.cli.live_display import LiveDisplay

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
    """A live table: a line for each consumer and one for all."""

    def __init__(self) -> None:
        self._rates = StageRates()
        self._live = LiveDisplay(make_console())

    def show(self, reports: Reports) -> None:
        self._live.update(status_table(reports, self._rates))

    def close(self) -> None:
        self._live.close()


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
