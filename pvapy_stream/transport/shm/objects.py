"""What a receiver delivers: objects that look into shared memory."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import Frame
from pvapy_stream.pva import ntndarray, serial
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.pva.ntndarray import ObjectBuilder, to_frame
from pvapy_stream.transport.shm.frames import FRAME, OPENING, Copy, Header, frame_at


class SharedObject(LazyObject):
    """An object in shared memory, which is given back when nothing looks into it any more."""

    __slots__ = ("_builder", "_header", "_memory")

    def __init__(self, header: Header, memory: Any, builder: ObjectBuilder) -> None:
        super().__init__(None)
        self.id = header.id if header.kind == FRAME else None
        self._header = header
        self._memory = memory
        self._builder = builder

    @property
    def marked(self) -> bool:
        return bool(self._header.flags & OPENING)

    def _make_frame(self) -> Frame:
        if self._header.kind == FRAME:
            return frame_at(self._header, self._memory)
        return to_frame(self.pv_object())

    def _make_object(self) -> Any:
        header = self._header
        if header.kind != FRAME:
            at = header.payload_at
            return serial.loads(memoryview(self._memory).cast("B")[at : at + header.payload])
        obj = self._builder.build(self.frame)
        if header.stamp_ns:
            seconds, nanoseconds = divmod(header.stamp_ns, 1_000_000_000)
            obj.setLong("timeStamp.secondsPastEpoch", seconds)
            obj.setInt("timeStamp.nanoseconds", nanoseconds)
        return obj

    @property
    def time_ns(self) -> int:
        header = self._header
        return header.time_ns if header.kind == FRAME else ntndarray.time_of(self.pv_object())

    def parts(self) -> Copy:
        """What is needed to write it elsewhere."""
        return Copy(self._header, self._memory)

    def detach(self) -> None:
        """Copy it to memory of our own."""
        used = self._header.payload_at + self._header.payload
        self._memory = bytes(memoryview(self._memory).cast("B")[:used])


class Newest(LazyObject):
    """An id without an object."""

    __slots__ = ()

    def __init__(self, value: int) -> None:
        super().__init__(None)
        self.id = value

    def pv_object(self) -> Any:
        raise ObjectError("only the id of the newest object is known")


@lru_cache(maxsize=64)
def memory_type(size: int) -> Any:
    """A type of memory that gives its sample back when nobody looks into it any more."""

    def forget(self: Any) -> None:
        self.borrowed.pop()

    return type("Memory", (ctypes.c_uint8 * size,), {"__del__": forget})
