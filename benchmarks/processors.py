"""Processors of the benchmarks for our consumer; their twins are in `pvapy_processors.py`."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.notes import Notes
from pvapy_stream.frame import Frame
from pvapy_stream.hpc.frame_batch import FrameBatch
from pvapy_stream.hpc.processor import FrameProcessor, UserDataProcessor


class Transpose(FrameProcessor):
    """Swaps rows and columns."""

    def process_frame(self, frame: Frame) -> Frame:
        return frame.replace(image=frame.image.T)


class Mean(FrameProcessor):
    """The mean of each image, which is published with none of them."""

    gathers = True
    means: Any = None

    def process_frame(self, frame: Frame) -> None:
        self.means = frame.image.mean()

    def process_batch(self, frames: FrameBatch) -> None:
        self.means = frames.images.mean(axis=(1, 2))


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


class Pausing(UserDataProcessor):
    """Passes objects on, and stops once: at an id, for some seconds."""

    def __init__(self, configDict: dict[str, Any]) -> None:
        super().__init__(configDict)
        self._at, self._pause = configDict["at"], configDict["pause"]

    def process(self, pvObject: Any) -> Any:
        if self._at and pvObject["uniqueId"] % self._at == 0:
            self._at = 0
            time.sleep(self._pause)
        return pvObject


class Working(FrameProcessor):
    """Needs some seconds for a frame: computes, or waits as for a disk."""

    def __init__(self, configDict: dict[str, Any]) -> None:
        super().__init__(configDict)
        self._seconds, self._waits = configDict["seconds"], configDict.get("waits", False)

    def process_frame(self, frame: Frame) -> Frame:
        if self._waits:
            time.sleep(self._seconds)
        else:
            end = time.thread_time() + self._seconds
            while time.thread_time() < end:
                pass
        return frame
