"""Recordings in workflows: a replay as the source, and a recorder at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pvapy_stream.cli.main import main
from pvapy_stream.files.recorded import RecordedStream
from pvapy_stream.pva.ntndarray import to_frame
from pvapy_stream.pva.serial import loads
from pvapy_stream.workflow import Recorder, Replay, Workflow
from tests.replay.recordings import pixels, recording
from tests.support import Commands

FLOW = """
channels: "{prefix}"
protocols:
  - {{label: night, class: Replay, file: night.h5, drop: 0.1, corrupt: 0.05, seed: 3}}
  - {{label: work, class: Consumer, input: night.output}}
  - {{label: again, class: Recorder, input: work.output, output: again.h5}}
"""


def test_a_recording_runs_through_a_workflow_and_is_recorded_again(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    recording(tmp_path / "night.h5", range(1, 101), period=0.005)
    (tmp_path / "flow.yaml").write_text(FLOW.format(prefix=prefix))
    folder = tmp_path / "run"
    program = commands("workflow", "run", tmp_path / "flow.yaml", "--folder", folder)
    assert program.wait() == 0, program.text
    (audit,) = json.loads((folder / "audit.json").read_text())
    assert audit["ok"]
    source = next(one for one in audit["stages"] if one["stage"] == "replay")
    faults = {
        kind: {n for first, last in pairs for n in range(first, last + 1)}
        for kind, pairs in source["faults"].items()
    }
    with RecordedStream(folder / "again.h5") as stream:
        assert stream.problem == ""
        frames = [to_frame(loads(row.data)) for row in stream.rows()]
    assert {frame.id for frame in frames} == set(range(1, 101)) - faults["drop"]
    wrong = {frame.id for frame in frames if (frame.image != pixels(frame.id)).any()}
    assert wrong == faults["corrupt"] - faults["drop"]
    assert faults["drop"]
    assert wrong


def test_a_check_finds_a_recording_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flow.yaml").write_text(FLOW.format(prefix="a:"))
    assert main(["workflow", "check", str(tmp_path / "flow.yaml")]) == 2
    said = capsys.readouterr()
    assert "night: cannot read night.h5: No such file" in said.out + said.err
    recording(tmp_path / "night.h5")
    assert main(["workflow", "check", str(tmp_path / "flow.yaml")]) == 0


def test_parameters_are_checked() -> None:
    flow = Workflow("flow")
    night = flow.add(Replay(file="night.h5", speed="max", drop=0.5), "night")
    flow.add(Recorder(input=night["output"], output="again.h5"), "again")
    assert flow.problems() == []
    wrong = Workflow("wrong")
    wrong.add(Replay(file="night.h5", speed=0, drop=2), "night")
    told = "; ".join(wrong.problems())
    assert "drop" in told
    assert "speed" in told
