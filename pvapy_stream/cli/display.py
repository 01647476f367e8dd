"""What a command shows while it runs, and at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pvapy_stream.status.counted import rate
from pvapy_stream.status.fields import values
from pvapy_stream.status.snapshot import Snapshot

if TYPE_CHECKING:
    from pvapy_stream.hpc.service import StageReport

Reports = Mapping[int, "StageReport"]

_GROUPS = ("receiver", "publisher", "queue", "metadata", "processor", "user")


class StageDisplay(Protocol):
    """Shows reports as they come."""

    def show(self, reports: Reports) -> None: ...

    def close(self) -> None: ...


class PlainLines:
    """One line a stage, every report period."""

    def __init__(self, period: float, kinds: Sequence[str]) -> None:
        self._period = period
        self._kinds = kinds
        self._next = time.monotonic() + period

    def show(self, reports: Reports) -> None:
        now = time.monotonic()
        if self._period <= 0 or now < self._next:
            return
        self._next = now + self._period
        show_lines(stats_lines(reports, self._kinds))

    def close(self) -> None:
        pass


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
    if kind == "processor":
        found["batches"] = stats.get("batchStats", {})
    if kind == "publisher":
        found["pools"] = stats.get("poolStats", {})
    return {name: group for name, group in found.items() if group}


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


def show_lines(lines: Sequence[str]) -> None:
    """Write lines to standard output."""
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


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
