"""What the tests of files share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pvapy_stream.files.nexus import FrameWriter
from pvapy_stream.frame import Frame
from pvapy_stream.settings import FileSettings

WRITE_FOR_EVER = """
import sys, time, itertools
from tests.files.support import frame, writer
with writer(sys.argv[1], compression=sys.argv[2]) as w:
    for number in itertools.count(1):
        w.write(frame(number, late=number) if number > 50 else frame(number))
        print(number, time.monotonic(), flush=True)
        time.sleep(0.002)
"""


def pixels(number: int, shape: tuple[int, ...] = (8, 6), dtype: str = "u2") -> np.ndarray:
    """An image that tells its number."""
    return (np.arange(np.prod(shape)).reshape(shape) + number).astype(dtype)


def frame(
    number: int, shape: tuple[int, ...] = (8, 6), dtype: str = "u2", **attributes: Any
) -> Frame:
    return Frame.of(
        number,
        pixels(number, shape, dtype),
        time_ns=number * 1000,
        attributes={"exposure": number / 2, **attributes},
    )


def writer(path: object, processor_id: int = 1, account: Any = None, **options: Any) -> FrameWriter:
    return FrameWriter(FileSettings.of(output=str(path), **options), processor_id, account)


def write(path: Path, numbers: Iterable[int], ledger: Any = None, **options: Any) -> Path:
    made = writer(path, **options)
    for number in numbers:
        made.write(frame(number))
    made.close(ledger)
    return path


def start(code: str, *args: object) -> subprocess.Popen[str]:
    """A Python process with its output in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
