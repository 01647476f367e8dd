"""Objects that a receiver delivers, which read from shared memory."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import iceoryx2 as iox
import numpy as np
import numpy.typing as npt
import pvaccess as pva

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import Frame
from pvapy_stream.pva import ntndarray, serial
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.pva.ntndarray import ObjectBuilder, to_frame
from pvapy_stream.transport.shm.frames import (
    FRAME,
    OPENING,
    Copy,
    SampleHeader,
    Sendable,
    copy_parts,
    frame_at,
    parts_of_frame,
)


class SharedObject(LazyObject):
    """An object in shared memory, which is released when nothing refers to the memory.

    Args:
        header: its header.
        memory: the sample that it is in, or the slot that its payload is in; or a copy of it.
        builder: makes PvObjects of frames.
        attributes: its attributes, if only the payload is in `memory`.
    """

    __slots__ = ("_attributes", "_builder", "_header", "_memory", "_moved")

    def __init__(
        self,
        header: SampleHeader,
        memory: SampleMemory | HeldMemory | bytes,
        builder: ObjectBuilder,
        attributes: bytes | None = None,
    ) -> None:
        super().__init__(None)
        self.id = header.id if header.kind == FRAME else None
        self._header = header
        self._memory = memory
        self._attributes = attributes
        # Rows of memory and the number of the row that the payload is in, if it was moved.
        self._moved: tuple[npt.NDArray[np.uint8], int] | None = None
        self._builder = builder

    @property
    def marked(self) -> bool:
        return bool(self._header.flags & OPENING)

    def _make_frame(self) -> Frame:
        if self._header.kind == FRAME:
            moved = self._moved
            payload = None if moved is None else moved[0][moved[1]]
            return frame_at(self._header, self._memory, self._attributes, payload)
        return to_frame(self.pv_object())

    def _make_object(self) -> pva.PvObject:
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
    def stamp_ns(self) -> int:
        return self._header.stamp_ns

    @property
    def time_ns(self) -> int:
        header = self._header
        return header.time_ns if header.kind == FRAME else ntndarray.time_of(self.pv_object())

    def parts(self) -> Sendable:
        """The object, to be published unchanged in shared memory."""
        if self._moved is not None:
            return parts_of_frame(self.frame, stamp_ns=self._header.stamp_ns)
        if self._attributes is None:
            return Copy(self._header, self._memory)
        return copy_parts(self._header, self._memory, self._attributes)

    @property
    def form(self) -> tuple[object, ...]:
        # Dimensions, types, colour mode and codec. No frame is made for this.
        return self._header[13:24] if self._header.kind == FRAME else super().form

    @property
    def movable(self) -> int:
        header = self._header
        is_pixels = header.kind == FRAME and not header.codec[0]
        return header.payload if is_pixels and not isinstance(self._memory, bytes) else 0

    def detach(self) -> None:
        """Copy it to memory of this process, which releases the shared memory."""
        if isinstance(self._memory, bytes):
            return
        used = self._header.payload_at + self._header.payload
        self._memory = bytes(memoryview(self._memory).cast("B")[:used])
        self._frame = None

    def move_to(self, rows: npt.NDArray[np.uint8], row: int, address: int) -> None:
        header, memory = self._header, self._memory
        if isinstance(memory, bytes):
            return
        ctypes.memmove(address, ctypes.addressof(memory) + header.payload_at, header.payload)
        self._moved, self._frame = (rows, row), None
        # What is left of it are the attributes.
        end = header.payload_at if header.attributes and self._attributes is None else 0
        self._memory = bytes(memoryview(memory).cast("B")[:end]) if end else b""


class NewestId(LazyObject):
    """An id without an object."""

    __slots__ = ()

    def __init__(self, value: int) -> None:
        super().__init__(None)
        self.id = value

    def pv_object(self) -> pva.PvObject:
        raise ObjectError("the fields of the newest object are not known, only its id")


@lru_cache(maxsize=64)
def sample_memory_type(size: int) -> type[SampleMemory]:
    """Type of the memory of a sample; its end releases the sample.

    Args:
        size: bytes of the memory.
    """

    def release(self: SampleMemory) -> None:
        self.borrowed.pop()

    memory_type = type("SampleMemory", (ctypes.c_uint8 * size,), {"__del__": release})
    return cast("type[SampleMemory]", memory_type)


if TYPE_CHECKING:
    from pvapy_stream.transport.shm.slot_memory import HeldMemory

    class SampleMemory(ctypes.Array[ctypes.c_uint8]):
        """Memory of a received sample, of a type from `sample_memory_type`.

        Attributes:
            sample: the sample, which lives as long as its memory.
            borrowed: list with one item for each sample of its receiver that is in use.
        """

        sample: iox.Sample
        borrowed: list[None]
