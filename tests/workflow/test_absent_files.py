"""`workflow check` finds processor files, classes and data sets that are not there."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pvapy_stream.cli.main import main

FLOW = """\
protocols:
  - label: sim
    class: Simulator
    input_file: {file}
    hdf_dataset: {dataset}
    after: {after}
  - label: work
    class: Consumer
    input: sim.output
    processor_file: {processor}
    processor_class: {name}
"""
GOOD = {
    "file": "scan.h5", "dataset": "/entry/data", "processor": "mine.py", "name": "Mine",
    "after": "[]",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the workflow names, beside it."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["entry/data"] = np.zeros((2, 4, 6), np.uint16)
    (tmp_path / "mine.py").write_text(
        "class Mine:\n    def process(self, pvObject):\n        pass\nclass Empty:\n    pass\n"
    )
    (tmp_path / "broken.py").write_text("import no_such_module\nclass Mine: ...\n")
    return tmp_path


def check(folder: Path, **changes: str) -> int:
    path = folder / "flow.yaml"
    path.write_text(FLOW.format(**GOOD | changes))
    return main(["workflow", "check", str(path)])


def test_all_is_there(folder: Path) -> None:
    assert check(folder) == 0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"file": "none.h5"}, "sim: none.h5 does not exist"),
        ({"dataset": "/entry/none"}, "dataset '/entry/none' does not exist"),
        ({"processor": "none.py"}, "work: processor file none.py does not exist"),
        ({"processor": "broken.py"}, "fails to load: ModuleNotFoundError"),
        ({"name": "Nobody"}, "has no class 'Nobody'; its classes are: Mine, Empty"),
        ({"name": "Empty"}, "has no process(pvObject) method"),
        ({"processor": "", "name": "no.such.Mine"}, "module 'no.such' of processor class"),
    ],
)
def test_what_is_absent_is_found(
    folder: Path, changes: dict[str, str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(folder, **changes) == 2
    told = capsys.readouterr().err
    assert problem in told
    assert str(folder / "flow.yaml") in told


def test_all_problems_are_told_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(folder, dataset="/none", name="Nobody") == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_what_an_earlier_protocol_may_make_need_not_be_there(folder: Path) -> None:
    with (folder / "flow.yaml").open("w") as file:
        file.write(FLOW.format(**GOOD | {"file": "later.h5", "after": "[shell]"}))
        file.write("  - label: shell\n    class: FolderImport\n    watched: .\n")
    assert main(["workflow", "check", str(folder / "flow.yaml")]) == 0
