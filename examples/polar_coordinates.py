"""Processes a stream that is no images: points {id, x, y} become {id, radius, angle}.

Run the source of this file and a consumer in two terminals, in either order, and look at the
result in a third::

    python examples/polar_coordinates.py example:points
    pvapy-stream consumer --input-channel example:points --output-channel example:polar \
        --oid-field id --processor-file examples/polar_coordinates.py \
        --processor-class PolarCoordinates
    pvmonitor example:polar
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import pvaccess as pva

from pvapy_stream import UserDataProcessor

POINT = {"id": pva.ULONG, "x": pva.DOUBLE, "y": pva.DOUBLE}
POLAR = {"id": pva.ULONG, "radius": pva.DOUBLE, "angle": pva.DOUBLE}


class PolarCoordinates(UserDataProcessor):
    """Publishes radius and angle (degrees) of each point."""

    def getOutputPvObjectType(self, pvObject: Any) -> Any:
        # The output channel keeps this structure; all that is published must have it.
        return pva.PvObject(POLAR)

    def process(self, pvObject: Any) -> Any:
        x, y = pvObject["x"], pvObject["y"]
        polar = pva.PvObject(
            POLAR,
            {
                "id": pvObject["id"],
                "radius": math.hypot(x, y),
                "angle": math.degrees(math.atan2(y, x)),
            },
        )
        self.updateOutputChannel(polar)
        return polar


def publish_points(channel: str, seconds: float = 60.0, rate: float = 10.0) -> None:
    """Host a channel with a point that goes round, for some time; rate: 1/s."""
    server = pva.PvaServer(channel, pva.PvObject(POINT))
    for number in range(1, int(seconds * rate) + 1):
        angle = number / 10
        server.update(
            channel,
            pva.PvObject(POINT, {"id": number, "x": 2 * math.cos(angle), "y": math.sin(angle)}),
        )
        time.sleep(1 / rate)


if __name__ == "__main__":
    publish_points(sys.argv[1] if len(sys.argv) > 1 else "example:points")
