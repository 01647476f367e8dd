"""All forms of a snapshot agree: channel, metrics, JSON and terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pvaccess as pva
import pytest
from msgspec import Struct
from msgspec.structs import replace

from pvapy_stream.cli.console import make_console
from pvapy_stream.cli.display import stats_lines
from pvapy_stream.cli.live_table import StageRates, status_table
from pvapy_stream.cli.top import stage_table
from pvapy_stream.daq.buffer_status import BufferStatus
from pvapy_stream.daq.progress import Progress
from pvapy_stream.daq.writer_status import writer_snapshot
from pvapy_stream.hpc.reports import total_report
from pvapy_stream.hpc.service import StageReport
from pvapy_stream.monitor.stages import StageView
from pvapy_stream.monitor.statuses import COUNTS
from pvapy_stream.settings import SimulatorSettings
from pvapy_stream.sim.sim_server import SimServer
from pvapy_stream.sim.source_server import SimulatorStatus
from pvapy_stream.status.channel import structure
from pvapy_stream.status.counted import pool_stats
from pvapy_stream.status.fields import read, values
from pvapy_stream.status.metrics import MetricsCollector, metrics
from pvapy_stream.status.snapshot import (
    KINDS,
    CollectorStats,
    LatencyStats,
    MetadataStats,
    PoolStats,
    ProcessorStats,
    ProducerStats,
    PublisherStats,
    QueueStats,
    ReceiverStats,
    Snapshot,
    own_of,
)
from pvapy_stream.transport.ports import PublisherCounts

# Structures as users have read them since the channels exist: names, order and types.
KNOWN: dict[str, list[Any]] = json.loads((Path(__file__).parent / "structures.json").read_text())


def kind_of(group: Any, name: str) -> str:
    """The type of a field, as it is written."""
    return type(group).__annotations__[name].removeprefix("Annotated[").split(",")[0]


def numbered(group: Any, first: int) -> Any:
    """A group whose numbers are all different."""
    numbers = {
        name: (first + place if kind_of(group, name) != "float" else first + place + 0.5)
        for place, name in enumerate(group.__struct_fields__)
        if kind_of(group, name) in ("int", "float", "Id", "Number")
    }
    return replace(group, **numbered_groups(group), **numbers)


def numbered_groups(group: Any) -> dict[str, Any]:
    return {
        name: numbered(getattr(group, name), 900)
        for name in group.__struct_fields__
        if kind_of(group, name).endswith("Stats")
    }


BUFFER = numbered(
    BufferStatus(
        "receiving", "tcp://a:1", "tcp://b:2", "tcp://b:3", *[0] * 20, silent=0.25, oldest=5,
        newest=9, last_error="odd",
    ),
    400,
)  # fmt: skip
GROUPS: dict[str, Any] = {
    "publisher_stats": numbered(PublisherStats(), 100),
    "queue_stats": numbered(QueueStats(), 200),
    "processor_stats": numbered(ProcessorStats(), 300),
    "latency_stats": numbered(LatencyStats(), 500),
}
SNAPSHOTS = {
    "consumer": Snapshot(
        "consumer", 3, "in", "running", 2, "odd", 77, 1.5, "a,b", "ctl",
        receiver_stats=numbered(ReceiverStats(), 600),
        metadata_stats={1: numbered(MetadataStats(channel="m", state="waiting"), 700)},
        user_stats={"u": 5}, user_types={"u": pva.INT}, **GROUPS,
    ),
    "collector": Snapshot(
        "collector", 1, "in*", "paused", collector_stats=numbered(CollectorStats(), 600),
        producer_stats={1: numbered(ProducerStats(channel="p"), 700)},
        metadata_stats={1: MetadataStats()}, **GROUPS,
    ),
    "buffer": BUFFER.snapshot(),
    "writer": writer_snapshot(
        "tcp://a:1", [Progress(1, "writing", "writing", rows=5, n_lost=2, lag=0.5, skipped=3)]
    ),
    "mirror": Snapshot(
        "mirror", 2, "src", "waiting", receiver_stats=numbered(ReceiverStats(), 600),
        labels={"channel": "m", "source": "src"}, **GROUPS,
    ),
    "simulator": Snapshot(
        "simulator", state="running", own=SimulatorStatus(9, 4, 1),
        receiver_stats=ReceiverStats(), labels={"channel": "img"}, **GROUPS,
    ),
}  # fmt: skip


def on_channel(snapshot: Snapshot) -> dict[str, Any]:
    """What a client of the channel gets."""
    obj = pva.PvObject(structure(snapshot))
    obj.set({n: v for n, v in values(snapshot).items() if n != "objectTimestamp"})
    return obj.toDict()


def described(kinds: dict[str, Any]) -> list[Any]:
    return [
        [name, described(kind)]
        if isinstance(kind, dict)
        else [name, type(kind).__name__ if isinstance(kind, pva.PvObject) else kind.name]
        for name, kind in kinds.items()
    ]


def samples(snapshot: Snapshot, *prefixes: str) -> dict[str, float]:
    """What Prometheus reads, by name; the states apart."""
    collector = MetricsCollector(lambda: [snapshot], *([prefixes] if prefixes else []))
    return {
        sample.name: sample.value
        for family in collector.collect()
        for sample in family.samples
        if "state" not in sample.labels
    }


def test_all_kinds_are_looked_at() -> None:
    assert tuple(SNAPSHOTS) == KINDS


@pytest.mark.parametrize("kind", KNOWN)
def test_fields_have_the_names_the_order_and_the_types_they_always_had(kind: str) -> None:
    assert described(structure(SNAPSHOTS[kind])) == KNOWN[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_all_forms_agree(kind: str) -> None:
    snapshot = SNAPSHOTS[kind]
    counts = snapshot.counts()
    # The channel, and back.
    seen = read(on_channel(snapshot))
    same = {*Snapshot.__struct_fields__} - {"own", "labels", "user_types"}
    for name in same:
        assert getattr(seen, name) == getattr(snapshot, name), name
    assert seen.counts() == counts
    # JSON.
    view = StageView(
        "c", seen.state, seen.kind, seen.id, restarts=seen.restarts, counts=seen.counts()
    )
    plain = json.loads(msgspec.json.encode(view.to_dict()))
    assert {name: plain["counts"][name] for name in COUNTS} == {n: counts[n] for n in COUNTS}
    assert (plain["state"], plain["kind"], plain["id"]) == (snapshot.state, kind, snapshot.id)
    assert plain["restarts"] == snapshot.restarts
    # The terminal.
    cells = {str(cell) for column in stage_table([view]).columns for cell in column.cells}
    assert {f"{counts[name]:.0f}" for name in COUNTS if counts[name]} <= cells
    assert snapshot.state in cells
    out = io.StringIO()
    report = StageReport(snapshot, [])
    make_console(file=out, width=300).print(status_table({1: report}, StageRates()))
    for name in ("received", "processed", "published", "missed", "rejected", "errors"):
        assert f"{counts[name]:.0f}" in out.getvalue(), name
    if snapshot.started:
        lines = "\n".join(stats_lines({1: report}, ["all"]))
        assert f"nProcessed {snapshot.processor_stats.n_processed} " in lines
        assert f"p99 {snapshot.latency_stats.p99:.4f}" in lines or "latency" not in lines
    # Metrics.
    found = samples(snapshot)
    assert all(name.startswith("pvapy_stream_") for name in found)
    if kind in ("consumer", "collector", "mirror"):
        prefix = f"pvapy_stream_{'mirror' if kind == 'mirror' else 'stage'}_"
        for name in COUNTS:
            stem = {"duplicates": "duplicate", "errors": ""}.get(name, name)
            metric = f"{prefix}{stem}_objects" if stem else f"{prefix}errors"
            assert found[metric if name == "queued" else f"{metric}_total"] == counts[name], name
        assert found[f"{prefix}restarts_total"] == snapshot.restarts
    own = on_channel(snapshot)
    for field, one in own_of(type(snapshot.own)).items() if snapshot.own is not None else ():
        if one.metric and one.channel:
            name = f"pvapy_stream_{kind}_{one.metric}"
            shown = found.get(f"{name}_total", found.get(name))
            first, *rest = field.split("_")
            assert shown == own[first + "".join(map(str.capitalize, rest))], field


def test_a_buffer_keeps_the_names_of_its_metrics_and_gets_the_one_prefix_too() -> None:
    found = samples(BUFFER.snapshot(), "pvapy_", "pvapy_stream_")
    old = {name for name in found if not name.startswith("pvapy_stream_")}
    assert {name.replace("pvapy_", "pvapy_stream_", 1) for name in old} | old == set(found)
    assert {"pvapy_buffer_received_total", "pvapy_buffer_fill", "pvapy_buffer_silent"} <= old
    assert len(old) == 19
    # What is not known is not shown.
    assert "pvapy_stream_buffer_oldest" not in samples(replace(BUFFER, oldest=None).snapshot())


def test_what_is_not_there_shows_as_minus_one() -> None:
    shown = on_channel(replace(BUFFER, oldest=None, silent=None).snapshot())
    assert (shown["oldest"], shown["silent"]) == (-1, -1)


def test_the_incumbents_statuses_are_read() -> None:
    found = read({"consumerId": 4, "processorStats": {"nProcessed": 7, "unheardOf": 1}})
    assert (found.kind, found.id, found.state) == ("consumer", 4, "running")
    assert found.counts()["processed"] == 7
    assert read({"value": 1}).kind == ""


def test_restarts_add_up() -> None:
    first, again = SNAPSHOTS["consumer"], replace(SNAPSHOTS["consumer"], object_id=99)
    total = total_report(StageReport(first, []), StageReport(again, [])).snapshot
    assert total.processor_stats.n_processed == 2 * first.processor_stats.n_processed
    assert total.queue_stats.n_rejected == 2 * first.queue_stats.n_rejected
    # Of the moment.
    assert total.queue_stats.n_queued == first.queue_stats.n_queued
    assert total.latency_stats == first.latency_stats
    assert (total.object_id, total.user_stats) == (99, {"u": 5})
    metadata = total.metadata_stats[1]
    assert metadata.coverage == metadata.n_with / (metadata.n_with + metadata.n_without)
    lost = StageReport(Snapshot("consumer", 3, state="failed"), [], "why", True)
    assert total_report(StageReport(first, []), lost).snapshot == replace(first, state="failed")


def test_copies_for_want_of_a_slot_are_in_all_forms() -> None:
    counts = PublisherCounts(9, copies={"no_slot": 5, "no_memory": 6, "subscriber": 7})
    pools = pool_stats(counts, "held by all")
    assert pools is not None
    snapshot = replace(SNAPSHOTS["consumer"], pool_stats=pools)
    assert on_channel(snapshot)["poolStats"] == {
        "nCopiedNoSlot": 5, "nCopiedNoMemory": 6, "nCopiedSubscriber": 7, "problem": "held by all",
    }  # fmt: skip
    assert read(on_channel(snapshot)).pool_stats == pools
    copied = {
        metric.labels["reason"]: metric.value
        for metric in metrics(snapshot)
        if metric.name == "stage_copied_objects"
    }
    assert copied == counts.copies
    lines = "\n".join(stats_lines({1: StageReport(snapshot, [])}, ["publisher"]))
    assert "nCopiedNoSlot 5" in lines
    total = total_report(StageReport(snapshot, []), StageReport(snapshot, [])).snapshot
    assert total.pool_stats == PoolStats(10, 12, 14, "held by all")
    # After statistics were reset; and of an output without pools.
    base = PublisherCounts(3, copies={"no_slot": 4})
    assert counts.since(base).copies == {"no_slot": 1, "no_memory": 6, "subscriber": 7}
    assert pool_stats(PublisherCounts(9), "") is None


@pytest.mark.parametrize(
    ("mode", "found"), [("shm", PoolStats()), ("both", PoolStats()), ("pva", None)]
)
def test_a_simulator_in_shared_memory_has_them_from_its_start(mode: str, found: Any) -> None:
    made = SimServer(SimulatorSettings.of(channel_name="c", output_mode=mode))
    assert made.snapshot().pool_stats == found


def test_a_new_kind_of_program_needs_only_its_fields() -> None:
    class Nothing(Struct, frozen=True):
        plain: int = 3

    snapshot = Snapshot("simulator", own=Nothing())
    assert on_channel(snapshot)["plain"] == 3
    assert list(metrics(snapshot)) == []
