"""What the pixels of a frame say: its id, its number, and which stages worked on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 16
KEEPS = 3  # a hit finder passes on one frame of so many

_ID_BITS = 40
_MASK = (1 << _ID_BITS) - 1
# What each stage adds to all pixels, by XOR: twice the same stage takes it off again.
MARKS = {"consumer": 0x15 << _ID_BITS, "collector": 0x2A0 << _ID_BITS}


def pixels_of(frame_id: int, number: int) -> NDArray[np.uint64]:
    """An image of a frame: the first pixel is its id, all others its number in the run.

    Args:
        frame_id: may come again, when a source starts again.
        number: of this frame alone.
    """
    made = np.full((SIDE, SIDE), number, np.uint64)
    made[0, 0] = frame_id
    return made


def marked(image: NDArray[Any], stage: str) -> NDArray[Any]:
    """The image with the mark of a stage."""
    return image ^ np.uint64(MARKS[stage])


def read(image: NDArray[Any]) -> tuple[int, int, int]:
    """Id, number and marks of an image; the marks are -1 where pixels do not agree."""
    first, rest = int(image[0, 0]), image.ravel()[1:]
    number = int(rest[0])
    marks = first & ~_MASK
    whole = bool((rest == rest[0]).all()) and number & ~_MASK == marks
    return first & _MASK, number & _MASK, marks if whole else -1


def marks_of(stages: Sequence[str]) -> int:
    """The marks that a result has after these stages."""
    total = 0
    for stage in stages:
        total ^= MARKS.get(stage, 0)
    return total


def is_hit(frame_id: int) -> bool:
    """Whether the hit finder keeps a frame; irregular."""
    return (frame_id * 2654435761 >> 7) % KEEPS == 0
