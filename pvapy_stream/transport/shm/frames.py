"""Layout of an object in shared memory: header, attributes, and payload.

The header has a fixed size and a version; a receiver refuses every other version. Integers are
little-endian. The attributes (MessagePack, see `attributes`) follow, and then the payload, at an
address that is a multiple of 64 bytes: pixels, compressed pixels, or an object in the format of
`pva.serial`.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import ColorMode, Frame
from pvapy_stream.pva.serial import Buffer
from pvapy_stream.transport.shm.attributes import WireAttributes, wire_of_frame

VERSION = 1
EMPTY, FRAME, OBJECT = range(3)  # kinds
INITIAL = 1  # flag: not a new object, but the current one, for a new subscriber
OPENING = 2  # flag: only opens the channel, not a frame
REFERENCE = 4  # flag: the payload is in a slot of a payload pool, see `references`
ALL_SUBSCRIBERS = bytes(16)  # target

SampleBytes = ctypes.Array[ctypes.c_uint8]

_MAGIC = b"PVSF"
_ALIGN = 64
_DIMENSIONS = 6
_NO_DIMENSIONS = (0,) * _DIMENSIONS
_HEADER = struct.Struct("<4sHBB Q qqq QQIII BBBB 16s 6Q 16s")
_pack_into = _HEADER.pack_into
# Fields that a copy changes: flags and sequence, chunk, target.
_pack_flags, _pack_chunk, _pack_target = (
    struct.Struct(f"<{form}").pack_into for form in ("BQ", "Q", "16s")
)
_FLAGS_AT, _CHUNK_AT, _TARGET_AT = (
    struct.calcsize(f"<{form}") for form in ("4sHB", "4sHBB Q qqq", "4sHBB Q qqq QQIII BBBB 16s 6Q")
)
_unpack_from = _HEADER.unpack_from
HEADER_BYTES = _HEADER.size
_ATTRIBUTES_AT = -(-HEADER_BYTES // _ALIGN) * _ALIGN

_DTYPES = tuple(
    np.dtype(name)
    for name in (
        "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32",
        "float64", "bool",
    )
)  # fmt: skip
_UINT8 = _DTYPES[0]
_CODES = {dtype: code for code, dtype in enumerate(_DTYPES)}
# The constructor of a NamedTuple, without its Python function.
_new = cast(
    "Callable[[type[SampleHeader], tuple[object, ...]], SampleHeader]",
    tuple.__new__,  # pyright: ignore[reportUnknownMemberType]
)
# numpy's types do not know that ctypes arrays have the buffer protocol.
_array_in = cast("Callable[..., npt.NDArray[np.generic]]", np.frombuffer)
_bytes_in = cast("Callable[..., npt.NDArray[np.uint8]]", np.frombuffer)


class SampleHeader(NamedTuple):
    """The header of an object, in the order of its fields in memory.

    Attributes:
        sequence: number of the sample in its service, without gaps.
        id: object id; 0 if unknown.
        time_ns: time of the data, ns since 1970.
        stamp_ns: time of the record, ns since 1970; 0: the same.
        chunk: size of the memory that the sample is in, bytes.
        payload: size of the payload, bytes.
        attributes: size of the attributes, bytes.
        attributes_at, payload_at: offsets of both.
        dtype: code of the type of one pixel.
        stored: code of the type of one element of the payload.
        target: key of the subscriber that an initial object is for; zeros: for all.
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
    """An object that is ready to be written; its payload is not copied yet.

    `memory` is what the payload is in, and `payload_at` its offset there, if that is known.
    """

    kind: int
    id: int
    time_ns: int = 0
    stamp_ns: int = 0
    attributes: bytes = b""
    payload: npt.NDArray[np.uint8] | Sequence[Buffer] | None = None
    nbytes: int = 0
    shape: tuple[int, ...] = ()
    dtype: int = 0
    stored: int = 0
    color_mode: int = 0
    codec: bytes = b""
    memory: object = None
    payload_at: int = 0

    @property
    def attributes_end(self) -> int:
        """Offset of what follows header and attributes."""
        return _ATTRIBUTES_AT + len(self.attributes)

    @property
    def required_size(self) -> int:
        """Bytes of memory it needs, at any alignment."""
        return self.attributes_end + 2 * _ALIGN + self.nbytes

    def write(
        self, memory: SampleBytes, address: int, chunk: int, sequence: int, flags: int = 0,
        target: bytes = ALL_SUBSCRIBERS,
    ) -> None:  # fmt: skip
        """Write into memory of `required_size` bytes that begins at an address."""
        end = self.attributes_end
        payload_at = end + -(address + end) % _ALIGN
        self.write_header(memory, payload_at, chunk, sequence, flags, target)
        self.write_payload(_bytes_in(memory, np.uint8), payload_at)

    def write_header(
        self, memory: SampleBytes, payload_at: int, chunk: int, sequence: int, flags: int,
        target: bytes,
    ) -> int:  # fmt: skip
        """Write all but the payload; offset of what follows the attributes."""
        attributes = self.attributes
        end = _ATTRIBUTES_AT + len(attributes)
        _pack_into(
            memory, 0, _MAGIC, VERSION, self.kind, flags, sequence, self.id, self.time_ns,
            self.stamp_ns, chunk, self.nbytes, len(attributes), _ATTRIBUTES_AT, payload_at,
            len(self.shape), self.dtype, self.stored, self.color_mode, self.codec,
            *(self.shape + _NO_DIMENSIONS)[:_DIMENSIONS], target,
        )  # fmt: skip
        if attributes:
            memoryview(memory).cast("B")[_ATTRIBUTES_AT:end] = attributes
        return end

    def write_payload(self, into: npt.NDArray[np.uint8], payload_at: int = 0) -> None:
        """Write the payload into memory of this process or of all."""
        payload = self.payload
        if isinstance(payload, np.ndarray):
            into[payload_at : payload_at + self.nbytes] = payload
        elif payload is not None:
            for part in payload:
                size = len(part)
                into[payload_at : payload_at + size] = np.frombuffer(part, np.uint8)
                payload_at += size


