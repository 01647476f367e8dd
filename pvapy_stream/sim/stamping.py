"""What the simulator hands to its publisher: PvObjects, or frames where it needs none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pvaccess as pva
from msgspec import Struct

from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import LazyObject, StreamObject
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.pva.steady import freeze
from pvapy_stream.transport.ports import Publisher

_NANO = 1_000_000_000


class Stamping(Struct, frozen=True):
    """How frames are built ahead, and what is done with each when its turn comes.

    Attributes:
        build: makes what is kept of a frame; None for a PvObject.
        stamp: gives it an id and the time, ns since 1970, and returns what is published.
    """

    build: Callable[[Frame], object] | None
    stamp: Callable[[Any, int, int], StreamObject]


def stamping_for(publisher: Publisher) -> Stamping:
    """Frames for a publisher that takes them, else PvObjects."""
    return _FRAMES if publisher.takes_lazy else _OBJECTS


def stamp_object(obj: pva.PvObject, frame_id: int, time_ns: int) -> pva.PvObject:
    """Set id and times of an NTNDArray."""
    seconds, nanoseconds = divmod(time_ns, _NANO)
    obj.setInt("uniqueId", frame_id)
    obj.setLong("timeStamp.secondsPastEpoch", seconds)
    obj.setInt("timeStamp.nanoseconds", nanoseconds)
    obj.setLong("dataTimeStamp.secondsPastEpoch", seconds)
    obj.setInt("dataTimeStamp.nanoseconds", nanoseconds)
    return obj


_builder = ObjectBuilder()


def stamp_frame(frame: Frame, frame_id: int, time_ns: int) -> LazyObject:
    """A frame with another id and time."""
    return LazyObject(frame.replace(id=frame_id, time_ns=time_ns), _builder.build)


_OBJECTS = Stamping(None, stamp_object)
_FRAMES = Stamping(freeze, stamp_frame)
