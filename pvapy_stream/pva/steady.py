"""Payloads that are sent some time after they were published, and must not change until then."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from pvapy_stream.frame import Frame

Pixels = NDArray[np.generic]


def steady_payload(frame: Frame) -> Pixels:
    """The payload of a frame, or a copy if other code could write to it.

    An array that is read-only, or that only the frame refers to, is not copied. So a processor that
    returns a new array each time causes no copy; one that reuses its array does.
    """
    payload = frame.payload
    owner = _owner(payload)
    if not owner.flags.writeable or (owner.base is None and _is_alone(frame)):
        return payload if payload.flags.c_contiguous else np.ascontiguousarray(payload)
    return payload.copy()


def freeze(frame: Frame) -> Frame:
    """Make the payload of a frame read-only, and return the frame."""
    frame.payload.flags.writeable = False
    _owner(frame.payload).flags.writeable = False
    return frame


def _owner(array: Pixels) -> Pixels:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _is_alone(frame: Frame) -> bool:
    return all(map(int.__le__, _references(frame), _ALONE))


def _references(frame: Frame) -> tuple[int, int]:
    """Numbers of references to a payload, and to the array of which it is a view."""
    payload = frame.payload
    owner = _owner(payload)
    return sys.getrefcount(payload), sys.getrefcount(owner)


# Numbers for a payload to which only its frame refers, counted as in `steady_payload`.
def _count_alone() -> tuple[int, int]:
    frame = Frame(0, np.zeros((2, 2), np.uint8).reshape(-1), (2, 2))
    payload = frame.payload
    owner = _owner(payload)
    return _references(frame) if owner is not payload else (0, 0)


_ALONE = _count_alone()
