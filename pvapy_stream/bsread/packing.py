"""The two compressions of bsread, for values and for headers, with limits on what they unpack to.

lz4: uint32 size, one LZ4 block. Senders disagree about the byte order of the size.
bitshuffle_lz4: int64 BE size, int32 BE bytes in a block, then blocks of uint32 BE length and LZ4 of
bit-transposed elements, and at the end up to 7 elements as they are. Both are chunks of HDF5
filters, or nearly so.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pvapy_stream.errors import BsreadError
from pvapy_stream.plugins import require

Buffer = bytes | bytearray | memoryview

FILTER_LZ4 = 32004
FILTER_BITSHUFFLE = 32008
BITSHUFFLE_HEADER = struct.Struct(">qi")

_HDF5_LZ4_HEADER = struct.Struct(">QII")
_SIZES = (struct.Struct("<I"), struct.Struct(">I"))
_BLOCK_LENGTH = struct.Struct(">I")
_TARGET_BLOCK = 8192  # bytes
_MULTIPLE = 8  # elements whose bits are transposed together
_SMALLEST_BLOCK = 128  # elements
# LZ4 cannot shrink by more; a size beyond it is a lie, refused before memory is taken for it.
_BEST_RATIO = 255
_SLACK = 64
_BYTE = np.dtype(np.uint8)


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """How large the parts of a message may be.

    Attributes:
        main_header: bytes of the main header.
        data_header: bytes of the data header, packed and unpacked.
        value: bytes of one value, unpacked.
    """

    main_header: int = 64 * 2**10
    data_header: int = 64 * 2**20
    value: int = 2**30


def unpack(data: Buffer, compression: str, itemsize: int, size: int | None, limit: int) -> Any:
    """Unpack a value.

    Args:
        data: bytes as they were sent.
        compression: ``none``, ``lz4`` or ``bitshuffle_lz4``.
        itemsize: bytes of one element.
        size: bytes it must unpack to; None when only the value itself contains it.
        limit: bytes it may unpack to.

    Returns:
        bytes, or an array of bytes.

    Raises:
        BsreadError: it does not unpack to that size.
        MissingExtraError: the library of the compression is not installed.
    """
    if size is not None and size > limit:
        raise BsreadError(f"a value of {size} bytes; {limit} are allowed")
    if compression == "none":
        unpacked = data
    elif compression == "lz4":
        unpacked = _unlz4(data, size, limit)
    else:
        unpacked = _unshuffle(data, itemsize, size, limit)
    if size is not None and len(unpacked) != size:
        raise BsreadError(f"{len(unpacked)} bytes where shape and type ask for {size}")
    return unpacked


def pack(data: Buffer, compression: str, itemsize: int, lz4_order: str = "little") -> Buffer:
    """Pack a value; the other way round.

    Raises:
        MissingExtraError: the library of the compression is not installed.
    """
    if compression == "none":
        return data
    if compression == "lz4":
        order = _SIZES[lz4_order == "big"]
        block = require("lz4.block", "codecs")
        return order.pack(len(data)) + block.compress(data, store_size=False)
    bitshuffle = require("bitshuffle", "codecs")
    elements = np.frombuffer(data, _element(itemsize))
    header = BITSHUFFLE_HEADER.pack(len(data), block_elements(itemsize) * itemsize)
    if not len(elements):
        return header
    return header + bitshuffle.compress_lz4(elements, block_elements(itemsize)).tobytes()


def pack_header(raw: bytes, compression: str) -> bytes:
    """Pack a data header."""
    return bytes(pack(raw, compression or "none", 1))


def unpack_header(raw: Buffer, compression: str, limits: MessageLimits) -> Buffer:
    """Unpack a data header.

    Raises:
        BsreadError: it cannot be unpacked, is too large, or its compression is unknown.
        MissingExtraError: the library of the compression is not installed.
    """
    limit = limits.data_header
    if len(raw) > limit:
        raise BsreadError(f"the data header has {len(raw)} bytes; {limit} are allowed")
    if compression in ("", "none"):
        return raw
    if compression not in ("lz4", "bitshuffle_lz4"):
        raise BsreadError(f"compression {compression[:40]!r} of the data header is unknown")
    try:
        return bytes(unpack(raw, compression, 1, None, limit))
    except BsreadError as error:
        raise BsreadError(f"the data header cannot be unpacked: {error}") from error


def block_elements(itemsize: int) -> int:
    """Elements in a block when nothing else is said."""
    elements = _TARGET_BLOCK // itemsize // _MULTIPLE * _MULTIPLE
    return max(elements, _SMALLEST_BLOCK)


def check_bitshuffle(data: Buffer, itemsize: int, size: int) -> int:
    """See that the blocks of a value lie within it, which the library does not.

    Returns:
        elements in a block.

    Raises:
        BsreadError: they do not, or the header says another size.
    """
    if len(data) < BITSHUFFLE_HEADER.size:
        raise BsreadError(f"{len(data)} bytes are not a bitshuffle_lz4 value")
    said, block_bytes = BITSHUFFLE_HEADER.unpack_from(data)
    if said != size:
        raise BsreadError(f"the bitshuffle_lz4 header says {said} bytes, {size} expected")
    block = block_bytes // itemsize if block_bytes else block_elements(itemsize)
    if block <= 0 or block % _MULTIPLE or (block_bytes and block_bytes % itemsize):
        raise BsreadError(f"the bitshuffle_lz4 header says blocks of {block_bytes} bytes")
    whole, left = divmod(size // itemsize, block)
    at, end = BITSHUFFLE_HEADER.size, len(data)
    for _ in range(whole + (left >= _MULTIPLE)):
        if at + _BLOCK_LENGTH.size > end:
            raise BsreadError("the bitshuffle_lz4 value ends within its blocks")
        at += _BLOCK_LENGTH.size + _BLOCK_LENGTH.unpack_from(data, at)[0]
    if at + left % _MULTIPLE * itemsize != end:
        raise BsreadError(f"the bitshuffle_lz4 blocks end at byte {at} of {end}")
    return block


def verify_bitshuffle(data: Buffer, itemsize: int, size: int) -> None:
    """See that a value can be decoded: each of its blocks decompresses to what it must.

    Only the transposition of bits is left out, which cannot fail and takes most of the time.

    Raises:
        BsreadError: it cannot be decoded.
        MissingExtraError: the library of the compression is not installed.
    """
    _check_ratio(len(data), size)
    block = check_bitshuffle(data, itemsize, size) * itemsize
    decompress = require("lz4.block", "codecs").decompress
    # What is left of fewer elements than are transposed together is not compressed.
    left = size - size % (_MULTIPLE * itemsize)
    view, at = memoryview(data), BITSHUFFLE_HEADER.size
    try:
        while left:
            expected = min(block, left)
            begin = at + _BLOCK_LENGTH.size
            at = begin + _BLOCK_LENGTH.unpack_from(view, at)[0]
            got = len(decompress(view[begin:at], uncompressed_size=expected))
            if got != expected:
                raise BsreadError(f"a block of {got} bytes where {expected} are expected")
            left -= expected
    except BsreadError:
        raise
    except Exception as error:
        raise BsreadError(f"the bitshuffle_lz4 value is damaged: {error}") from error


def lz4_chunk(data: Buffer, size: int) -> bytes:
    """An lz4 value as a chunk of HDF5 filter 32004; the block itself stays as it is.

    Raises:
        BsreadError: the value says another size, or cannot be decoded.
        MissingExtraError: the library of the compression is not installed.
    """
    block = _lz4_block(data, size)
    plain = _unlz4_block(block, size)
    if len(block) >= size:
        # The filter takes a block of full length for one that was not compressed.
        block = memoryview(plain)
    return _HDF5_LZ4_HEADER.pack(size, size, len(block)) + bytes(block)


def _lz4_block(data: Buffer, size: int) -> memoryview:
    if len(data) < _SIZES[0].size:
        raise BsreadError(f"{len(data)} bytes are not an lz4 value")
    said = [order.unpack_from(data)[0] for order in _SIZES]
    if size not in said:
        raise BsreadError(f"the lz4 value says {min(said)} bytes, {size} expected")
    return memoryview(data)[_SIZES[0].size :]


def _unlz4(data: Buffer, size: int | None, limit: int) -> bytes:
    if size is not None:
        return _unlz4_block(_lz4_block(data, size), size)
    if len(data) < _SIZES[0].size:
        raise BsreadError(f"{len(data)} bytes are not an lz4 value")
    block = memoryview(data)[_SIZES[0].size :]
    last: BsreadError | None = None
    for said in sorted(order.unpack_from(data)[0] for order in _SIZES):
        try:
            if said > limit:
                raise BsreadError(f"an lz4 value of {said} bytes; {limit} are allowed")
            return _unlz4_block(block, said)
        except BsreadError as error:
            last = last or error
    raise last or BsreadError("no lz4 value")


def _unlz4_block(block: memoryview, size: int) -> bytes:
    _check_ratio(len(block), size)
    library = require("lz4.block", "codecs")
    try:
        unpacked = library.decompress(block, uncompressed_size=size)
    except Exception as error:
        raise BsreadError(f"the lz4 value is damaged: {error}") from error
    if len(unpacked) != size:
        raise BsreadError(f"the lz4 value says {size} bytes and holds {len(unpacked)}")
    return unpacked


def _unshuffle(data: Buffer, itemsize: int, size: int | None, limit: int) -> NDArray[np.uint8]:
    if size is None:
        if len(data) < BITSHUFFLE_HEADER.size:
            raise BsreadError(f"{len(data)} bytes are not a bitshuffle_lz4 value")
        size = int(BITSHUFFLE_HEADER.unpack_from(data)[0])
        if not 0 <= size <= limit:
            raise BsreadError(f"a bitshuffle_lz4 value of {size} bytes; {limit} are allowed")
    _check_ratio(len(data), size)
    block = check_bitshuffle(data, itemsize, size)
    if not size:
        return np.empty(0, _BYTE)
    library = require("bitshuffle", "codecs")
    blocks = np.frombuffer(data, _BYTE, offset=BITSHUFFLE_HEADER.size)
    try:
        elements = library.decompress_lz4(blocks, (size // itemsize,), _element(itemsize), block)
    except Exception as error:
        raise BsreadError(f"the bitshuffle_lz4 value is damaged: {error}") from error
    return elements.view(_BYTE)


def _check_ratio(packed: int, size: int) -> None:
    if size > _BEST_RATIO * packed + _SLACK:
        raise BsreadError(f"{packed} bytes cannot unpack to {size}")


def _element(itemsize: int) -> np.dtype:
    return np.dtype(f"u{itemsize}")
