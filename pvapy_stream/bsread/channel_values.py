"""Values of bsread channels, in and out. Bytes only, no sockets."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvapy_stream.bsread.header import ELEMENT_TYPES, STRING, ChannelHeader
from pvapy_stream.bsread.packing import (
    FILTER_BITSHUFFLE,
    FILTER_LZ4,
    Buffer,
    MessageLimits,
    lz4_chunk,
    pack,
    unpack,
    verify_bitshuffle,
)
from pvapy_stream.errors import BsreadError

_SECOND = 1_000_000_000
_STAMPS = {"little": struct.Struct("<qq"), "big": struct.Struct(">qq")}
_OTHER = {"little": "big", "big": "little"}
_LETTERS = dict(zip(ELEMENT_TYPES, "bBhHiIqQfd?", strict=True))
_SCALARS = {
    (name, encoding): struct.Struct(order + letter)
    for name, letter in _LETTERS.items()
    for encoding, order in (("little", "<"), ("big", ">"))
}
# Python's numbers, which are packed without numpy: of channels of numbers, and of type bool.
_NUMBERS = ((int, float), (bool,))
STAMP_SIZE = 16
_BITSHUFFLE_WITH_LZ4 = (0, 2)
_DEFAULT_LIMITS = MessageLimits()


class Hdf5Chunk(NamedTuple):
    """A value as one chunk of a dataset: its dtype the channel's, a chunk one row.

    Attributes:
        filter_id: HDF5 filter the dataset must have; 0: none.
        options: of that filter.
        data: the chunk's bytes.
    """

    filter_id: int
    options: tuple[int, ...]
    data: Buffer


@dataclass(slots=True)
class ChannelValue:
    """One channel's value in one message.

    Attributes:
        header: what the data header says of the channel.
        data: the value's bytes as they were sent, still compressed.
        timestamp_ns: ns since 1970-01-01 UTC; None when there is none.
        present: whether the channel has a value in this message.
        limits: what the value may unpack to.
        chunk: the value as a chunk, once that was asked for.
    """

    header: ChannelHeader
    data: Buffer
    timestamp_ns: int | None
    present: bool
    limits: MessageLimits = _DEFAULT_LIMITS
    chunk: Hdf5Chunk | None = field(default=None, compare=False, repr=False)

    def decode(self) -> NDArray[Any] | str | None:
        """The value: an array of `header.array_shape`, read-only when uncompressed; or a text.

        Returns:
            None when there is no value.

        Raises:
            BsreadError: the bytes do not fit the header, or are too many.
            MissingExtraError: the library of the compression is not installed.
        """
        if not self.present:
            return None
        header = self.header
        dtype = header.dtype
        try:
            if dtype is None:
                return self._text()
            raw = unpack(
                self.data, header.compression, dtype.itemsize, header.nbytes, self.limits.value
            )
            return np.frombuffer(raw, dtype).reshape(header.array_shape)
        except BsreadError as error:
            raise BsreadError(f"channel {header.name!r}: {error}") from error

    def _text(self) -> str:
        if not len(self.data):
            return ""
        if len(self.data) > self.limits.value:
            raise BsreadError(f"a text of {len(self.data)} bytes; {self.limits.value} are allowed")
        raw = bytes(unpack(self.data, self.header.compression, 1, None, self.limits.value))
        try:
            return raw.rstrip(b"\0").decode()
        except UnicodeDecodeError as error:
            raise BsreadError(f"the text is not UTF-8: {error}") from error

    def hdf5_chunk(self) -> Hdf5Chunk | None:
        """The value as a chunk that goes into a file in the form in which it came.

        A compressed value is decompressed once, to see that a reader of the file can do so: one
        chunk that cannot be decoded makes all rows of a dataset unreadable that are read with it.

        Returns:
            None when there is no value, and for strings.

        Raises:
            BsreadError: the bytes do not fit the header, or cannot be decoded.
            MissingExtraError: the library of the compression is not installed.
        """
        if self.chunk is None:
            self.chunk = self._make_chunk()
        return self.chunk

    def _make_chunk(self) -> Hdf5Chunk | None:
        header = self.header
        dtype, size = header.dtype, header.nbytes
        if not self.present or dtype is None or size is None:
            return None
        try:
            if size > self.limits.value:
                raise BsreadError(f"a value of {size} bytes; {self.limits.value} are allowed")
            if header.compression == "bitshuffle_lz4":
                verify_bitshuffle(self.data, dtype.itemsize, size)
                return Hdf5Chunk(FILTER_BITSHUFFLE, _BITSHUFFLE_WITH_LZ4, self.data)
            if header.compression == "lz4":
                return Hdf5Chunk(FILTER_LZ4, (), lz4_chunk(self.data, size))
            if len(self.data) != size:
                raise BsreadError(f"{len(self.data)} bytes where shape and type ask for {size}")
            return Hdf5Chunk(0, (), self.data)
        except BsreadError as error:
            raise BsreadError(f"channel {header.name!r}: {error}") from error


class Packed(NamedTuple):
    """A value that is sent as it is: it is already what `encode_value` would make of it."""

    data: Buffer


def read_stamp(raw: Buffer, encoding: str) -> int | None:
    """A channel's timestamp in ns; None when there is none.

    Raises:
        BsreadError: it has another size than 0 or 16 bytes.
    """
    if not len(raw):
        return None
    if len(raw) != STAMP_SIZE:
        raise BsreadError(f"a timestamp of {len(raw)} bytes; {STAMP_SIZE} expected")
    seconds, nanoseconds = _STAMPS[encoding].unpack(raw)
    if not 0 <= nanoseconds < _SECOND:
        # Some senders write little endian whatever the channel says; the ns show which it is.
        other = _STAMPS[_OTHER[encoding]].unpack(raw)
        if 0 <= other[1] < _SECOND:
            seconds, nanoseconds = other
    total = seconds * _SECOND + nanoseconds
    return total if -(2**63) <= total < 2**63 else None


def write_stamp(timestamp_ns: int, encoding: str) -> bytes:
    """A channel's timestamp as it is sent."""
    return _STAMPS[encoding].pack(*divmod(timestamp_ns, _SECOND))


