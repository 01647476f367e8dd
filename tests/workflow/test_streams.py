"""Whole chains from one file, with kills."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import h5py
import pytest

from pvapy_stream.workflow import Project
from tests.in_process import call
from tests.support import Commands, Program, status, wait_until
from tests.workflow.test_files import EXAMPLE


def live(folder: Path) -> dict[str, Any]:
    try:
        entries = json.loads((folder / "status.json").read_text())["protocols"]
    except OSError:
        return {}
    return {entry["label"]: entry for entry in entries}


def pid(folder: Path, label: str) -> int:
    return live(folder)[label]["programs"][0]["pid"]


def written(file: Path) -> set[int]:
    with h5py.File(file) as h5:
        numbers = h5["entry/data/id"][()].tolist()
    assert len(numbers) == len(set(numbers))
    return set(numbers)


def ranges(pairs: list[list[int]]) -> set[int]:
    return {n for first, last in pairs for n in range(first, last + 1)}


def named_by_audit(folder: Path) -> set[int]:
    """Ids that the audit says were lost or not processed."""
    (audit,) = json.loads((folder / "audit.json").read_text())
    found: set[int] = set()
    for channel in audit["channels"]:
        for one in channel["subscribers"]:
            found |= ranges(one["lost"])
    for stage in audit["stages"]:
        found |= ranges(stage["without_fate"])
        found |= ranges(stage["skipped"]) - {0}
        for dropped in (*stage["rejected"].values(), *stage["failed"].values()):
            found |= ranges(dropped)
    return found


def run(commands: Commands, file: Path, folder: Path) -> Program:
    return commands("workflow", "run", file, "--folder", folder)


def test_the_example_survives_kills_and_names_exactly_what_was_lost(
    commands: Commands, tmp_path: Path
) -> None:
    folder, file = tmp_path / "run", tmp_path / "example.yaml"
    # It runs for as long as the restarts take here, instead of ten seconds, and not as fast.
    # It has one of two workers that go on when one is killed, instead of three of four.
    text = EXAMPLE.read_text()
    for old, new in (
        ("n_publish: 5000", "n_publish: 0"),
        ("frame_rate: 500", "frame_rate: 150"),
        ("n_consumers: 4", "n_consumers: 2"),
    ):
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    program = run(commands, file, folder)

    def goes_on() -> None:
        before = live(folder)["disk"]["processed"]
        wait_until(lambda: live(folder)["disk"]["processed"] > before + 100)

    def kill(label: str) -> None:
        os.kill(pid(folder, label), signal.SIGKILL)
        wait_until(lambda: live(folder)[label]["programs"][0]["restarts"] == 1)
        goes_on()

    wait_until(lambda: live(folder)["disk"]["processed"] > 100)
    kill("workers")
    kill("gather")
    assert call("workflow", "stop", folder).code == 0
    assert program.wait() == 1, program.text
    frames = written(folder / "scan.h5")
    (audit,) = json.loads((folder / "audit.json").read_text())
    lost = set(range(1, audit["published"] + 1)) - frames
    assert lost
    assert len(frames) > 300
    skipped = named_by_audit(folder) & frames
    # A frame that one skipped as its initial update, another has processed.
    assert named_by_audit(folder) - skipped == lost
    assert "workers-1 died (signal SIGKILL); restart 1 of at most 3" in program.text
    assert f"published {audit['published']}, processed {len(frames)}, " in program.text
    assert re.search(r"6 programs of 5 stages are ready after [\d.]+ s", program.text)
    project = Project(folder)
    assert {row.state.value for row in project.protocols()} == {"finished"}
    project.close()
    # The monitor and the report went on beside the stages, and ended with them.
    page = (folder / "report.html").read_text()
    assert all(f"workers:status:{k}" in page for k in (1, 2))
    assert (folder / "monitors.sqlite").exists()


CHAIN = """
channels: "{prefix}"
protocols:
  - {{label: cam, class: Simulator, n_publish: {n}, frame_rate: 200, n_x_pixels: 8, n_y_pixels: 8,
     n_frames: 4}}
  - {{label: work, class: Consumer, input: cam.output{more}}}
