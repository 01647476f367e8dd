r"""Rotates images by quarter turns.

Run a source and a consumer in two terminals, in either order, and look at the result in a third::

    pvapy-stream sim --channel-name pvapy:image --n-x-pixels 128 --n-y-pixels 64 \
        --wait-for-clients 1
    pvapy-stream consumer --input-channel pvapy:image --output-channel pvapy:rotated \
        --control-channel pvapy:control --processor-file examples/rotate_image.py \
        --processor-class RotateImage --processor-args '{"k": 1}'
    pvget pvapy:rotated -r 'uniqueId,dimension'

Change the angle while it runs::

    pvput pvapy:control '{"command": "configure", "args": "{\"k\": 2}"}'

Without a network::

    pvapy-stream try examples/rotate_image.py:RotateImage --args '{"k": 1}'
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pvaccess as pva

from pvapy_stream import Frame, FrameProcessor


class RotateImage(FrameProcessor):
    """Argument: k, quarter turns counter-clockwise (default 1)."""

    def __init__(self, configDict: dict[str, Any] | None = None) -> None:
        super().__init__(configDict)
        self.k = 1
        self.n_rotated = 0
        self.configure(configDict or {})

    def configure(self, configDict: dict[str, Any]) -> None:
        self.k = int(configDict.get("k", self.k)) % 4

    def process_frame(self, frame: Frame) -> Frame:
        if self.k == 0:
            # The same frame back costs nothing: the object is handed on as it came.
            return frame
        self.n_rotated += 1
        return frame.replace(np.rot90(frame.image, self.k))

    def resetStats(self) -> None:
        self.n_rotated = 0

    def getStats(self) -> dict[str, Any]:
        return {"nRotated": self.n_rotated, "quarterTurns": self.k}

    def getStatsPvaTypes(self) -> dict[str, Any]:
        return {"nRotated": pva.ULONG, "quarterTurns": pva.INT}
