"""Stages on real status channels: names and patterns, rates, losses, latency, silence, death."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pvaccess as pva
import pytest

from pvapy_stream.errors import MonitorError, PvapyStreamError, SettingsError
from pvapy_stream.monitor.channel_names import ChannelFinder, workflow_channels
from pvapy_stream.monitor.series_reader import SeriesReader
from pvapy_stream.monitor.series_store import SeriesStore
from pvapy_stream.monitor.stages import (
    RateMeter,
    StageView,
    StageWatch,
    labels,
    last_in_chain,
)
from pvapy_stream.monitor.streams_monitor import StreamsMonitor, StreamsSettings
from pvapy_stream.settings import ChannelsSettings
from pvapy_stream.status.fields import read
from tests.monitor.fakes import Listener
from tests.monitor.test_metrics import free_port
from tests.support import Commands, Source, command, wait_for_monitors, wait_until


def finder(**values: object) -> ChannelFinder:
    return ChannelFinder(ChannelsSettings.of(**values))


def test_names_and_patterns_with_ids() -> None:
    assert finder(status_channels="a,b").find() == ["a", "b"]
    found = finder(status_channels=["x:*:s", "y"], ids="range(1,4)", id_format_spec="02d")
    assert found.find() == ["x:01:s", "x:02:s", "x:03:s", "y"]


def test_patterns_are_compared_with_what_servers_list(prefix: str) -> None:
    record = pva.PvObject({"value": pva.INT})
    servers = [pva.PvaServer(f"{prefix}s:{n}", record.copy()) for n in (10, 9)]
    servers[0].addRecord(f"{prefix}other", record.copy(), None)
    try:
        assert finder(status_channels=f"{prefix}s:*").find() == [f"{prefix}s:9", f"{prefix}s:10"]
        assert finder(status_channels=f"{prefix}none:*").find() == []
    finally:
        for server in servers:
            server.stop()


def test_a_pattern_without_ids_and_without_pvlist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    monkeypatch.setenv("PATH", "/no/such")
    with pytest.raises(SettingsError, match="needs --ids, or the program pvlist"):
        finder(status_channels="a:*")


def test_pvlist_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = finder(status_channels="a:*")
    monkeypatch.setattr(found, "_pvlist", "/no/such/pvlist")
    with pytest.raises(MonitorError, match="failed to list channels"):
        found.find()
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(subprocess.TimeoutExpired("x", 1))
    )
    with pytest.raises(MonitorError, match="timed out"):
        found.find()


WORKFLOW = """
name: test
CHANNELS
protocols:
  - {label: detector, class: Simulator}
  - {label: workers, class: Consumer, input: detector.output, n_consumers: 2}
  - {label: gather, class: Collector, input: workers.output}
