"""Averages each image with those before it: less noise, at the price of some memory in time.

Run a source and a consumer in two terminals, in either order::

    pvapy-stream sim --channel-name pvapy:image --datatype uint16 --wait-for-clients 1
    pvapy-stream consumer --input-channel pvapy:image --output-channel pvapy:average \
        --processor-file examples/moving_average.py --processor-class MovingAverage \
        --processor-args '{"n": 10}'

Over frames of a file, without a network::

    pvapy-stream try examples/moving_average.py:MovingAverage --input scan.h5 --args '{"n": 10}'

One consumer must see the whole stream: do not split it over several with --n-consumers.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pvaccess as pva

from pvapy_stream import Frame, FrameProcessor


class MovingAverage(FrameProcessor):
    """Publishes the mean of the last n images as float32, with the id and time of the last.

    Argument: n, images in the window (default 5). Until there are so many, the mean is over those
    there are.
    """

    def __init__(self, configDict: dict[str, Any] | None = None) -> None:
        super().__init__(configDict)
        self.n = 5
        self._window: deque[Any] = deque()
        self._sum: Any = None
        self.configure(configDict or {})

    def configure(self, configDict: dict[str, Any]) -> None:
        n = int(configDict.get("n", self.n))
        if n < 1:
            raise ValueError(f"n must be 1 or more, not {n}")
        self.n = n

    def process_frame(self, frame: Frame) -> Frame:
        image = frame.image
        if self._sum is None or self._sum.shape != image.shape:
            # The detector's region has changed: images of different sizes have no mean.
            self._window.clear()
            self._sum = np.zeros(image.shape, np.float64)
        # A running sum: the work does not grow with the window.
        self._window.append(image)
        self._sum += image
        while len(self._window) > self.n:
            self._sum -= self._window.popleft()
        return frame.replace((self._sum / len(self._window)).astype(np.float32))

    def getStats(self) -> dict[str, Any]:
        return {"nInWindow": len(self._window)}

    def getStatsPvaTypes(self) -> dict[str, Any]:
        return {"nInWindow": pva.UINT}
