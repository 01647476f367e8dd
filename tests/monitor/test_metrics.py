"""/metrics of running programs, read with Prometheus' own parser."""

from __future__ import annotations

import socket
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pvapy_stream.daq.progress import Progress
from pvapy_stream.daq.writer_status import writer_snapshot
from pvapy_stream.errors import MissingExtraError, MonitorError
from pvapy_stream.settings import MetricsSettings
from pvapy_stream.status.metrics import Metric, metrics, served
from tests.in_process import call
from tests.ports import free_port
from tests.support import Commands, Source, wait_for_monitors, wait_until


def scrape(port: int) -> dict[str, Any]:
    """Families by name; {} when nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    families = {family.name: family for family in text_string_to_metric_families(text)}
    check(families)
    return families


def check(families: dict[str, Any]) -> None:
    """What promtool checks: helps, names, units, counters, labels."""
    for name, family in families.items():
        if not name.startswith("pvapy_stream_"):
            continue
        assert family.documentation
        assert name == name.lower()
        assert not name.endswith(("_total", "_count", "_sum", "_milliseconds", "_ms", "_percent"))
        seen = set()
        for sample in family.samples:
            if family.type == "counter":
                assert sample.name == f"{name}_total"
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in seen
            seen.add(key)
            assert all(label == label.lower() for label in sample.labels)


def value(families: dict[str, Any], name: str, **labels: str) -> float:
    family = families[f"pvapy_stream_{name}"]
    (sample,) = (s for s in family.samples if s.labels.items() >= labels.items())
    return sample.value


def test_a_chain_of_simulator_mirror_and_consumers(prefix: str, commands: Commands) -> None:
    ports = [free_port() for _ in range(3)]
    image, mirrored = f"{prefix}image", f"{prefix}mirror"
    where = ("--metrics-port",)
    commands("mirror", "-cm", f"({mirrored},{image},pva,100)", *where, ports[0])
    commands(
        "consumer", "-ic", mirrored, "-nc", "2", "-dg", "g", "-dt", "uniqueId", "-sqs", "100",
        "-sc", f"{prefix}status:*", "--status-period", "0.2", *where, ports[1],
    )  # fmt: skip
    commands(
        "sim", "-cn", image, "-nx", "8", "-ny", "8", "-fps", "300", "-rp", "0", "-nf", "10",
        "-dc", "--wait-for-stages", f"{prefix}status:1,{prefix}status:2", "-rt", "60", *where,
        ports[2],
    )  # fmt: skip
    wait_for_monitors([f"{prefix}status:1", f"{prefix}status:2"], updates=100)
    consumers = wait_until(
        lambda: (f := scrape(ports[1])) and "pvapy_stream_stage_latency_seconds" in f and f
    )
    for stage in ("1", "2"):
        labels = {"kind": "consumer", "stage": stage}
        assert value(consumers, "stage_processed_objects", **labels, channel=mirrored) >= 99
        assert value(consumers, "stage_missed_objects", **labels) == 0
        assert value(consumers, "stage_state", **labels, state="running") == 1
        assert value(consumers, "stage_state", **labels, state="failed") == 0
        assert 0 < value(consumers, "stage_latency_seconds", **labels, quantile="0.99") < 10
    mirror, sim = scrape(ports[0]), scrape(ports[2])
    assert value(mirror, "mirror_published_objects", channel=mirrored, source=image) > 100
    assert value(sim, "simulator_published_frames", channel=image) > 100
    assert mirror["pvapy_stream_mirror_errors"].type == "counter"
    assert "process_cpu_seconds" in sim
    before = value(sim, "simulator_published_frames")
    wait_until(lambda: value(scrape(ports[2]), "simulator_published_frames") > before)


def test_a_collector_and_a_writer(
    prefix: str, source: Source, commands: Commands, tmp_path: Any
) -> None:
    ports = [free_port(), free_port()]
    where = ("--metrics-port",)
    commands(
        "collector", "-ic", f"{prefix}*", "-pid", "1", "-sc", f"{prefix}status", *where, ports[0]
    )
    commands(
        "write", "-ic", source.channel, "-o", tmp_path / "a.h5", "-sc", f"{prefix}w", "-sqs", "100",
        *where,
        ports[1],
    )  # fmt: skip
    wait_until(
        lambda: value(scrape(ports[0]), "stage_state", kind="collector", state="waiting") == 1
    )
    wait_for_monitors([f"{prefix}w"])
    source.publish(range(1, 6))
    wait_until(lambda: value(scrape(ports[1]), "stage_processed_objects", kind="consumer") == 5)


def test_a_bsread_writer(commands: Commands, tmp_path: Any) -> None:
    source, rest, port = free_port(), free_port(), free_port()
    commands(
        "writer", f"tcp://127.0.0.1:{source}", tmp_path / "a.h5", "-1", rest,
        "--metrics-address", "127.0.0.1", "--metrics-port", port,
    )  # fmt: skip
    families = wait_until(lambda: scrape(port))
    stream = f"tcp://127.0.0.1:{source}"
    assert value(families, "writer_written_messages", stream=stream) == 0
    assert value(families, "writer_failed_acquisitions", stream=stream) == 0


def test_metrics_of_acquisitions() -> None:
    done = Progress(1, "done", "stopped", rows=10, n_bytes=1000, n_lost=2, lag=0.5)
    now = Progress(2, "writing", "writing", rows=5, n_bytes=500, late=1, lag=0.25)
    found = {m.name: m.value for m in metrics(writer_snapshot("tcp://x", [done, now]))}
    assert found == {
        "writer_written_messages": 15, "writer_written_bytes": 1500, "writer_lost_pulses": 2,
        "writer_late_pulses": 1, "writer_duplicate_pulses": 0, "writer_malformed_messages": 0,
        "writer_failed_acquisitions": 0, "writer_acquisitions": 1, "writer_lag_seconds": 0.25,
    }  # fmt: skip


def test_without_a_port_nothing_is_served() -> None:
    with served(MetricsSettings.of(), lambda: []) as address:
        assert address == ""


def test_a_port_that_is_taken(prefix: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = MetricsSettings.of(metrics_port=port, metrics_address="127.0.0.1")
        with pytest.raises(MonitorError, match="choose another with --metrics-port"):
            with served(settings, lambda: []):
                pass
        done = call("sim", "-cn", f"{prefix}x", "--metrics-address", "127.0.0.1",
                    "--metrics-port", port)  # fmt: skip
        assert done.code == 1
        assert "cannot serve metrics" in done.text


def test_without_the_client_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r"pvapy-stream\[web\]"):
        with served(MetricsSettings.of(metrics_port=0), lambda: []):
            pass


def test_ten_thousand_metrics_are_told_quickly() -> None:
    many = [Metric("x_seconds", "X.", "gauge", float("nan"), {"n": str(n)}) for n in range(10_000)]
    settings = MetricsSettings.of(metrics_port=0, metrics_address="127.0.0.1")
    with served(settings, lambda: many) as address:
        started = time.process_time()
        assert len(
            scrape(int(address.split(":")[2].split("/")[0]))["pvapy_stream_x_seconds"].samples
        )
        assert time.process_time() - started < 5


def test_metrics_are_for_this_machine_and_our_names_alone() -> None:
    assert MetricsSettings.of().metrics_address == "127.0.0.1"
    settings = MetricsSettings.of(metrics_port=0, allow_host="lab.example")
    with served(settings, lambda: []) as address:
        for host, status in (("evil.example", 403), ("lab.example", 200), ("127.0.0.1", 200)):
            assert _status(address, host) == status
        port = int(address.split(":")[2].partition("/")[0])
        listening = [
            c.laddr.ip
            for c in psutil.Process().net_connections("tcp")
            if c.status == psutil.CONN_LISTEN and c.laddr.port == port
        ]
        assert listening == ["127.0.0.1"]


def _status(address: str, host: str) -> int:
    request = urllib.request.Request(address, headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
