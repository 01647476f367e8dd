from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from pvapy_stream.cli.main import main

PROCESSORS = """
import pvaccess as pva
from pvapy_stream import FrameProcessor, UserDataProcessor

class Crop(FrameProcessor):
    def __init__(self, configDict):
        super().__init__(configDict)
        self.rows = configDict.get("rows", 2)
    def process_frame(self, frame):
        if frame.image[0, 0] == 3:
            raise ValueError("three")
        return frame.replace(frame.image[: self.rows].astype("float32"))
    def getStats(self):
        return {"rows": self.rows}
    def getStatsPvaTypes(self):
        return {"rows": pva.UINT}

class Sums(UserDataProcessor):
    def getOutputPvObjectType(self, pvObject):
        return pva.PvObject({"uniqueId": pva.INT, "sum": pva.DOUBLE})
    def process(self, pvObject):
        value = float(pvObject["value"][0]["ushortValue"].sum())
        kind = {"uniqueId": pva.INT, "sum": pva.DOUBLE}
        self.updateOutputChannel(pva.PvObject(kind, {"sum": value}))
"""


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """The command sets logging up for its process, which here is the tests'."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def processors(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(PROCESSORS)
    return str(path)


@pytest.fixture
def frames(tmp_path: Path) -> str:
    """5 frames of 4x6 that hold their number."""
    path = tmp_path / "frames.h5"
    stack = np.arange(5, dtype=np.uint16)[:, None, None] + np.zeros((5, 4, 6), np.uint16)
    with h5py.File(path, "w") as file:
        file["entry/data"] = stack
        file["entry/other"] = stack[:, :3]
    return str(path)


def test_output_statistics_and_exit_code(
    processors: str, frames: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--input", frames, "--dataset", "/entry/data", "--n", "3", "--args", '{"rows": 1}']
    assert main(["try", f"{processors}:Crop", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Processed frames: 3 of 3 @ ")
    assert lines[1:] == [
        "Published objects: 3, the last: 1x6 float32, id 2",
        "Errors: 0",
        "rows: 1",
    ]


def test_errors_are_counted_with_the_first_traceback(
    processors: str, frames: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["try", f"{processors}:Crop", "--input", frames, "--dataset", "/entry/other"]) == 1
    captured = capsys.readouterr()
    assert "Processed frames: 4 of 5" in captured.out
    assert (
        "Errors: 1\n  process: ValueError: 1\n  the last: process: ValueError: three\n"
        in captured.out
    )
    assert "Traceback" in captured.err
    assert 'raise ValueError("three")' in captured.err


def test_an_output_that_is_no_image(
    processors: str, frames: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["try", f"{processors}:Sums", "--input", frames, "--dataset", "/entry/data"]) == 0
    assert "Published objects: 5, the last: structure of uniqueId, sum" in capsys.readouterr().out


def test_a_class_of_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["try", "pvapy_stream.processors:PassThrough", "--n", "2"]) == 0
    assert "Published objects: 2, the last: 512x512 uint8, id 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.py:Mine"], 1, "nowhere.py does not exist"),
        (["Mine"], 1, "has no module"),
        (["pvapy_stream.processors:PassThrough", "--input", "nowhere.h5"], 1, "nowhere.h5"),
        (
            ["pvapy_stream.processors:PassThrough", "--args", "{"],
            2,
            "--processor-args: is not JSON",
        ),
    ],
)
def test_wrong_arguments(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["try", *arguments]) == code
    assert message in capsys.readouterr().err
