"""The processors of `processors.py` as users of pvapy's own framework write them."""

from __future__ import annotations

from typing import Any

import numpy as np
from pvapy.hpc.adImageProcessor import AdImageProcessor
from pvapy.hpc.userDataProcessor import UserDataProcessor

from benchmarks.notes import Notes


class Transpose(AdImageProcessor):
    """Swaps rows and columns."""

    def process(self, pvObject: Any) -> Any:
        image_id, image, *_ = self.reshapeNtNdArray(pvObject)
        made = self.generateNtNdArray2D(image_id, np.transpose(image))
        self.updateOutputChannel(made)
        return made


class Mean(AdImageProcessor):
    """The mean of each image, which is published with none of them."""

    mean: Any = None

    def process(self, pvObject: Any) -> Any:
        image: Any = self.reshapeNtNdArray(pvObject)[1]
        self.mean = image.mean()
        return pvObject


class Noting(UserDataProcessor):
    """Passes objects on, and notes which and when in the file that its arguments name."""

    def __init__(self, configDict: dict[str, Any]) -> None:
        UserDataProcessor.__init__(self, configDict)
        self._notes = Notes(configDict["file"])

    def process(self, pvObject: Any) -> Any:
        self.updateOutputChannel(pvObject)
        self._notes.add(pvObject)
        return pvObject

    def stop(self) -> None:
        self._notes.write()