"""


def test_stages_of_a_workflow_file(tmp_path: Path) -> None:
    file = tmp_path / "workflow.yaml"
    file.write_text(WORKFLOW.replace("CHANNELS", "channels: 'run:'"))
    expected = ["run:workers:status:1", "run:workers:status:2", "run:gather:status:1"]
    assert workflow_channels(str(file)) == expected
    assert finder(workflow=str(file), status_channels="d").find() == ["d", *expected]
    # Each run has a prefix of its own.
    file.write_text(WORKFLOW.replace("CHANNELS", ""))
    found = finder(workflow=str(file))
    assert found.fixed == []
    assert found.patterns[0] == "wf*:workers:status:1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read workflow"),
        ("{", "not YAML or JSON"),
        ('{"a": 1}', "has no 'a'"),
        ("[1]", "a protocol is a mapping"),
        ("protocols: [{label: a, class: Simulator}]", "has no stage with a status channel"),
        ("protocols: [{label: a, class: Moon}]", "Moon"),
    ],
)
def test_wrong_workflow_files(text: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "workflow.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(PvapyStreamError, match=message):
        workflow_channels(str(file))


def test_nothing_to_look_at() -> None:
    with pytest.raises(SettingsError, match="give --status-channel or --workflow"):
        StreamsSettings.of()


def test_rates() -> None:
    meter = RateMeter()
    assert meter.update({"a": 100}, 10.0) == {"a": 0}
    assert meter.update({"a": 130}, 12.0) == {"a": 15}
    # Too soon: the rate stays. Counts that begin anew, and clocks that go back, give none.
    assert meter.update({"a": 140}, 12.1) == {"a": 15}
    assert meter.update({"a": 5}, 14.0) == {"a": 0}
    assert meter.update({"a": 9}, 1.0) == {"a": 0}
    assert meter.update({"a": 19}, 2.0) == {"a": 10}


def test_names_and_the_end_of_a_chain() -> None:
    views = [
        StageView("s:status:1", "running", "consumer", 1, ("image",), ("part:1",)),
        StageView("s:status:2", "running", "consumer", 2, ("image",), ("part:2",)),
        StageView("c", "running", "collector", 1, ("part:1", "part:2"), ("all",)),
        StageView("w", "running", "consumer", 1, ("all",)),
        StageView("x", "absent"),
    ]
    assert labels(views) == ["s:1", "s:2", "collector 1", "w", "x"]
    assert labels(views[:3]) == ["consumer 1", "consumer 2", "collector 1"]
    assert [view.channel for view in last_in_chain(views)] == ["w", "x"]


def test_counts_of_a_collector() -> None:
    status = {
        "collectorStats": {"nRejected": 2, "nMissed": 3, "nCached": 4},
        "producerStats_1": {"receiverStats": {"nReceived": 10, "nRejected": 2, "nErrors": 1}},
        "producerStats_2": {"receiverStats": {"nReceived": 20, "nOverruns": 7}},
        "queueStats": {"nQueued": 5},
        "processorStats": {"nProcessed": 25, "nMissed": 3, "nErrors": 1},
    }
    counts = read(status).counts()
    assert counts == {
        "received": 30, "processed": 25, "filtered": 0, "skipped": 0, "duplicates": 0,
        "unknown": 0, "repaired": 0,
        "published": 0, "missed": 3, "rejected": 2, "errors": 2, "overruns": 7, "queued": 9,
    }  # fmt: skip


def test_a_consumer_that_loses_falls_silent_and_dies(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    status = f"{prefix}status:1"
    consumer = commands(
        "consumer", "-ic", source.channel, "-oc", f"{prefix}out", "-sc", status, "-cc",
        f"{prefix}control", "--status-period", "0.2", "-sqs", "500",
    )  # fmt: skip
    settings = StreamsSettings.of(
        status_channels=[status, f"{prefix}absent"], working_dir=str(tmp_path),
        sampling_interval=0.3,
        alarms=["missed_rate > 0", "silence > 1.5 s", "connected < 1 for 0.5 s"],
    )  # fmt: skip
    listener = Listener()
    monitor = StreamsMonitor(settings, SeriesStore(tmp_path / "s.sqlite"), [listener])
    wait_for_monitors([status])
    monitor.watch.start()
    assert not monitor.watch.wait_for_all(1)
    monitor.step()

    def steps_until(title: str) -> None:
        wait_until(lambda: (monitor.step(), title in listener.titles)[1], what=title)

    def view() -> StageView:
        return monitor.watch.views()[0]

    source.publish([*range(1, 11), *range(15, 20)])
    steps_until(f"ALARM: {status}: missed_rate > 0")
    seen = view()
    assert (seen.kind, seen.id, seen.state, seen.label) == ("consumer", 1, "running", "consumer 1")
    assert (seen.inputs, seen.outputs) == ((source.channel,), (f"{prefix}out",))
    assert seen.control == f"{prefix}control"
    assert seen.counts["processed"] == 15
    assert seen.counts["missed"] == 4
    assert 0 < seen.latency["p50"] <= seen.latency["p99"] < 5
    steps_until(f"OK: {status}: missed_rate > 0")
    steps_until(f"ALARM: {status}: silence > 1.5 s")
    steps_until(f"ALARM: {prefix}absent: connected < 1")
    consumer.process.kill()
    steps_until(f"ALARM: {status}: connected < 1")
    assert view().state == "gone"
    consumer = commands("consumer", "-ic", source.channel, "-sc", status, "-cc", f"{prefix}control",
                        "--status-period", "0.2")  # fmt: skip
    steps_until(f"OK: {status}: connected < 1")
    wait_until(lambda: view().state == "running")
    # An end on purpose is no alarm.
    before = len(listener.told)
    command(f"{prefix}control", "stop")
    assert consumer.wait() == 0
    wait_until(lambda: view().state == "stopped")
    monitor.step()
    assert [t for t in listener.titles[before:] if "connected" in t] == []
    monitor.watch.stop()
    monitor.end_loop()
    reader = SeriesReader(tmp_path / "s.sqlite")
    last = {s.quantity: reader.last(s.id) for s in reader.series() if s.subject == status}
    reader.close()
    assert last["connected"] == 1
    assert "latency_p99" in last


def test_a_buffer(prefix: str, commands: Commands) -> None:
    source, output = free_port(), free_port()
    commands(
        "buffer", f"tcp://127.0.0.1:{source}", "-o", output, "--range-port", 0, "--no-rest",
        "--status-channel", f"{prefix}buffer",
    )  # fmt: skip
    watch = StageWatch(finder(status_channels=f"{prefix}buffer"))
    watch.start()
    try:
        assert watch.wait_for_all(20)
        (view,) = watch.views()
        assert (view.label, view.state) == ("buffer 1", "waiting")
        assert view.inputs == (f"tcp://127.0.0.1:{source}",)
        assert view.counts["received"] == view.counts["missed"] == 0
        assert view.outputs[1].endswith(str(output))
    finally:
        watch.stop()


def test_counts_of_a_stage_are_those_of_all_its_processes(prefix: str) -> None:
    name = f"{prefix}s"
    kind = {
        "consumerId": pva.UINT, "restarts": pva.UINT, "processorStats": {"nProcessed": pva.ULONG},
    }  # fmt: skip

    def status(restarts: int, processed: int) -> Any:
        values = {"restarts": restarts, "processorStats": {"nProcessed": processed}}
        return pva.PvObject(kind, values)

    server = pva.PvaServer(name, status(0, 5))
    watch = StageWatch(finder(status_channels=name))
    watch.start()

    def counted() -> tuple[int, float]:
        (view,) = watch.views()
        return view.restarts, view.counts.get("processed", 0)

    try:
        wait_until(lambda: counted() == (0, 5))
        for restarts, processed, total in ((1, 2, 7), (1, 3, 8), (2, 1, 9)):
            server.update(name, status(restarts, processed))
            wait_until(lambda r=restarts, t=total: counted() == (r, t))
    finally:
        watch.stop()
        server.stop()


def test_stages_that_start_later_are_found(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvapy_stream.monitor.stages._FIND_AGAIN", 0.2)
    watch = StageWatch(finder(status_channels=f"{prefix}s:*"))
    watch.start()
    assert watch.views() == []
    kind = {
        "consumerId": pva.UINT,
        "state": pva.STRING,
        "processorStats": {"nProcessed": pva.ULONG},
    }
    server = pva.PvaServer(
        f"{prefix}s:7",
        pva.PvObject(
            kind, {"consumerId": 7, "state": "failed", "processorStats": {"nProcessed": 3}}
        ),
    )
    try:
        view = wait_until(lambda: [v for v in watch.views() if v.state != "absent"])[0]
        assert (view.label, view.state, view.counts["processed"]) == ("consumer 7", "failed", 3)
    finally:
        watch.stop()
        server.stop()
