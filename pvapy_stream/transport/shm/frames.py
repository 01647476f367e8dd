"""What lies in shared memory: a header of fixed size, attributes, and the pixels or an object.

The header has a version; a receiver refuses any other. Numbers are little-endian. Behind it come
the attributes (MessagePack, see `attributes`), and then the payload, at a multiple of 64 bytes:
pixels, compressed pixels, or an object as `pva.serial` writes it.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pvaccess as pva

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import ColorMode, Frame
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.pva.ntndarray import to_frame
from pvapy_stream.pva.objects import IdReader, id_reader
from pvapy_stream.pva.serial import ObjectWriter
from pvapy_stream.transport.shm.attributes import WireAttributes, wire_of_frame, wire_of_object

VERSION = 1
NOTHING, FRAME, OBJECT = range(3)
INITIAL = 1  # flag: no new object, but the current one, for a subscriber that has just come
OPENING = 2  # flag: shown to open the channel, no frame
EVERYBODY = bytes(16)

_MAGIC = b"PVSF"
_ALIGN = 64
_DIMENSIONS = 6
_NO_DIMENSIONS = (0,) * _DIMENSIONS
_HEADER = struct.Struct("<4sHBB Q qqq QQIII BBBB 16s 6Q 16s")
_pack_into = _HEADER.pack_into
# What a sample has of its own, when all else is the same: flags and sequence, chunk, target.
_pack_flags, _pack_chunk, _pack_target = (
    struct.Struct(f"<{form}").pack_into for form in ("BQ", "Q", "16s")
)
_FLAGS_AT, _CHUNK_AT, _TARGET_AT = (
    struct.calcsize(f"<{form}") for form in ("4sHB", "4sHBB Q qqq", "4sHBB Q qqq QQIII BBBB 16s 6Q")
)
_unpack_from = _HEADER.unpack_from
HEADER_BYTES = _HEADER.size
_HEADER_ROOM = -(-HEADER_BYTES // _ALIGN) * _ALIGN

_DTYPES = tuple(
    np.dtype(name)
    for name in (
        "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32",
        "float64", "bool",
    )
)  # fmt: skip
_UINT8 = _DTYPES[0]
_CODES = {dtype: code for code, dtype in enumerate(_DTYPES)}
_NANO = 1_000_000_000
_new: Any = tuple.__new__


class Header(NamedTuple):
    """The header as it stands in memory.

    Attributes:
        sequence: number of the sample in its lane, without gaps.
        id: object id; 0 when unknown.
        time_ns: time of the data; stamp_ns: of the record, 0 for the same. ns since 1970.
        chunk: bytes of the memory that the sample is in.
        payload: bytes of the payload; attributes: bytes of the attributes.
        dtype: number of the type of one pixel; stored: of one element of the payload.
        target: subscriber that an initial object is for; zeros for all.
    """

    magic: bytes
    version: int
    kind: int
    flags: int
    sequence: int
    id: int
    time_ns: int
    stamp_ns: int
    chunk: int
    payload: int
    attributes: int
    attributes_at: int
    payload_at: int
    n_dimensions: int
    dtype: int
    stored: int
    color_mode: int
    codec: bytes
    d0: int
    d1: int
    d2: int
    d3: int
    d4: int
    d5: int
    target: bytes

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions, slowest first."""
        return (self.d0, self.d1, self.d2, self.d3, self.d4, self.d5)[: self.n_dimensions]


