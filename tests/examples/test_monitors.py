"""The monitors, alert rules and dashboards under examples/."""

from __future__ import annotations

import json
import math
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pvapy_stream.monitor.run import read_monitors
from pvapy_stream.monitor.table_monitor import TableMonitor
from pvapy_stream.sim.source_server import SimulatorStatus
from pvapy_stream.status.metrics import metrics
from pvapy_stream.status.snapshot import LatencyStats, Snapshot
from tests.monitor.fakes import FakeClock, Listener
from tests.monitor.test_notify import Mailbox

EXAMPLES = Path(__file__).parents[2] / "examples"
SPACE = EXAMPLES / "monitors" / "space_monitor.py"


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    made = Mailbox().start()
    yield made
    made.stop()


def test_the_space_monitor_as_a_program(tmp_path: Path, mailbox: Mailbox) -> None:
    free = shutil.disk_usage(tmp_path).free / 2**30
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, SPACE, "--path", tmp_path, "--min-free", str(math.floor(free) + 2),
         "--interval", "1", "--time", "0.05", "--working-dir", tmp_path, "--email-to",
         "me@home.org", "--email-from", "beam@lab.org", "--smtp-server", "127.0.0.1", "--smtp-port",
         str(mailbox.port)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert time.monotonic() - started < 60
    header, *lines = (tmp_path / "space.txt").read_text().splitlines()
    assert header == "time\ttotal_gb\tused_gb\tfree_gb"
    assert 3 <= len(lines) <= 5
    assert float(lines[0].split("\t")[3]) == pytest.approx(free, abs=5)
    # One message for all steps, printed and sent.
    assert done.stdout.count(f"Space on {tmp_path} is low") == 1
    ((mail, *_),) = mailbox.mails
    assert (mail["From"], mail["To"]) == ("beam@lab.org", "me@home.org")
    # A long subject comes in several lines.
    assert " ".join(mail["Subject"].split()) == f"Space on {tmp_path} is low"


def test_the_space_monitor_has_no_notice_above_its_threshold(tmp_path: Path) -> None:
    space_monitor: Any = runpy.run_path(str(SPACE))["SpaceMonitor"]
    free = math.floor(shutil.disk_usage(tmp_path).free / 2**30)
    for threshold, notices in ((free - 1, 0), (free + 2, 1)):
        listener = Listener()
        monitor = space_monitor(
            str(tmp_path), threshold, workingDir=str(tmp_path), samplingInterval=1,
            monitorTime=0.05, email=listener, clock=FakeClock(),
        )  # fmt: skip
        monitor.loop()
        assert len(listener.told) == notices


def write_rows(file: Path, header: str, separator: str, rows: list[list[object]]) -> None:
    lines = [header, *(separator.join(map(str, row)) for row in rows)]
    file.write_text("\n".join(lines) + "\n")


def test_cryo_em_monitors_find_bad_micrographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (ctf,) = read_monitors(EXAMPLES / "monitors" / "ctf.toml")
    listener = Listener()
    monitor = TableMonitor(ctf, notifiers=[listener], clock=FakeClock())
    monitor.step()
    good, far, astigmatic = (
        ["m", 15000, 14800, 200, 4], ["m", 52000, 51000, 900, 6], ["m", 15000, 13600, 1400, 5],
    )  # fmt: skip
    header = "micrograph,defocus_u,defocus_v,astigmatism,resolution"
    write_rows(tmp_path / "ctf.csv", header, ",", [good, good, far, far, good, astigmatic, good])
    monitor.clock.wait(monitor.stop, 5)
    monitor.step()
    monitor.close()
    assert listener.titles == [
        "ALARM: ctf.csv: defocus_u > 40000", "OK: ctf.csv: defocus_u > 40000",
        "ALARM: ctf.csv: astigmatism > 1000", "OK: ctf.csv: astigmatism > 1000",
    ]  # fmt: skip
    (gain,) = read_monitors(EXAMPLES / "monitors" / "gain.toml")
    listener = Listener()
    monitor = TableMonitor(gain, notifiers=[listener], clock=FakeClock())
    header = "movie mean std ratio_99_to_1 min max"
    for n in range(1, 5):
        rows = [["m.tif", 1.0, 0.06, 1.2, 0.9, 1.1]] * n
        write_rows(tmp_path / "gain.txt", header, "  ", rows)
        monitor.step()
        monitor.clock.wait(monitor.stop, 60)
    monitor.close()
    assert listener.titles == ["ALARM: gain.txt: std > 0.04"]


def test_all_files_of_monitors_are_right() -> None:
    kinds = {
        file.name: [type(s).__name__.removesuffix("Settings").lower() for s in read_monitors(file)]
        for file in (EXAMPLES / "monitors").glob("*.toml")
    }
    assert kinds == {
        "ctf.toml": ["table"],
        "gain.toml": ["table"],
        "beamline.toml": ["disk", "system", "streams", "image"],
    }


# -- Prometheus ----------------------------------------------------------------------------------


def all_metrics() -> set[str]:
    """Names of all samples that our programs tell."""

    found = [
        Snapshot("consumer", 1, "x", "running", latency_stats=LatencyStats(1, 1, 1, 1, 1)),
        Snapshot("mirror", 1, "x"),
        Snapshot("simulator", own=SimulatorStatus(0, 0, 0)),
    ]
    return {
        f"pvapy_stream_{m.name}" + ("_total" if m.kind == "counter" else "")
        for one in found
        for m in metrics(one)
    }


def expressions() -> dict[str, str]:
    alerts = yaml.safe_load((EXAMPLES / "prometheus" / "alerts.yml").read_text())
    dashboard = json.loads((EXAMPLES / "prometheus" / "grafana-dashboard.json").read_text())
    return {
        **{rule["alert"]: rule["expr"] for group in alerts["groups"] for rule in group["rules"]},
        **{p["title"]: t["expr"] for p in dashboard["panels"] for t in p["targets"]},
    }


def test_alerts_and_panels_ask_for_metrics_that_there_are() -> None:
    known = all_metrics()
    found = expressions()
    assert len(found) >= 15
    for title, expression in found.items():
        names = set(re.findall(r"pvapy_stream_\w+", expression))
        assert names <= known, title
        assert names or "process_" in expression or "up{" in expression
        assert expression.count("(") == expression.count(")")


def test_prometheus_has_its_rules_beside_it() -> None:
    config = yaml.safe_load((EXAMPLES / "prometheus" / "prometheus.yml").read_text())
    for name in config["rule_files"]:
        assert (EXAMPLES / "prometheus" / name).is_file()
    dashboard = json.loads((EXAMPLES / "prometheus" / "grafana-dashboard.json").read_text())
    places = [tuple(p["gridPos"].values()) for p in dashboard["panels"]]
    assert len(set(places)) == len(places)
    assert len({p["id"] for p in dashboard["panels"]}) == len(places)
