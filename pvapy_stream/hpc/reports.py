"""Reports of a stage over all its incarnations."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from pvapy_stream.hpc.service import StageReport
from pvapy_stream.status.counted import rate, rated
from pvapy_stream.status.snapshot import MetadataStats, ProcessorStats, Snapshot

# What is of the moment: it does not add up.
_NOW = frozenset({"n_queued", "n_cached", "nQueued", "nCached"})
_FIRST = ("start_time", "first_object_time", "first_object_id")


def total_report(past: StageReport | None, now: StageReport) -> StageReport:
    """A report whose counts are those of all incarnations.

    Args:
        past: the total of those before.
        now: of the present one, or its last.
    """
    if past is None or not past.snapshot.started:
        return now
    before, present = past.snapshot, now.snapshot
    if not present.started:
        return replace(now, snapshot=replace(before, state=present.state))
    total: Snapshot = _sum(before, present)
    processor = _with_times(before.processor_stats, total.processor_stats)
    return replace(now, snapshot=replace(total, processor_stats=processor))


def _sum(past: Any, now: Any) -> Any:
    """The counts of both, in groups and in dictionaries of groups; all else is that of now."""
    if isinstance(now, dict) and isinstance(past, dict):
        return {name: _one_sum(name, past.get(name), value) for name, value in now.items()}
    if not isinstance(now, Struct) or type(past) is not type(now):
        return now
    values = {
        name: _one_sum(name, getattr(past, name), getattr(now, name))
        for name in now.__struct_fields__
    }
    total = type(now)(**values)
    if isinstance(total, MetadataStats):
        return replace(total, coverage=rate(total.n_with, total.n_with + total.n_without))
    return total


def _one_sum(name: Any, past: Any, now: Any) -> object:
    if isinstance(now, (dict, Struct)):
        return _sum(past, now)
    text = str(name)
    counts = text[:1] == "n" and (text[1:2] == "_" or text[1:2].isupper())
    return now + (past or 0) if counts and name not in _NOW else now


def _with_times(past: ProcessorStats, total: ProcessorStats) -> ProcessorStats:
    """The processor's times over all incarnations; its rates are over the time it received."""
    times: dict[str, object] = {name: getattr(past, name) for name in _FIRST if getattr(past, name)}
    if not total.last_object_time:
        times["last_object_time"] = past.last_object_time
        times["last_object_id"] = past.last_object_id
    total = replace(total, **times)
    seconds = max(0.0, total.last_object_time - total.first_object_time)
    return rated(replace(total, receiving_time=seconds), seconds)