@dataclass(slots=True)
class Parts:
    """An object ready to be written; the payload is not copied yet."""

    kind: int
    id: int
    time_ns: int = 0
    stamp_ns: int = 0
    attributes: bytes = b""
    payload: Any = None
    nbytes: int = 0
    shape: tuple[int, ...] = ()
    dtype: int = 0
    stored: int = 0
    color_mode: int = 0
    codec: bytes = b""

    @property
    def room(self) -> int:
        """Bytes it takes, wherever the memory begins."""
        return _HEADER_ROOM + len(self.attributes) + 2 * _ALIGN + self.nbytes

    def write(
        self, memory: Any, address: int, chunk: int, sequence: int, flags: int = 0,
        target: bytes = EVERYBODY,
    ) -> None:  # fmt: skip
        """Write into memory that begins at an address and has `room` bytes."""
        attributes_at = _HEADER_ROOM
        end = attributes_at + len(self.attributes)
        payload_at = end + -(address + end) % _ALIGN
        _pack_into(
            memory, 0, _MAGIC, VERSION, self.kind, flags, sequence, self.id, self.time_ns,
            self.stamp_ns, chunk, self.nbytes, len(self.attributes), attributes_at, payload_at,
            len(self.shape), self.dtype, self.stored, self.color_mode, self.codec,
            *(self.shape + _NO_DIMENSIONS)[:_DIMENSIONS], target,
        )  # fmt: skip
        into = np.frombuffer(memory, np.uint8)
        if self.attributes:
            into[attributes_at:end] = np.frombuffer(self.attributes, np.uint8)
        if self.kind == FRAME:
            into[payload_at : payload_at + self.nbytes] = self.payload
        elif self.kind == OBJECT:
            for part in self.payload:
                size = len(part)
                into[payload_at : payload_at + size] = np.frombuffer(part, np.uint8)
                payload_at += size


class Copy:
    """An object in shared memory, ready to be written elsewhere as it lies there.

    Attributes: as those of `Parts`.
    """

    __slots__ = ("_address", "_header", "_used", "id", "room")

    def __init__(self, header: Header, memory: Any) -> None:
        self._header = header
        end = header.payload_at + header.payload
        self._used = np.frombuffer(memory, np.uint8, end)
        self._address = (
            ctypes.addressof(memory)
            if isinstance(memory, ctypes.Array)
            else self._used.__array_interface__["data"][0]
        )
        self.id = header.id
        self.room = end + 2 * _ALIGN

    def write(
        self, memory: Any, address: int, chunk: int, sequence: int, flags: int = 0,
        target: bytes = EVERYBODY,
    ) -> None:  # fmt: skip
        """Write into memory that begins at an address and has `room` bytes."""
        used = self._used
        if (address - self._address) % _ALIGN:
            # The payload has to begin elsewhere.
            parts = copy_parts(self._header, used)
            parts.write(memory, address, chunk, sequence, flags, target)
            return
        np.frombuffer(memory, np.uint8, len(used))[:] = used
        _pack_flags(memory, _FLAGS_AT, flags, sequence)
        _pack_chunk(memory, _CHUNK_AT, chunk)
        _pack_target(memory, _TARGET_AT, target)


# What a publisher sends.
Ready = Parts | Copy


def read_header(memory: Any) -> Header:
    """The header at the beginning of memory.

    Raises:
        ObjectError: another version, or no header of ours.
    """
    header = _new(Header, _unpack_from(memory, 0))
    if header.magic != _MAGIC or header.version != VERSION:
        raise ObjectError(
            f"shared memory holds {header.magic!r} of version {header.version}, not {_MAGIC!r} of"
            f" version {VERSION}; both sides must run versions of pvapy_stream that fit together"
        )
    return header


def frame_at(header: Header, memory: Any) -> Frame:
    """A frame that looks into memory; its arrays keep `memory` alive."""
    stored = _DTYPES[header.stored]
    payload = np.frombuffer(
        memory, stored, header.payload // stored.itemsize, offset=header.payload_at
    )
    payload.flags.writeable = False
    return Frame(
        header.id,
        payload,
        header.shape,
        time_ns=header.time_ns,
        dtype=_DTYPES[header.dtype],
        codec=header.codec.rstrip(b"\0").decode() if header.codec[0] else "",
        color_mode=ColorMode(header.color_mode),
        attributes=attributes_at(header, memory),
    )


