"""Reports of a stage over all its incarnations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pvapy_stream.hpc.service import StageReport
from pvapy_stream.hpc.status import Stats, rate

# What is of the moment: it does not add up.
_NOW = frozenset({"nQueued", "nCached"})
_FIRST = ("startTime", "firstObjectTime", "firstObjectId")
# Rates of the processor are over the time in which it received.
_RATES = {"processedRate": "nProcessed", "errorRate": "nErrors", "missedRate": "nMissed"}


def total_report(past: StageReport | None, now: StageReport) -> StageReport:
    """A report whose counts are those of all incarnations.

    Args:
        past: the total of those before.
        now: of the present one, or its last.
    """
    if past is None or not past.stats:
        return now
    if not now.stats:
        return replace(now, stats=past.stats)
    return replace(now, stats=_sum(past.stats, now.stats))


def _sum(past: Stats, now: Stats) -> Stats:
    total: Stats = dict(now)
    for name, values in now.items():
        if name.endswith("Stats") or name.startswith(("producerStats_", "metadataStats_")):
            before = past.get(name)
            if isinstance(values, dict) and isinstance(before, dict) and name != "latencyStats":
                total[name] = _sum_of_group(before, values)
    processor = total.get("processorStats")
    if processor:
        _join_times(past.get("processorStats", {}), processor)
    return total


def _sum_of_group(past: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    total = dict(now)
    for name, value in now.items():
        before = past.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            total[name] = _sum_of_group(before, value)
        elif name in _NOW or isinstance(value, dict):
            continue
        elif name[:1] == "n" and name[1:2].isupper():
            total[name] = value + (past.get(name) or 0)
    if "coverage" in total:
        total["coverage"] = rate(total["nWith"], total["nWith"] + total["nWithout"])
    return total


def _join_times(past: dict[str, Any], total: dict[str, Any]) -> None:
    for name in _FIRST:
        if past.get(name):
            total[name] = past[name]
    if not total.get("lastObjectTime"):
        total["lastObjectTime"] = past.get("lastObjectTime", 0.0)
        total["lastObjectId"] = past.get("lastObjectId", 0)
    seconds = max(0.0, total.get("lastObjectTime", 0.0) - total.get("firstObjectTime", 0.0))
    total["receivingTime"] = seconds
    for name, count in _RATES.items():
        if name in total:
            total[name] = rate(total.get(count, 0), seconds)
