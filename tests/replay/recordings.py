"""Recordings for tests: the pixels of each image carry its id."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pvapy_stream.files.recording import RecordingFile
from pvapy_stream.frame import Frame
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.pva.serial import dumps

START = 1_700_000_000_000_000_000  # ns


def pixels(number: int, side: int = 16) -> np.ndarray:
    """An image all of whose pixels are its id."""
    return np.full((side, side), number, np.uint32)


def recording(
    path: Path, ids: Iterable[int] = range(1, 51), period: float = 1e-3, side: int = 16
) -> Path:
    """Record images, one each `period` s."""
    file, build = RecordingFile(path), ObjectBuilder().build
    for n, number in enumerate(ids):
        frame = Frame.of(number, pixels(number, side), time_ns=START + n)
        file.add(START + round(n * period * 1e9), number, [dumps(build(frame))])
        if n % 500 == 0:
            file.flush()
    file.close()
    return path
