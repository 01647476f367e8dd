"""bsread source, buffer and writers as stages of a workflow: ports, readiness, kills, audit."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - so that compressed images can be read
import numpy as np
import pytest

from pvapy_stream.errors import SettingsError
from pvapy_stream.launch.programs import LocalPrograms
from pvapy_stream.monitor.channel_names import workflow_channels
from pvapy_stream.workflow import Project, Workflow
from pvapy_stream.workflow.library.bsread_stages import (
    BsreadSimStage,
    BsreadWriterStage,
    BufferStage,
)
from pvapy_stream.workflow.model.streaming_stage import Site, Stream
from pvapy_stream.workflow.model.workflow_file import parse_workflow
from pvapy_stream.workflow.run.free_ports import FreePorts
from pvapy_stream.workflow.run.stream_run import StreamRun
from tests.support import Commands, wait_until
from tests.workflow.test_streams import live, named_by_audit, pid, run

EXAMPLE = Path(__file__).parents[2] / "examples" / "bsread_buffer_writer.yaml"


def pulses(file: Path, channel: str = "SIM:SCALAR-0") -> list[int]:
    with h5py.File(file) as h5:
        found = h5[f"data/{channel}/pulse_id"][()].tolist()
        assert h5[f"data/{channel}/data"][:, 0].tolist() == found
    return found


def test_the_example_writes_all_and_a_range_and_ends_by_itself(
    commands: Commands, tmp_path: Path
) -> None:
    folder, file = tmp_path / "run", tmp_path / "example.yaml"
    text = EXAMPLE.read_text()
    assert "n_messages: 1000\n" in text
    file.write_text(text.replace("n_messages: 1000\n", "n_messages: 400\n"))
    program = run(commands, file, folder)
    assert program.wait() == 0, program.text
    assert pulses(folder / "everything.h5") == list(range(1, 401))
    assert pulses(folder / "scan.h5") == list(range(100, 300))
    with h5py.File(folder / "scan.h5") as h5:
        images = h5["data/SIM:CAMERA/data"]
        assert images.shape == (200, 256, 320)
        assert np.array_equal(images[0], images[16])
    (audit,) = json.loads((folder / "audit.json").read_text())
    assert audit["ok"]
    assert audit["published"] == 400
    assert {stage["stage"] for stage in audit["stages"]} == {"bsread-sim", "buffer", "writer"}
    project = Project(folder)
    assert {row.state.value for row in project.protocols()} == {"finished"}
    project.close()
    page = (folder / "report.html").read_text()
    assert all(f"{label}:status:1" in page for label in ("buffer", "everything", "scan"))


FLOW = """
channels: "{prefix}"
protocols:
  - {{label: source, class: BsreadSim, n_messages: {n}, rate: 400, n_scalars: 2}}
  - {{label: keep, class: Buffer, input: source.output}}
  - {{label: file, class: BsreadWriter, input: keep.output, output_file: a.h5{more}}}
"""


def flow(folder: Path, prefix: str, n: int, more: str = "") -> Path:
    path = folder / "flow.yaml"
    path.write_text(FLOW.format(prefix=prefix, n=n, more=more))
    return path


def test_a_buffer_that_is_killed_is_started_again_and_the_audit_names_what_went_with_it(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    folder = tmp_path / "run"
    program = run(commands, flow(tmp_path, prefix, 1200), folder)
    wait_until(lambda: live(folder)["file"]["processed"] > 200)
    os.kill(pid(folder, "keep"), signal.SIGKILL)
    assert program.wait() == 1, program.text
    assert "keep died (signal SIGKILL); restart 1 of at most 3" in program.text
    written = set(pulses(folder / "a.h5"))
    assert {1, 200, 1200} <= written
    assert named_by_audit(folder) == set(range(1, 1201)) - written


def test_a_range_of_images_of_a_detector_that_never_ends(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    path = tmp_path / "flow.yaml"
    path.write_text(f"""
channels: "{prefix}"
protocols:
  - {{label: cam, class: Simulator, n_publish: 0, frame_rate: 200, n_x_pixels: 8, n_y_pixels: 4,
     n_frames: 4}}
  - {{label: keep, class: Buffer, input: cam.output}}
  - {{label: file, class: BsreadWriter, input: keep.output, output_file: a.h5, stop_pulse_id: 100}}
