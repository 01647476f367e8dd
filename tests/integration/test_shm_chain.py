"""Simulator, consumers, collector and writer over shared memory: every frame has a fate."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import h5py

from pvapy_stream.accounting.ledger import Ledger, read_ledgers
from tests.in_process import call
from tests.support import Commands, command, status, wait_until, write_processor

SIZE = ("-nx", "64", "-ny", "48", "-nf", "5", "-rp", "0", "-dc")

SLOW = """
import time
from pvapy_stream import FrameProcessor

class Slow(FrameProcessor):
    def process_frame(self, frame):
        time.sleep(0.01)
        return frame
"""

OLD = """
import pvaccess as pva
from pvapy.hpc.adImageProcessor import AdImageProcessor

class Old(AdImageProcessor):
    def process(self, pvObject):
        assert isinstance(pvObject, pva.PvObject)
        (imageId, image, nx, ny, nz, colorMode, fieldKey) = self.reshapeNtNdArray(pvObject)
        self.updateOutputChannel(self.generateNtNdArray2D(imageId, image + 1))
        return pvObject
"""


def audit(*files: Path) -> None:
    ended = call("audit", *files, "--strict")
    assert ended.code == 0, ended.text


def stop(*programs: Any) -> None:
    for program in programs:
        program.signal()
        assert program.wait() == 0, program.text


def ledger(file: Path) -> Ledger:
    return read_ledgers(file)[0]


def test_a_chain_accounts_for_every_frame(prefix: str, commands: Commands, tmp_path: Path) -> None:
    """Through stages with no processor, with one of frames, with one of PvaPy, and none again."""
    processors = [
        [],
        ["-pc", "pvapy_stream.processors.transpose.Transpose"],
        ["-pf", write_processor(tmp_path, OLD), "-pc", "Old"],
        [],
    ]
    files = [tmp_path / f"{k}.json" for k in range(len(processors) + 1)]
    stages = [
        commands(
            "consumer", "-id", k, "-ic", f"{prefix}{k - 1}", "-oc", f"{prefix}{k}", "-im", "shm",
            "-om", "shm", "-sc", f"{prefix}s{k}", "--ledger", files[k], *own,
        )
        for k, own in enumerate(processors, 1)
    ]  # fmt: skip
    # The simulator knows of its own subscriber alone.
    for k in range(2, 5):
        wait_until(lambda k=k: status(f"{prefix}s{k}")["state"] == "running")
    sim = commands(
        "sim", "-cn", f"{prefix}0", "-om", "shm", *SIZE, "-fps", "0", "--n-publish", "1000",
        "--wait-for-clients", "1", "--wait-timeout", "20", "-shd", "10", "--ledger", files[0],
    )  # fmt: skip
    assert sim.wait() == 0, sim.text
    wait_until(lambda: status(f"{prefix}s4")["processorStats"]["nProcessed"] == 1000)
    stop(*stages)
    audit(*files)
    assert len(ledger(files[4]).published) == 1000


def test_a_slow_last_stage_slows_the_simulator(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    files = [tmp_path / f"{name}.json" for name in ("sim", "first", "second")]
    first = commands(
        "consumer", "-ic", f"{prefix}0", "-im", "shm", "-oc", f"{prefix}1", "-om", "shm", "-sqs", 4,
        "--ledger", files[1],
    )  # fmt: skip
    second = commands(
        "consumer", "-ic", f"{prefix}1", "-im", "shm", "-pf", write_processor(tmp_path, SLOW),
        "-pc", "Slow", "-sqs", 4, "-sc", f"{prefix}s2", "--ledger", files[2],
    )  # fmt: skip
    wait_until(lambda: status(f"{prefix}s2")["state"] == "running")
    sim = commands(
        "sim", "-cn", f"{prefix}0", "-om", "shm", *SIZE, "-fps", "0", "--n-publish", "200",
        "--wait-for-clients", "1", "-shd", "10", "--ledger", files[0],
    )  # fmt: skip
    assert sim.wait() == 0, sim.text
    rate = float(sim.text.split("@")[1].split()[0])
    assert rate < 150
    wait_until(lambda: status(f"{prefix}s2")["processorStats"]["nProcessed"] == 200)
    stop(first, second)
    audit(*files)


def test_distribution_collection_and_writing(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    files = [tmp_path / f"{name}.json" for name in ("sim", "share", "collect", "write")]
    share = commands(
        "consumer", "-ic", f"{prefix}0", "-im", "auto", "-nc", 2, "-dg", "g", "-du", 5, "-oc",
        f"{prefix}1:*", "-om", "shm", "-sc", f"{prefix}s:*", "--ledger", files[1],
    )  # fmt: skip
    collect = commands(
        "collector", "-ic", f"{prefix}1:*", "-im", "shm", "-oc", f"{prefix}2", "-om", "both",
        "-sc", f"{prefix}c", "--ledger", files[2],
    )  # fmt: skip
    output = tmp_path / "frames.h5"
    write = commands(
        "write", "-ic", f"{prefix}2", "-im", "auto", "-o", output, "-sc", f"{prefix}w", "--ledger",
        files[3],
    )  # fmt: skip
    for name, state in (("s:1", "waiting"), ("s:2", "waiting"), ("c", "running"), ("w", "running")):
        wait_until(lambda name=name, state=state: status(f"{prefix}{name}")["state"] == state)
    sim = commands(
        "sim", "-cn", f"{prefix}0", "-om", "both", *SIZE, "-fps", "500", "--n-publish", "400",
        "--wait-for-clients", "2", "-shd", "1", "--ledger", files[0],
    )  # fmt: skip
    assert sim.wait() == 0, sim.text
    wait_until(lambda: status(f"{prefix}w")["processorStats"]["nProcessed"] >= 390)
    stop(share, collect, write)
    for k, one in enumerate(sorted(read_ledgers(files[1]), key=lambda one: min(one.processed))):
        assert list(one.processed) == [i for i in range(1, 401) if (i - 1) // 5 % 2 == k]
    with h5py.File(output) as file:
        assert file["entry/data/data"].shape == (400, 48, 64)
    audit(*files)


def test_a_killed_stage_is_told_and_the_stream_goes_on(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    file, processor = tmp_path / "second.json", write_processor(tmp_path, SLOW)
    second = commands(
        "consumer", "-id", 2, "-ic", f"{prefix}0", "-im", "shm", "-sc", f"{prefix}s2", "--ledger",
        file,
    )  # fmt: skip
    doomed = commands(
        "consumer", "-ic", f"{prefix}0", "-im", "shm", "-pf", processor, "-pc", "Slow", "-sqs", 8,
        "-sc", f"{prefix}s1", "-cc", f"{prefix}c1",
    )  # fmt: skip
    sim = commands(
        "sim", "-cn", f"{prefix}0", "-om", "shm", *SIZE, "-fps", "800", "--n-publish", "2000",
        "--wait-for-clients", "2", "-shd", "5",
    )  # fmt: skip
    wait_until(lambda: status(f"{prefix}s1")["processorStats"]["nProcessed"] > 10)
    assert command(f"{prefix}c1", "pause") == "Paused"
    doomed.signal(signal.SIGKILL)
    assert sim.wait() == 0, sim.text
    assert "has disconnected; it had not taken" in sim.text
    wait_until(lambda: status(f"{prefix}s2")["processorStats"]["nProcessed"] == 2000)
    stop(second)
    assert not ledger(file).missed
