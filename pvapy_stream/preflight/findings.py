"""What a measurement before a run found."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(slots=True)
class Findings:
    """What was measured.

    Attributes:
        shape: of an image, (ny, nx).
        dtype: of a pixel.
        frame_bytes: size of an image in memory.
        source_rate: frames/s of the running source; 0 without one.
        source_overruns: updates the running source dropped for us.
        link: frames/s of one consumer that only receives.
        processor: frames/s of the processor alone; inf without one.
        disk: frames/s of the writer alone; inf when it was not asked for.
        rate: frames/s that one consumer took with nothing lost.
        n_consumers: how many are needed for the rate that is wanted.
        total_rate: frames/s that so many took with nothing lost.
        server_queue: objects.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    frame_bytes: int
    source_rate: float = 0.0
    source_overruns: int = 0
    link: float = 0.0
    processor: float = math.inf
    disk: float = math.inf
    rate: float = 0.0
    n_consumers: int = 1
    total_rate: float = 0.0
    server_queue: int = 0
    notes: list[str] = field(default_factory=list)


def queue_for(rate: float, frame_bytes: int, pause: float, memory: int) -> int:
    """Objects a queue must hold so that a pause of the client loses none.

    Args:
        rate: frames/s.
        frame_bytes: of one frame.
        pause: s.
        memory: bytes the queue may take.
    """
    return max(2, min(math.ceil(rate * pause) + 1, memory // max(1, frame_bytes)))