""")
    folder = tmp_path / "run"
    program = run(commands, path, folder)
    assert program.wait() == 0, program.text
    assert "the last stages have ended" in program.text
    with h5py.File(folder / "a.h5") as h5:
        group = h5[f"data/{prefix}cam"]
        # What the channel showed before the first image is none.
        assert group["pulse_id"][()].tolist() == list(range(1, 101))
        assert group["data"].shape == (100, 4, 8)
    (audit,) = json.loads((folder / "audit.json").read_text())
    assert audit["ok"]
    assert audit["processed"] == 100


def wired(flow: Workflow, site: Site) -> dict[str, dict[str, Any]]:
    streams: dict[str, Stream | None] = {}
    found: dict[str, dict[str, Any]] = {}
    for node in flow.stages():
        made = node.make().wire(node.label, streams.get(flow.follows(node)), site)
        streams[node.label] = made.output
        found[node.label] = dict(made.programs[0].settings)
    return found


def test_arrows_give_ports_that_nobody_writes() -> None:
    flow = Workflow("x")
    source = flow.add(BsreadSimStage(n_messages=5), "source")
    keep = flow.add(BufferStage(input=source["output"]), "keep")
    flow.add(BsreadWriterStage(input=keep["output"], output_file="a.h5"), "file")
    assert flow.problems() == []
    ports = iter([1001, 1002, 1003])
    found = wired(flow, Site("p:", Path("/data"), port=lambda: next(ports)))
    assert found["source"]["address"] == found["keep"]["stream"] == "tcp://127.0.0.1:1001"
    assert found["keep"]["range_port"] == 1002
    assert found["file"]["stream"] == "buffer://127.0.0.1:1002"
    assert (found["file"]["output_file"], found["file"]["start"]) == ("/data/a.h5", "first")
    assert found["file"]["status_channel"] == "p:file:status:1"
    free = FreePorts()
    assert len({free() for _ in range(20)}) == 20


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            "{label: b, class: BsreadWriter, input: s.output, output_file: b.h5},"
            "{label: c, class: BsreadWriter, input: s.output, output_file: c.h5}",
            "s: gives each message to one stage only, and b and c follow it; put a Buffer between",
        ),
        ("{label: b, class: Consumer, input: s.output}", "a bsread, and needs a stream"),
        (
            "{label: d, class: Simulator}, {label: b, class: BsreadWriter, input: d.output,"
            " output_file: b.h5}",
            "b: input points to 'd.output', a stream, and needs a bsread",
        ),
        ("{label: b, class: BsreadWriter, input: s.output}", "b: needs an output_file"),
        ("{label: b, class: BsreadWriter, output_file: b.h5}", "b: needs an input"),
        (
            "{label: b, class: Buffer, input: s.output, stream: 'tcp://h:1'}",
            "b: has an input and a stream; give one of them",
        ),
        ("{label: b, class: Buffer, input: s.output, range_port: 5}", "no parameter 'range_port'"),
        (
            "{label: b, class: BsreadWriter, input: s.output, output_file: b.h5, seconds: 1,"
            " stop_pulse_id: 3}",
            "--stop-pulse-id and --seconds cannot be combined",
        ),
        (
            "{label: d, class: Simulator}, {label: e, class: Consumer, input: d.output,"
            " n_consumers: 2}, {label: b, class: Buffer, input: e.output}",
            "one buffer cannot follow 2 channels",
        ),
    ],
)
def test_what_does_not_fit_is_named(stages: str, message: str) -> None:
    text = f"protocols: [{{label: s, class: BsreadSim}}, {stages}]"
    assert message in "; ".join(parse_workflow(text, "x", None).problems())


def test_a_source_of_ones_own_needs_no_arrow() -> None:
    flow = Workflow("x")
    keep = flow.add(BufferStage(stream="pva://cam", seconds=60, skip_initial_updates=1), "keep")
    flow.add(BsreadWriterStage(input=keep["output"], output_file="a.h5", seconds=5), "file")
    flow.add(BsreadWriterStage(stream="buffer://h:8083", output_file="b.h5", start=7), "other")
    assert flow.problems() == []
    found = wired(flow, Site("p:"))
    assert (found["keep"]["stream"], found["keep"]["skip_initial_updates"]) == ("pva://cam", 1)
    assert "memory" not in found["keep"]
    assert found["other"]["start"] == 7


def test_monitors_find_their_status_channels_in_the_file(tmp_path: Path) -> None:
    assert workflow_channels(str(flow(tmp_path, "p:", 1))) == ["p:keep:status:1", "p:file:status:1"]


def test_a_cluster_is_refused() -> None:
    class Elsewhere(LocalPrograms):
        address = "tcp://somewhere:8786"

    flow = Workflow("x")
    source = flow.add(BsreadSimStage(), "source")
    flow.add(BufferStage(input=source["output"]), "keep")
    with pytest.raises(SettingsError, match="source: bsread streams stay on one host"):
        StreamRun(flow, flow.stages(), Site(""), {}, Elsewhere(), print)
