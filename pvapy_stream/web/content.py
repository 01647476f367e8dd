"""What a report shows: stages, series, histograms, images, alarms."""

from __future__ import annotations

import base64
import itertools
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pvapy_stream import __version__
from pvapy_stream.monitor.channel_names import natural
from pvapy_stream.monitor.series_reader import Points, SeriesInfo, SeriesReader
from pvapy_stream.monitor.stages import StageView, labels, last_in_chain, lost_once
from pvapy_stream.monitor.statuses import COUNTS, LOSSES, shown_counts

# What is charted of each kind of monitor, and in which order; of other kinds, all.
_CHARTS: dict[str, tuple[str, ...]] = {
    "streams": (
        "processed_rate", "queued", "latency_p90", "missed", "rejected", "errors",
    ),
    "system": ("cpu", "memory", "gpu", "gpu_memory"),
    "disk": ("free", "full_in"),
    "image": ("mean", "max", "saturated"),
}  # fmt: skip
# Charts of these are left out while all is 0.
_ONLY_IF_ANY = frozenset({"missed", "rejected", "errors", "saturated", "queued"})
_HISTOGRAMS: dict[str, tuple[str, ...]] = {
    "streams": ("latency_p90",), "system": (), "disk": (), "image": ("mean",),
}  # fmt: skip
_METERS = (
    "cpu", "memory", "swap", "load", "network_in", "network_out", "disk_read", "disk_write",
    "gpu", "gpu_memory", "gpu_temperature",
)  # fmt: skip
_TITLES = {
    "cpu": "CPU", "gpu": "GPU", "processed_rate": "Processing rate", "latency_p90": "Latency, 90 %",
    "full_in": "Full in",
}  # fmt: skip
_SERIES_IN_A_CHART = 8
_BINS = 30
_SUBJECTS_APART = 4  # with histograms of their own
_EVENTS = 30
_AUDIT_KEYS = (
    "ok", "published", "processed", "filtered", "failures", "drops", "notes", "restarts",
)  # fmt: skip


def title_of(quantity: str) -> str:
    """A quantity as people say it."""
    return _TITLES.get(quantity, quantity.replace("_", " ").capitalize())


def gather(
    stages: Sequence[StageView],
    readers: Iterable[SeriesReader],
    span: float,
    own: SeriesReader | None = None,
    points: int = 400,
) -> dict[str, Any]:
    """All that a report shows, by the names that templates use.

    Args:
        stages: the stages now.
        readers: files with series, read one after the other.
        span: s of the past that are shown.
        own: the one of them whose monitors belong to the report itself, and are not listed.
        points: most points of a line.

    Raises:
        MonitorError: a file cannot be read.
    """
    now = time.time()
    content: dict[str, Any] = {
        "now": now, "host": platform.node(), "version": __version__, "notes": [],
        "stages": [
            {**_stage(view), "label": label}
            for view, label in zip(stages, labels(stages), strict=True)
        ],
        "columns": [
            {"name": name, "loss": name in LOSSES}
            for name in shown_counts(view.counts for view in stages)
        ],
        "totals": totals(stages), "audits": [],
        "charts": [], "histograms": [], "images": [], "active": [], "events": [],
        "monitors": [], "system": [],
    }  # fmt: skip
    for reader in readers:
        _read(reader, content, now - span, now, points)
        if reader is not own:
            content["monitors"] += _monitors(reader)
    content["events"].sort(key=lambda event: -event.time)
    return content


def _stage(view: StageView) -> dict[str, Any]:
    plain = view.to_dict()
    plain["counts"] = plain["counts"] or dict.fromkeys(COUNTS, 0)
    plain["rates"] = plain["rates"] or {"processed": 0.0}
    plain["latency"] = plain["latency"] or {"p90": None}
    return plain


def totals(stages: Sequence[StageView]) -> dict[str, Any]:
    """What all stages did together."""
    last = last_in_chain(stages)
    latencies = [view.latency["p90"] for view in stages if view.latency]
    return {
        **{
            name: sum(view.counts.get(name, 0) for view in stages)
            for name in ("filtered", "unknown", "rejected", "errors")
        },
        "missed": lost_once(stages),
        "restarts": sum(view.restarts for view in stages),
        # An object is counted once, at the end of the chain.
        "processed": sum(view.counts.get("processed", 0) for view in last),
        "rate": sum(view.rates.get("processed", 0) for view in last),
        "latency": max(latencies, default=None),
    }


