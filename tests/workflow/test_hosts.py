"""A workflow over three hosts: network namespaces with addresses of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import wait_until

ADDRESS = "10.77.31."
PORT = 8786


class Hosts:
    """Three namespaces on one bridge, and what runs in them."""

    def __init__(self, logs: Path) -> None:
        mark = uuid.uuid4().hex[:5]
        self.names = [f"pvs{mark}{k}" for k in (1, 2, 3)]
        self._hub = f"pvs{mark}hub"
        self._logs = logs
        self._processes: list[subprocess.Popen[bytes]] = []
        self._made: list[str] = []

    def open(self) -> None:
        for name in (self._hub, *self.names):
            ip("netns", "add", name)
            self._made.append(name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", self._hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", self._hub, "link", "set", "bridge", "up")
        for k, name in enumerate(self.names, 1):
            ip("-n", name, "link", "add", "net", "type", "veth", "peer", f"port{k}", "netns",
               self._hub)  # fmt: skip
            ip("-n", name, "addr", "add", f"{ADDRESS}{k}/24", "dev", "net")
            ip("-n", name, "link", "set", "net", "up")
            ip("-n", self._hub, "link", "set", f"port{k}", "master", "bridge", "up")

    def start(self, k: int, *command: str) -> subprocess.Popen[bytes]:
        """Start a Python module on a host; it hears of no EPICS address."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("EPICS")}
        env |= {"EPICS_PVA_AUTO_ADDR_LIST": "NO", "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO"}
        with (self._logs / f"host{k}-{len(self._processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.names[k - 1], sys.executable, "-m", *command],
                stdout=log, stderr=log, env=env,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def said(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self._logs.glob("host*.log")))

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], check=False, timeout=10)


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=10)
    if done.returncode:
        pytest.skip(f"network namespaces cannot be made here: {done.stderr.strip()}")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    made = Hosts(tmp_path)
    try:
        made.open()
        yield made
    finally:
        made.close()


FLOW = """
protocols:
  - {label: cam, class: Simulator, place: host1, n_publish: 300, frame_rate: 300, n_x_pixels: 16,
     n_y_pixels: 16, n_frames: 5}
  - {label: mirror, class: Mirror, place: host2, input: cam.output}
  - {label: work, class: Consumer, input: mirror.output, n_consumers: 2}
  - {label: gather, class: Collector, place: host3, input: work.output}
  - {label: disk, class: Writer, place: host1, input: gather.output, output: scan.h5}
"""


def test_stages_on_three_hosts_find_each_other(hosts: Hosts, tmp_path: Path) -> None:
    scheduler = f"tcp://{ADDRESS}1:{PORT}"
    hosts.start(
        1, "distributed.cli.dask_scheduler", "--host", f"{ADDRESS}1", "--port", str(PORT),
        "--no-dashboard",
    )  # fmt: skip
    for k in (1, 2, 3):
        hosts.start(
            k, "distributed.cli.dask_worker", scheduler, "--host", f"{ADDRESS}{k}", "--name",
            f"host{k}", "--nthreads", "1", "--no-dashboard", "--no-nanny",
        )  # fmt: skip
    wait_until(lambda: hosts.said().count("Register worker addr") == 3, what="workers")
    file = tmp_path / "three.yaml"
    file.write_text(FLOW)
    run = hosts.start(
        1, "pvapy_stream.cli.main", "workflow", "run", str(file), "--folder",
        str(tmp_path / "run"), "--cluster", scheduler,
    )  # fmt: skip
    assert run.wait() == 0, hosts.said()
    (audit,) = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert audit["published"] == audit["processed"] == 300
    status = (tmp_path / "run" / "status.json").read_text()
    assert '"state":"ended"' in status
    assert re.search("6 programs of 5 stages are ready", hosts.said())
    assert (tmp_path / "run" / "scan.h5").exists()
