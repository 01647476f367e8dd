"""bsread acquisitions as protocols, from a real simulator through a real buffer."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - so that compressed images can be read

from pvapy_stream.workflow.library.acquisitions import BsreadAcquisition
from pvapy_stream.workflow.run.steps import State
from tests.ports import free_port
from tests.support import Commands


def test_pulses_that_have_passed_come_from_a_buffer(commands: Commands, tmp_path: Path) -> None:
    stream, output, ranges = (f"127.0.0.1:{free_port()}" for _ in range(3))
    commands(
        "bsread-sim", "-a", f"tcp://{stream}", "-fps", "100", "-n", "200", "--send-timeout", "120"
    )
    commands("buffer", f"tcp://{stream}", "-o", output.rpartition(":")[2], "--range-port",
             ranges.rpartition(":")[2], "-b", "1000")  # fmt: skip
    run = BsreadAcquisition(
        stream=f"buffer://{ranges}",
        file_name="past.h5",
        start_pulse_id=20,
        stop_pulse_id=119,
        limit=120,
    )
    assert run.run(tmp_path / "run") is State.FINISHED, run.error
    with h5py.File(tmp_path / "run" / "extra" / "past.h5") as file:
        columns = [file[f"data/{name}/pulse_id"][...].tolist() for name in file["data"]]
    assert columns
    assert all(column == list(range(20, 120)) for column in columns)


def test_a_stream_that_is_none_fails_and_says_so(tmp_path: Path) -> None:
    run = BsreadAcquisition(stream="nowhere", file_name="a.h5")
    assert run.run(tmp_path / "run") is State.FAILED
    assert "nowhere" in run.error