def _number(header: ChannelHeader, value: float) -> bytes:
    try:
        return _SCALARS[header.type, header.encoding].pack(value)
    except (struct.error, OverflowError) as error:
        raise BsreadError(
            f"channel {header.name!r}: {value!r} does not fit into {header.type}: {error}"
        ) from error


def encode_value(header: ChannelHeader, value: Any, lz4_order: str = "little") -> Buffer:
    """A value as it is sent.

    Args:
        header: its channel.
        value: array, number or text that fits the channel's type and shape; or `Packed`.
        lz4_order: byte order of the size before an lz4 block.

    Raises:
        BsreadError: it does not fit.
        MissingExtraError: the library of the compression is not installed.
    """
    if isinstance(value, Packed):
        return value.data
    if header.type == STRING:
        if not isinstance(value, str):
            raise BsreadError(f"channel {header.name!r} takes text, not {type(value).__name__}")
        raw = value.encode()
        return pack(raw, header.compression, 1, lz4_order) if raw else raw
    dtype = header.dtype
    if dtype is None:
        raise BsreadError(f"channel {header.name!r}: type {header.type!r} is unknown")
    if header.shape == (1,) and type(value) in _NUMBERS[header.type == "bool"]:
        return pack(_number(header, value), header.compression, dtype.itemsize, lz4_order)
    try:
        array = np.asarray(value).astype(dtype, casting="same_kind", order="C", copy=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise BsreadError(f"channel {header.name!r}: {error}") from error
    if array.nbytes != header.nbytes or (
        array.shape != header.array_shape and array.ndim and header.shape != (1,)
    ):
        raise BsreadError(
            f"channel {header.name!r} has shape {header.array_shape}, the value {array.shape}"
        )
    return pack(array.tobytes(), header.compression, dtype.itemsize, lz4_order)