def attributes_at(header: Header, memory: Any) -> WireAttributes:
    """The attributes, copied out of memory; they are small."""
    at = header.attributes_at
    return WireAttributes(bytes(memoryview(memory)[at : at + header.attributes]))


def copy_parts(header: Header, memory: Any) -> Parts:
    """What is in memory, to be written elsewhere; it keeps `memory` alive."""
    view = np.frombuffer(memory, np.uint8, header.payload, header.payload_at)
    at = header.attributes_at
    return Parts(
        header.kind, header.id, header.time_ns, header.stamp_ns,
        bytes(memoryview(memory)[at : at + header.attributes]),
        view if header.kind == FRAME else [view.data],
        header.payload, header.shape, header.dtype, header.stored,
        header.color_mode, header.codec,
    )  # fmt: skip


def parts_of_frame(frame: Frame, attributes: bytes | None = None, stamp_ns: int = 0) -> Parts:
    """A frame made ready.

    Raises:
        ObjectError: a pixel type or a number of dimensions that has no place in the header.
    """
    payload = frame.payload
    flat = payload
    if payload.ndim != 1 or payload.dtype != _UINT8 or not payload.flags.c_contiguous:
        flat = np.ascontiguousarray(payload).reshape(-1).view(np.uint8)
    dtype, stored = _CODES.get(frame.dtype), _CODES.get(payload.dtype)
    codec = frame.codec.encode()
    if dtype is None or stored is None or len(frame.stored_shape) > _DIMENSIONS or len(codec) > 16:
        raise ObjectError(
            f"frame {frame.id} of {payload.dtype} with {len(frame.stored_shape)} dimensions and"
            f" codec {frame.codec!r} cannot be published in shared memory"
        )
    return Parts(
        FRAME,
        frame.id,
        frame.time_ns,
        stamp_ns,
        wire_of_frame(frame) if attributes is None else attributes,
        flat,
        payload.nbytes,
        frame.stored_shape,
        dtype,
        stored,
        int(frame.color_mode),
        codec,
    )


class Encoder:
    """Makes the objects of one stream ready to be written. Not locked.

    Args:
        id_field: field with the id of objects that are no images.
    """

    _IMAGE_FIELDS = tuple(pva.NtNdArray().keys())

    def __init__(self, id_field: str) -> None:
        self._id_field = id_field
        self._writer = ObjectWriter()
        self._read_id: IdReader | None = None

    def parts(self, obj: Any) -> Parts:
        """A PvObject, or what `pva.lazy` hands on, made ready.

        Raises:
            ObjectError: it cannot be told in bytes.
        """
        if isinstance(obj, LazyObject):
            # Of the class: an object that lacks it would look into a PvObject.
            ready = getattr(type(obj), "parts", None)
            if ready is not None:
                return ready(obj)
            if obj.id is not None:
                return parts_of_frame(obj.frame)
            obj = obj.pv_object()
        if tuple(obj.keys()) == self._IMAGE_FIELDS:
            found = self._image(obj)
            if found is not None:
                return found
        return self._general(obj)

    def _image(self, obj: Any) -> Parts | None:
        try:
            frame = to_frame(obj)
            wire = wire_of_object(obj)
            if wire is None:
                return None
            stamp = obj.getLong("timeStamp.secondsPastEpoch") * _NANO
            return parts_of_frame(frame, wire, stamp + obj.getInt("timeStamp.nanoseconds"))
        except ObjectError:
            # An NTNDArray without an image, or with one that only it can describe.
            return None

    def _general(self, obj: Any) -> Parts:
        payload = self._writer.parts(obj)
        value = 0
        if obj.hasField(self._id_field):
            if self._read_id is None:
                self._read_id = id_reader(self._id_field, obj)
            value = self._read_id(obj)
        return Parts(OBJECT, value, payload=payload, nbytes=sum(len(part) for part in payload))