def _read(
    reader: SeriesReader, content: dict[str, Any], start: float, end: float, points: int
) -> None:
    kinds = {name: kind for name, kind, *_ in reader.monitors()}
    groups: dict[tuple[str, str], list[SeriesInfo]] = {}
    for info in reader.series():
        if info.last >= start:
            groups.setdefault((info.monitor, info.quantity), []).append(info)
    for infos in groups.values():
        infos.sort(key=lambda info: natural(info.subject))
    for (monitor, quantity), infos in sorted(
        groups.items(), key=lambda item: _order(kinds, *item[0])
    ):
        kind = kinds.get(monitor, "")
        if quantity in _CHARTS.get(kind, (quantity,)):
            _add_charts(reader, content, infos, start, end, points)
        if quantity in _HISTOGRAMS.get(kind, (quantity,)):
            # Many subjects share one.
            parts = [infos] if len(infos) > _SUBJECTS_APART else [[info] for info in infos]
            content["histograms"] += [
                made for part in parts if (made := _histogram(reader, part, start, end))
            ]
    content["system"] += _meters(reader, groups, kinds)
    content["images"] += [
        {
            "subject": subject, "time": when, "caption": caption,
            "source": f"data:image/png;base64,{base64.b64encode(png).decode()}",
        }
        for _, subject, when, caption, png in reader.images()
    ]  # fmt: skip
    content["active"] += reader.active()
    content["events"] += reader.events(start, _EVENTS)


def _monitors(reader: SeriesReader) -> list[dict[str, Any]]:
    return [
        {"name": name, "kind": kind, "state": state, "started": started, "updated": updated}
        for name, kind, state, started, updated in reader.monitors()
    ]


def _order(kinds: dict[str, str], monitor: str, quantity: str) -> tuple[int, str, int, str]:
    kind = kinds.get(monitor, "")
    charts = _CHARTS.get(kind, ())
    place = charts.index(quantity) if quantity in charts else len(charts)
    return (list(_CHARTS).index(kind) if kind in _CHARTS else -1, monitor, place, quantity)


def _add_charts(
    reader: SeriesReader,
    content: dict[str, Any],
    infos: Sequence[SeriesInfo],
    start: float,
    end: float,
    points: int,
) -> None:
    begin = max(start, min(info.first for info in infos))
    finish = min(end, max(info.last for info in infos))
    read = [(info, reader.read(info.id, begin, finish, points)) for info in infos]
    read = [(info, found) for info, found in read if _shows(info, found)]
    names = short([info.subject for info, _ in read])
    lines = [_line(name, found) for name, (_, found) in zip(names, read, strict=True)]
    quantity, unit = infos[0].quantity, infos[0].unit
    for n in range(0, len(lines), _SERIES_IN_A_CHART):
        title = title_of(quantity) + (", continued" if n else "")
        content["charts"].append(
            {"title": title, "unit": unit, "series": lines[n : n + _SERIES_IN_A_CHART]}
        )


def _shows(info: SeriesInfo, found: Points) -> bool:
    values = [value for value in found.high if value is not None]
    # One point is no line.
    return len(values) > 1 and (info.quantity not in _ONLY_IF_ANY or any(values))


def _line(name: str, found: Points) -> dict[str, Any]:
    line = {"label": name, "times": found.times, "mean": found.mean}
    if found.low is not found.mean:
        line |= {"low": found.low, "high": found.high}
    return line


def short(names: Sequence[str]) -> list[str]:
    """Names without what all of them begin with."""
    if len(names) < 2:
        return list(names)
    first, last = min(names), max(names)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    common = first[: sum(1 for _ in same)]
    # Numbers and words stay whole.
    while common and common[-1].isalnum():
        common = common[:-1]
    return [name[len(common) :] or name for name in names]


def _histogram(
    reader: SeriesReader, infos: Sequence[SeriesInfo], start: float, end: float
) -> dict[str, Any] | None:
    edges, counts = reader.histogram([info.id for info in infos], start, end, _BINS)
    if not counts or len(edges) < 2 or sum(counts) < 2:
        return None
    most = max(counts)
    whose = infos[0].subject if len(infos) == 1 else f"all {len(infos)}"
    return {
        "title": f"{title_of(infos[0].quantity)}: {whose}", "unit": infos[0].unit,
        "low": edges[0], "high": edges[-1], "n": sum(counts),
        "bars": [
            {"height": round(100 * n / most, 1), "low": edges[k], "high": edges[k + 1], "count": n}
            for k, n in enumerate(counts)
        ],
    }  # fmt: skip


def _meters(
    reader: SeriesReader, groups: dict[tuple[str, str], list[SeriesInfo]], kinds: dict[str, str]
) -> list[dict[str, Any]]:
    hosts: dict[str, list[dict[str, object]]] = {}
    for quantity in _METERS:
        for (monitor, name), infos in groups.items():
            if name != quantity or kinds.get(monitor) != "system":
                continue
            for info in infos:
                value = reader.last(info.id)
                percent = min(100.0, value) if info.unit == "%" and value is not None else None
                hosts.setdefault(info.subject, []).append(
                    {"name": title_of(quantity), "value": value, "unit": info.unit,
                     "percent": percent}
                )  # fmt: skip
    return [{"name": name, "meters": meters} for name, meters in hosts.items()]


def read_audits(file: Path, since: float) -> list[dict[str, Any]]:
    """How a run was audited, for each group of connected stages; [] while it is not known.

    Args:
        file: audit.json of the run.
        since: a file that is older is of another run; s since 1970.
    """
    try:
        if file.stat().st_mtime < since:
            return []
        found = msgspec.json.decode(file.read_bytes())
        return [{key: one[key] for key in _AUDIT_KEYS} for one in found]
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return []
