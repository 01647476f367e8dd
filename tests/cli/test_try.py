from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from pvapy_stream.cli import try_processor
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

class Misspelt(FrameProcessor):
    def processFrame(self, frame):
        return frame.replace(frame.image * 0)

class Misspelt2(UserDataProcessor):
    def Process(self, pvObject):
        self.updateOutputChannel(pvObject)

class Odd(FrameProcessor):
    def process_frame(self, frame):
        return frame if frame.id % 2 else None

class Silent:
    def process(self, pvObject):
        return pvObject

class Half(FrameProcessor):
    def process_frame(self, frame):
        return frame.image[::2] / 2

class Halves(FrameProcessor):
    def process_frame(self, frame):
        yield frame.image[::2]
        yield frame.image[1::2]

class Mean(FrameProcessor):
    def process_frame(self, frame):
        return frame.image.mean()
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
        "Filtered frames: 0",
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


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("Misspelt", "processFrame for process_frame"), ("Misspelt2", "Process for process")],
)
def test_a_class_that_processes_nothing_is_not_approved(
    processors: str, frames: str, name: str, nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--input", frames, "--dataset", "/entry/data"]
    assert main(["try", f"{processors}:{name}", *arguments]) == 1
    error = capsys.readouterr().err
    assert f"class {name} processes nothing" in error
    assert nearest in error


def test_filtered_frames_are_counted(
    processors: str, frames: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--input", frames, "--dataset", "/entry/data"]
    assert main(["try", f"{processors}:Odd", *arguments]) == 0
    said = capsys.readouterr().out
    assert "Processed frames: 2 of 5" in said
    assert "Filtered frames: 3\n" in said


def test_a_class_that_never_publishes_is_told_how(
    processors: str, frames: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--input", frames, "--dataset", "/entry/data"]
    assert main(["try", f"{processors}:Silent", *arguments]) == 0
    said = capsys.readouterr().out
    assert "Filtered frames: 5\n" in said
    assert "Published objects: 0; process publishes with self.updateOutputChannel" in said


@pytest.mark.parametrize(
    ("name", "published"),
    [("Half", "5, the last: 2x6 float64"), ("Halves", "10, the last: 2x6 uint16")],
)
def test_an_array_is_the_image(
    processors: str, frames: str, name: str, published: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--input", frames, "--dataset", "/entry/data"]
    assert main(["try", f"{processors}:{name}", *arguments]) == 0
    assert f"Published objects: {published}, id 4" in capsys.readouterr().out


def test_what_is_no_image_is_named(
    processors: str, frames: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--input", frames, "--dataset", "/entry/data"]
    assert main(["try", f"{processors}:Mean", *arguments]) == 1
    said = capsys.readouterr().out
    assert "process_frame of Mean returned a float64; return a Frame, an image" in said


def test_only_options_that_there_are(
    processors: str, frames: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong is said without options of other programs."""
    told = try_processor.COMMAND.parser().format_help()
    for arguments in (
        ["nowhere.py:Mine"],
        ["Mine"],
        [processors],
        [f"{processors}:Nobody"],
        ["nowhere.module:Mine"],
        [f"{processors}:Crop", "--input", processors],
        [f"{processors}:Crop", "--input", frames],
        [f"{processors}:Crop", "--input", frames, "--dataset", "/x"],
        [f"{processors}:Crop", "--n", "-3"],
        [f"{processors}:Crop", "--args", "3"],
    ):
        assert main(["try", *arguments]) in (1, 2)
        error = capsys.readouterr().err
        assert error
        for option in re.findall(r"--[a-z-]+", error):
            assert option in told, error


def test_a_class_of_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["try", "pvapy_stream.processors:PassThrough", "--n", "2"]) == 0
    assert "Published objects: 2, the last: 512x512 uint8, id 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.py:Mine"], 1, "nowhere.py does not exist"),
        (["Mine"], 2, "give FILE.py:CLASS or package.module:CLASS"),
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


def test_batches_are_counted_and_a_class_without_them_is_refused(
    processors: str, frames: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(processors, "a") as file:
        file.write(
            "class Many(FrameProcessor):\n    def process_batch(self, frames):\n"
            "        if 3 in [frame.id for frame in frames]:\n            raise ValueError('3')\n"
            "        return frames.images * 2\n"
        )
    given = ["--input", frames, "--dataset", "/entry/data", "--batch-size"]
    assert main(["try", f"{processors}:Many", *given, "2"]) == 1
    shown = capsys.readouterr().out
    assert "Processed frames: 4 of 5" in shown
    assert (
        "Batches: 3 of 5 frames, 0 ended by another shape or pixel type, 1 raised and were tried"
        " frame by frame" in shown
    )
    assert main(["try", f"{processors}:Many", *given, "1"]) == 1
    assert "Batches" not in capsys.readouterr().out
    assert main(["try", f"{processors}:Crop", *given, "2"]) == 2
    assert "class Crop does not define process_batch" in capsys.readouterr().err
    assert main(["try", f"{processors}:Many", *given, "0"]) == 2
    assert "--batch-size 0 is below 1" in capsys.readouterr().err