class Copy:
    """An object in shared memory, to be copied unchanged into other shared memory.

    Attributes: as those of `Parts`.
    """

    __slots__ = ("_address", "_header", "_used", "id", "nbytes", "required_size")

    def __init__(self, header: SampleHeader, memory: SampleBytes | bytes) -> None:
        self._header = header
        end = header.payload_at + header.payload
        self._used = _bytes_in(memory, np.uint8, end)
        self._address = (
            ctypes.addressof(memory)
            if isinstance(memory, ctypes.Array)
            else self._used.__array_interface__["data"][0]
        )
        self.id = header.id
        self.nbytes = header.payload
        self.required_size = end + 2 * _ALIGN

    def parts(self) -> Parts:
        """The object with its payload apart."""
        return copy_parts(self._header, self._used)

    def write(
        self, memory: SampleBytes, address: int, chunk: int, sequence: int, flags: int = 0,
        target: bytes = ALL_SUBSCRIBERS,
    ) -> None:  # fmt: skip
        """Write into memory of `required_size` bytes that begins at an address."""
        used = self._used
        if (address - self._address) % _ALIGN:
            # Another alignment: the payload has another offset.
            self.parts().write(memory, address, chunk, sequence, flags, target)
            return
        _bytes_in(memory, np.uint8, len(used))[:] = used
        _pack_flags(memory, _FLAGS_AT, flags, sequence)
        _pack_chunk(memory, _CHUNK_AT, chunk)
        _pack_target(memory, _TARGET_AT, target)


# What a publisher gets, to be sent.
Sendable = Parts | Copy


def read_header(memory: SampleBytes) -> SampleHeader:
    """The header at the beginning of memory.

    Raises:
        ObjectError: another version, or not a header of this package.
    """
    header = _new(SampleHeader, _unpack_from(memory, 0))
    if header.magic != _MAGIC or header.version != VERSION:
        raise ObjectError(
            f"shared memory holds {header.magic!r} of version {header.version}, not {_MAGIC!r} of"
            f" version {VERSION}; both sides must run compatible versions of pvapy_stream"
        )
    return header


def frame_at(
    header: SampleHeader,
    memory: SampleBytes | bytes,
    attributes: bytes | None = None,
    moved: npt.NDArray[np.uint8] | None = None,
) -> Frame:
    """A frame whose read-only arrays are views of `memory`, which they keep alive.

    `attributes` are its attributes, and `moved` its payload, if they are not in `memory`.
    """
    stored = _DTYPES[header.stored]
    if moved is None:
        n = header.payload // stored.itemsize
        payload = _array_in(memory, stored, n, offset=header.payload_at)
    else:
        # numpy's types do not say what `view` returns.
        payload = moved.view(stored)  # pyright: ignore[reportUnknownMemberType]
    payload.flags.writeable = False
    return Frame(
        header.id,
        payload,
        header.shape,
        time_ns=header.time_ns,
        dtype=_DTYPES[header.dtype],
        codec=header.codec.rstrip(b"\0").decode() if header.codec[0] else "",
        color_mode=ColorMode(header.color_mode),
        attributes=(
            attributes_at(header, memory) if attributes is None else WireAttributes(attributes)
        ),
    )


def attributes_at(
    header: SampleHeader, memory: npt.NDArray[np.uint8] | SampleBytes | bytes
) -> WireAttributes:
    """The attributes, copied from memory; they are small."""
    if not header.attributes:
        # Of an object without any, nothing is left when its payload is moved.
        return WireAttributes(b"")
    at = header.attributes_at
    return WireAttributes(_bytes_in(memory, np.uint8, header.attributes, at).tobytes())


def copy_parts(
    header: SampleHeader,
    memory: npt.NDArray[np.uint8] | SampleBytes | bytes,
    attributes: bytes | None = None,
) -> Parts:
    """An object in memory, ready to be written elsewhere; keeps `memory` alive.

    `attributes` are its attributes, if they are not in `memory`.
    """
    view = _bytes_in(memory, np.uint8, header.payload, header.payload_at)
    if attributes is None:
        attributes = attributes_at(header, memory).wire
    return Parts(
        header.kind, header.id, header.time_ns, header.stamp_ns, attributes,
        view if header.kind == FRAME else [view.data],
        header.payload, header.shape, header.dtype, header.stored,
        header.color_mode, header.codec, memory, header.payload_at,
    )  # fmt: skip


def parts_of_frame(frame: Frame, attributes: bytes | None = None, stamp_ns: int = 0) -> Parts:
    """A frame, ready to be written.

    Raises:
        ObjectError: the header cannot hold its pixel type, number of dimensions or codec.
    """
    payload = frame.payload
    flat = payload
    if payload.ndim != 1 or payload.dtype != _UINT8 or not payload.flags.c_contiguous:
        flat = np.ascontiguousarray(payload).ravel()
        # numpy's types do not say what `view` returns.
        flat = flat.view(_UINT8)  # pyright: ignore[reportUnknownMemberType]
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
