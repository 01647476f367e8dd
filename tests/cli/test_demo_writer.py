from __future__ import annotations

from pathlib import Path

from pvapy_stream.files.completeness import verify
from tests.in_process import call
from tests.support import Commands


def test_the_demonstration_writes_a_range_from_the_past(commands: Commands, tmp_path: Path) -> None:
    demo = commands("demo", "--bsread", "--pulses", 60, "--folder", tmp_path)
    assert demo.wait(60) == 0, demo.text
    assert "All requested pulses are in the file." in demo.text
    report = verify(tmp_path / "run.h5")
    assert (report.ok, report.n_images) == (True, 60)
    # It began before it was asked for.
    newest = int(demo.text.partition("is at pulse ")[2].partition(";")[0])
    assert min(report.ids) == newest - 49


def test_too_few_pulses() -> None:
    demo = call("demo-writer", "--pulses", 50)
    assert demo.code == 2
    assert "--pulses: must be more than 50" in demo.text