"""


def chain(tmp_path: Path, prefix: str, n: int = 100, more: str = "") -> Path:
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN.format(prefix=prefix, n=n, more=more))
    return path


def test_a_stop_ends_in_order_and_loses_nothing(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    folder = tmp_path / "run"
    program = run(commands, chain(tmp_path, prefix, 0), folder)
    wait_until(lambda: live(folder)["work"]["processed"] > 50)
    assert status(f"{prefix}work:status:1")["processorStats"]["nProcessed"] > 0
    stopped = commands("workflow", "stop", folder)
    assert stopped.wait() == 0, stopped.text
    assert program.wait() == 0, program.text
    (audit,) = json.loads((folder / "audit.json").read_text())
    assert audit["published"] == audit["processed"] > 50
    again = call("workflow", "stop", folder)
    assert again.code == 1
    assert "does not run; there is nothing to stop" in again.text


def test_stages_end_when_the_runner_is_killed(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    folder = tmp_path / "run"
    program = run(commands, chain(tmp_path, prefix, 0), folder)
    wait_until(lambda: live(folder)["work"]["processed"] > 10)
    pids = [pid(folder, "cam"), pid(folder, "work")]
    program.signal(signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{p}").exists() for p in pids))
    shown = call("workflow", "status", folder)
    assert shown.code == 1
    assert (
        "the process that ran it has ended; continue with: pvapy-stream project resume"
        in shown.text
    )


def test_a_stage_that_never_becomes_ready_is_named_with_its_log(
    tmp_path: Path, prefix: str
) -> None:
    (tmp_path / "slow.py").write_text(
        "import sys, time\nclass Slow:\n    def __init__(self, config):\n"
        "        print('waiting for the cryostat', file=sys.stderr)\n        time.sleep(60)\n"
        "    def process(self, pvObject):\n        pass\n"
    )
    more = ", ready_timeout: 3, processor_file: slow.py, processor_class: Slow"
    ended = call("workflow", "run", chain(tmp_path, prefix, 10, more), "--folder", tmp_path / "run")
    assert ended.code == 1, ended.text
    assert "stage work was not ready within 3 s; the last lines of the log of work" in ended.text
    assert "waiting for the cryostat" in ended.text


def test_a_stage_that_cannot_start_is_named_with_its_log(tmp_path: Path, prefix: str) -> None:
    file = chain(tmp_path, prefix, 10, ", processor_class: no.such.Class")
    ended = call("workflow", "run", file, "--folder", tmp_path / "run")
    assert ended.code == 1, ended.text
    assert "stage work work-1 ended with exit code 1" in ended.text
    assert "module 'no.such' of processor class" in ended.text


@pytest.mark.parametrize(
    ("work", "output", "reason"),
    [
        ("Broken", "a.h5", "ValueError: there is no map of the detector"),
        # The last line of a writer is its summary, not the reason.
        ("Fine", "/proc/none/a.h5", "/proc/none"),
    ],
)
def test_the_reason_why_a_stage_does_not_start_is_told(
    work: str, output: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "work.py").write_text(
        "from pvapy_stream import FrameProcessor\n"
        "class Fine(FrameProcessor):\n"
        "    def process_frame(self, frame):\n"
        "        return frame\n"
        "class Broken(Fine):\n"
        "    def start(self):\n"
        "        raise ValueError('there is no map of the detector')\n"
    )
    file = tmp_path / "work.yaml"
    file.write_text(
        "protocols:\n"
        "  - {label: cam, class: Simulator, n_publish: 5}\n"
        "  - {label: work, class: Consumer, input: cam.output, processor_file: work.py,"
        f" processor_class: {work}}}\n"
        f"  - {{label: disk, class: Writer, input: work.output, output: {output}}}\n"
    )
    ended = call("workflow", "run", file, "--folder", tmp_path / "run")
    assert ended.code == 1
    (told,) = [line for line in "".join(ended.err).splitlines() if "ended with exit code" in line]
    assert reason in told
    assert "(empty)" not in ended.text
