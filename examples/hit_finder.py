"""Passes on frames with enough bright pixels, and drops the others on purpose.

Try it without a network, then stream:

    pvapy-stream try examples/hit_finder.py:HitFinder --args '{"threshold": 200, "minPixels": 20}'
    pvapy-stream consumer --input-channel pvapy:image --output-channel hits:image \
        --processor-file examples/hit_finder.py --processor-class HitFinder \
        --processor-args '{"threshold": 200, "minPixels": 20}'
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pvapy_stream import Frame, FrameProcessor


class HitFinder(FrameProcessor):
    """Keeps frames with at least `minPixels` pixels above `threshold`."""

    def __init__(self, configDict: dict[str, Any] | None = None) -> None:
        super().__init__(configDict)
        self.threshold = 200.0
        self.min_pixels = 20
        self.configure(configDict or {})

    def configure(self, configDict: dict[str, Any]) -> None:
        self.threshold = float(configDict.get("threshold", self.threshold))
        self.min_pixels = int(configDict.get("minPixels", self.min_pixels))

    def process_frame(self, frame: Frame) -> Frame | None:
        n_pixels = int(np.count_nonzero(frame.image > self.threshold))
        if n_pixels < self.min_pixels:
            # Filtered: the ledger notes it, and the stages behind do not count it as missed.
            return None
        return frame.replace(attributes={**frame.attributes, "nPixels": n_pixels})
