"""Adds the mean of each image as an attribute; the means of many images are one call of numpy.

Run a source and a consumer in two terminals, in either order::

    pvapy-stream sim --channel-name pvapy:image --output-mode shm --datatype uint16 \
        --n-x-pixels 128 --n-y-pixels 128 --frame-rate 2000 --wait-for-clients 1
    pvapy-stream consumer --input-channel pvapy:image --input-mode shm \
        --output-channel pvapy:means --output-mode shm --batch-size 64 --batch-timeout 0.01 \
        --processor-file examples/batch_means.py --processor-class BatchMeans

Over frames of a file, without a network::

    pvapy-stream try examples/batch_means.py:BatchMeans --input scan.h5 --batch-size 64
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pvapy_stream import Frame, FrameBatch, FrameProcessor


class BatchMeans(FrameProcessor):
    """Adds the attribute Mean. Images whose mean is below the threshold are dropped.

    Argument: threshold (default 0).
    """

    def __init__(self, configDict: dict[str, Any] | None = None) -> None:
        super().__init__(configDict)
        self.threshold = 0.0
        self.configure(configDict or {})

    def configure(self, configDict: dict[str, Any]) -> None:
        self.threshold = float(configDict.get("threshold", self.threshold))

    def process_batch(self, frames: FrameBatch) -> list[Frame | None]:
        images = frames.images
        means = images.mean(axis=tuple(range(1, images.ndim)), dtype=np.float64).tolist()
        return [
            frame.replace(attributes={**frame.attributes, "Mean": mean})
            if mean >= self.threshold
            else None
            for frame, mean in zip(frames, means, strict=True)
        ]
