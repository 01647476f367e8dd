"""Processors of the benchmarks for our consumer; their twins are in `pvapy_processors.py`."""

from __future__ import annotations

from typing import Any

from benchmarks.notes import Notes
from pvapy_stream.frame import Frame
from pvapy_stream.hpc.processor import FrameProcessor, UserDataProcessor


class Transpose(FrameProcessor):
    """Swaps rows and columns."""

    def process_frame(self, frame: Frame) -> Frame:
        return frame.replace(image=frame.image.T)


class Noting(UserDataProcessor):
    """Passes objects on, and notes which and when in the file that its arguments name."""

    def __init__(self, configDict: dict[str, Any]) -> None:
        super().__init__(configDict)
        self._notes = Notes(configDict["file"])

    def process(self, pvObject: Any) -> Any:
        self.updateOutputChannel(pvObject)
        self._notes.add(pvObject)
        return pvObject

    def stop(self) -> None:
        self._notes.write()
