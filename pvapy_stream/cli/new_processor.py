"""``new-processor`` (set up): write a processor and its test to start from."""

from __future__ import annotations

import argparse
import keyword
import re
import sys
from pathlib import Path

from pvapy_stream.cli.command import CliCommand
from pvapy_stream.errors import ProcessorError, SettingsError

_EPILOG = """\
examples:
  pvapy-stream new-processor peak_finder
  pvapy-stream new-processor PeakFinder --directory ~/processors
exit codes: 0 written; 1 the files are there already, or cannot be written; 2 wrong options
"""

_PROCESSOR = '''\
"""CLASS: what it does, in one line."""

from __future__ import annotations

from typing import Any

import pvaccess as pva

from pvapy_stream import Frame, FrameProcessor


class CLASS(FrameProcessor):
    """Sets pixels below a threshold to 0.

    Arguments (--processor-args, or the `configure` command): threshold, in the units of the pixels.
    """

    def __init__(self, configDict: dict[str, Any] | None = None) -> None:
        super().__init__(configDict)
        self.threshold = 0
        self.resetStats()
        self.configure(configDict or {})

    def configure(self, configDict: dict[str, Any]) -> None:
        """Set new arguments; configDict may contain other keys too."""
        self.threshold = configDict.get("threshold", self.threshold)

    def process_frame(self, frame: Frame) -> Frame | None:
        """Called with each frame.

        frame.image is a read-only array (ny, nx), or (ny, nx, 3) for colour. frame.id,
        frame.time_ns and frame.attributes belong to it. The returned frame is published; with None
        nothing is published. After an exception the frame counts as failed; the stream continues.
        """
        image = frame.image.copy()
        below = image < self.threshold
        image[below] = 0
        self.n_frames += 1
        self.n_zeroed += int(below.sum())
        # Id, time and attributes are kept. To add an attribute:
        # replace(image, attributes={**frame.attributes, "name": value})
        return frame.replace(image)

    def resetStats(self) -> None:
        """Reset the counts."""
        self.n_frames = 0
        self.n_zeroed = 0

    def getStats(self) -> dict[str, Any]:
        """Your part of the status channel, as userStats."""
        return {"nFrames": self.n_frames, "nZeroed": self.n_zeroed}

    def getStatsPvaTypes(self) -> dict[str, Any]:
        """The types of these statistics; every key of getStats must be here."""
        return {"nFrames": pva.ULONG, "nZeroed": pva.ULONG}
'''

_TEST = '''\
"""Tests of CLASS; run them with: pytest test_FILE.py"""

from pathlib import Path

import numpy as np

from pvapy_stream.plugins import load_processor_class
from pvapy_stream.testing import image_object, run_processor

# Loaded as the runners load it.
CLASS = load_processor_class("CLASS", Path(__file__).with_name("FILE.py"))

IMAGE = np.array([[1, 5, 9], [2, 6, 10]], np.uint16)


def test_pixels_below_the_threshold_are_zero():
    result = run_processor(CLASS, [image_object(IMAGE, id=7)], args={"threshold": 5})
    assert result.errors == {}
    (frame,) = result.frames
    assert frame.id == 7
    assert frame.image.tolist() == [[0, 5, 9], [0, 6, 10]]
    assert result.stats == {"nFrames": 1, "nZeroed": 2}


def test_configure_changes_the_threshold():
    result = run_processor(CLASS, [image_object(IMAGE)], configure={"threshold": 9})
    assert result.frames[0].image.tolist() == [[0, 0, 9], [0, 0, 10]]
'''


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    made.add_argument("name", help="its name, such as peak_finder or PeakFinder")
    made.add_argument(
        "--directory",
        default=".",
        metavar="DIR",
        help="where to write the two files [default .]",
    )
    made.add_argument("--force", action="store_true", help="overwrite existing files")


def run(options: argparse.Namespace) -> int:
    """Write the files.

    Raises:
        SettingsError: the name does not serve as a name of a file and a class.
        ProcessorError: a file is there already, or cannot be written.
    """
    directory = Path(options.directory).expanduser()
    file, class_name = names(options.name)
    contents = {directory / f"{file}.py": _PROCESSOR, directory / f"test_{file}.py": _TEST}
    present = [str(path) for path in contents if path.exists()]
    if present and not options.force:
        raise ProcessorError(
            f"{' and '.join(present)} would be overwritten; choose another name, or give --force"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, text in contents.items():
            path.write_text(
                text.replace("CLASS", class_name).replace("FILE", file), encoding="utf-8"
            )
    except OSError as error:
        raise ProcessorError(
            f"cannot write into {directory}: {error.strerror}; give another place with --directory"
        ) from error
    processor, test = contents
    sys.stdout.write(
        f"wrote {processor} and {test}; try:\n"
        f"  python -m pytest {test}\n"
        f"  pvapy-stream try {processor}:{class_name} --args '{{\"threshold\": 100}}'\n"
        f"  pvapy-stream consumer -ic pvapy:image -oc out -pf {processor} -pc {class_name}\n"
    )
    return 0


def names(name: str) -> tuple[str, str]:
    """Name of the file, in snake case, and of the class, in camel case.

    Raises:
        SettingsError: it serves for neither.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*", name):
        raise SettingsError(
            f"{name!r} is not a name for a processor;"
            " write it with letters, digits and _, such as peak_finder"
        )
    snake = (
        re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
        .replace("-", "_")
        .lower()
    )
    if keyword.iskeyword(snake) or keyword.issoftkeyword(snake) or snake in sys.stdlib_module_names:
        raise SettingsError(
            f"{snake!r} is a name of Python's own; choose another, such as {snake}_processor"
        )
    return snake, "".join(part[:1].upper() + part[1:] for part in re.split(r"[_-]", name))


COMMAND = CliCommand(
    "pvapy-stream new-processor",
    "Write a processor and its test to start from.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
)
main = COMMAND.main
