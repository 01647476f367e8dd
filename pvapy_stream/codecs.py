"""Decompression of area detector payloads: blosc, lz4, bslz4 (bitshuffle with LZ4) and zstd.

Two framings of lz4 and bslz4 are in use. Area detector plugins send the bare blocks; chunks of
HDF5 files (filters 32004 and 32008) start with a header that holds the uncompressed size as a
big-endian 64-bit integer and the block size as a 32-bit one. The header is recognised by that
size, so both can be read without further settings. ``PVAPY_COMPRESSED_PAYLOAD_START`` and
``PVAPY_COMPRESSED_PAYLOAD_END`` (byte offsets) are honoured as the incumbent does.

The libraries trust the sizes in a payload: wrong ones end the process, or fill the memory. So each
codec has a check of all sizes, which runs before the library does.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pvapy_stream.errors import CodecError, MissingExtraError
from pvapy_stream.plugins import require

# What the filters for lz4 (32004) and bslz4 (32008) put first: uncompressed size, block size.
HDF5_HEADER = struct.Struct(">QI")
BLOCK_LENGTH = struct.Struct(">I")
BITSHUFFLE_BLOCK = 8192  # bytes, for all pixel types
_BITSHUFFLE_MULTIPLE = 8  # elements; what is left of a value is not compressed
_BITSHUFFLE_LEAST = 128  # elements in a block
# Version of the format, of the codec, flags, size of an element, and three sizes in bytes: plain,
# of a block, compressed with this header.
_BLOSC_HEADER = struct.Struct("<BBBBIII")
_BLOSC_FORMAT = 2
_BLOSC_COPIED = 0x2  # flag: not compressed
_BLOSC_START = 4  # bytes of the place of a block

# The best ratio of LZ4: uncompressed bytes for one byte of its output.
_LZ4_RATIO = 255
_SLACK = 1024

Bytes = NDArray[np.uint8]


def decompress(codec: str, payload: Bytes, dtype: np.dtype, size: int) -> np.ndarray:
    """Decompress one payload.

    Args:
        codec: ``blosc``, ``lz4``, ``bslz4`` or ``zstd``.
        payload: 1-d array of bytes.
        dtype: type of the uncompressed elements.
        size: uncompressed size in bytes.

    Returns:
        1-d array of ``dtype``, ``size`` bytes long.

    Raises:
        CodecError: unknown codec, or a payload that does not decode to ``size`` bytes.
        MissingExtraError: the codec's library is not installed.
    """
    decoder = _DECODERS.get(codec)
    if decoder is None:
        raise CodecError(
            f"codec {codec!r} is not supported; supported are {', '.join(sorted(_DECODERS))}"
        )
    try:
        start = int(os.environ.get("PVAPY_COMPRESSED_PAYLOAD_START", "0"))
        end = int(os.environ.get("PVAPY_COMPRESSED_PAYLOAD_END", "0")) or None
        array = decoder(payload[start:end], dtype, size)
    except MissingExtraError:
        raise
    except Exception as error:
        raise CodecError(f"cannot decode {payload.nbytes} bytes of {codec}: {error}") from error
    if array.nbytes != size:
        raise CodecError(f"{codec} payload gave {array.nbytes} bytes, {size} expected")
    return array


# -- checks --------------------------------------------------------------------------------------


class Blocks(NamedTuple):
    """How a payload of bslz4 is laid out.

    Attributes:
        start: byte at which its first block begins.
        n_elements: elements in a block; 0 for what bitshuffle takes by itself.
    """

    start: int
    n_elements: int


def check_bslz4(payload: bytes | memoryview | Bytes, nbytes_expected: int, itemsize: int) -> Blocks:
    """See that all blocks of a bslz4 payload lie within it, which the library does not.

    Args:
        payload: with or without the header of HDF5's filter.
        nbytes_expected: size of the value in bytes.
        itemsize: size of an element in bytes.

    Raises:
        CodecError: they do not, or the header says another size.
    """
    view = _view(payload)
    _check_ratio(len(view), nbytes_expected)
    if itemsize < 1 or nbytes_expected % itemsize:
        raise CodecError(f"{nbytes_expected} bytes are no elements of {itemsize} bytes")
    header = hdf5_header(view, nbytes_expected)
    start, block = (0, 0) if header is None else (HDF5_HEADER.size, header)
    if block % itemsize or block // itemsize % _BITSHUFFLE_MULTIPLE:
        raise CodecError(
            f"the header has blocks of {block} bytes, with elements of {itemsize} bytes"
        )
    n_elements = block // itemsize
    whole, left = divmod(nbytes_expected // itemsize, n_elements or _default_block(itemsize))
    at, end = start, len(view)
    for _ in range(whole + (left >= _BITSHUFFLE_MULTIPLE)):
        if at + BLOCK_LENGTH.size > end:
            raise CodecError("the payload ends within its blocks")
        at += BLOCK_LENGTH.size + BLOCK_LENGTH.unpack_from(view, at)[0]
    if at + left % _BITSHUFFLE_MULTIPLE * itemsize != end:
        raise CodecError(f"its blocks end at byte {at} of {end}")
    return Blocks(start, n_elements)


def check_lz4(payload: bytes | memoryview | Bytes, nbytes_expected: int) -> None:
    """See that all blocks of an lz4 payload lie within it.

    Args:
        payload: with or without the header of HDF5's filter.
        nbytes_expected: size of the value in bytes.

    Raises:
        CodecError: they do not.
    """
    view = _view(payload)
    _check_ratio(len(view), nbytes_expected)
    block = hdf5_header(view, nbytes_expected)
    if block is None:
        return
    if not block:
        raise CodecError("the header has blocks of 0 bytes")
    n_blocks = -(-nbytes_expected // block)
    if HDF5_HEADER.size + n_blocks * BLOCK_LENGTH.size > len(view):
        raise CodecError(f"{len(view)} bytes cannot hold {n_blocks} blocks")
    at, end = HDF5_HEADER.size, len(view)
    for _ in range(n_blocks):
        if at + BLOCK_LENGTH.size > end:
            raise CodecError("the payload ends within its blocks")
        at += BLOCK_LENGTH.size + BLOCK_LENGTH.unpack_from(view, at)[0]
    if at != end:
        raise CodecError(f"its blocks end at byte {at} of {end}")


def check_blosc(payload: bytes | memoryview | Bytes, nbytes_expected: int) -> None:
    """Check that the header of a blosc payload has its sizes, and that its blocks are within it.

    Args:
        payload: with its header.
        nbytes_expected: size of the value in bytes.

    Raises:
        CodecError: they do not, or the header says another size.
    """
    view = _view(payload)
    if len(view) < _BLOSC_HEADER.size:
        raise CodecError(f"{len(view)} bytes have no header")
    form, _, flags, itemsize, plain, block, packed = _BLOSC_HEADER.unpack_from(view)
    if form != _BLOSC_FORMAT:
        raise CodecError(f"the header is of format {form}, not {_BLOSC_FORMAT}")
    if plain != nbytes_expected:
        raise CodecError(f"the payload says it gives {plain} bytes, {nbytes_expected} expected")
    if packed != len(view):
        raise CodecError(f"the header states {packed} bytes, the payload has {len(view)}")
    if flags & _BLOSC_COPIED:
        if packed != plain + _BLOSC_HEADER.size:
            raise CodecError(f"{packed} bytes cannot contain {plain} uncompressed bytes")
        return
    if not itemsize or not 0 < block <= max(plain, 1):
        raise CodecError(
            f"the header has blocks of {block} bytes, with elements of {itemsize} bytes"
        )
    n_blocks = -(-plain // block)
    first = _BLOSC_HEADER.size + n_blocks * _BLOSC_START
    if first > packed:
        raise CodecError(f"{packed} bytes cannot hold {n_blocks} blocks")
    starts = np.frombuffer(view, "<u4", n_blocks, _BLOSC_HEADER.size)
    if n_blocks and not (first <= int(starts.min()) and int(starts.max()) + _BLOSC_START <= packed):
        raise CodecError("a block begins outside of the payload")


def check_zstd(payload: bytes | memoryview | Bytes, nbytes_expected: int) -> None:
    """Check that a zstd payload has the size that is expected.

    Args:
        payload: one frame of zstd.
        nbytes_expected: size of the value in bytes.

    Raises:
        CodecError: it does not.
    """
    said = require("zstandard", "codecs").frame_content_size(_view(payload))
    if said != nbytes_expected:
        raise CodecError(f"the payload says it gives {said} bytes, {nbytes_expected} expected")


def _check_ratio(packed: int, size: int) -> None:
    if size > _LZ4_RATIO * packed + _SLACK:
        raise CodecError(f"{packed} bytes cannot give {size}")


def _default_block(itemsize: int) -> int:
    """Elements in a block of bitshuffle when nothing else is said."""
    n_elements = BITSHUFFLE_BLOCK // itemsize // _BITSHUFFLE_MULTIPLE * _BITSHUFFLE_MULTIPLE
    return max(n_elements, _BITSHUFFLE_LEAST)


# -- payloads ------------------------------------------------------------------------------------


def strip_hdf5_header(codec: str, chunk: bytes, size: int) -> bytes:
    """Turn an HDF5 chunk into what area detector plugins send: without the filter's header.

    A chunk of several LZ4 blocks, or of bitshuffle blocks of unusual size, has no headerless form
    and is returned as it is; `decompress` reads that too.

    Raises:
        CodecError: it is damaged.
    """
    header = hdf5_header(chunk, size)
    if header is None or codec not in ("lz4", "bslz4"):
        return chunk
    if codec == "bslz4":
        # Only the header contains a block size other than bitshuffle's default.
        return chunk[HDF5_HEADER.size :] if header == BITSHUFFLE_BLOCK else chunk
    check_lz4(chunk, size)
    blocks = _lz4_blocks(chunk, size, header)
    # A block that did not shrink is stored raw by the HDF5 filter, which a bare LZ4 decoder cannot
    # read.
    return bytes(blocks[0][0]) if len(blocks) == 1 and len(blocks[0][0]) != blocks[0][1] else chunk


def _view(payload: bytes | memoryview | Bytes) -> memoryview:
    view = payload.data if isinstance(payload, np.ndarray) else memoryview(payload)
    return view.cast("B")


def hdf5_header(payload: bytes | memoryview | Bytes, size: int) -> int | None:
    """Block size in bytes if the payload starts with an HDF5 filter header, else None."""
    if len(payload) < HDF5_HEADER.size:
        return None
    uncompressed, block = HDF5_HEADER.unpack_from(_view(payload))
    return block if uncompressed == size else None


def _lz4_blocks(
    payload: bytes | memoryview | Bytes, size: int, block: int
) -> list[tuple[memoryview, int]]:
    """Compressed bytes and uncompressed length of each block behind an HDF5 lz4 header."""
    view, at, left = _view(payload), HDF5_HEADER.size, size
    blocks: list[tuple[memoryview, int]] = []
    while left > 0:
        (length,) = BLOCK_LENGTH.unpack_from(view, at)
        at += BLOCK_LENGTH.size
        blocks.append((view[at : at + length], min(block, left)))
        at += length
        left -= min(block, left)
    return blocks


def _blosc(payload: Bytes, dtype: np.dtype, size: int) -> np.ndarray:
    blosc = require("blosc", "codecs")
    check_blosc(payload, size)
    return np.frombuffer(blosc.decompress(payload.tobytes()), dtype)


def _lz4(payload: Bytes, dtype: np.dtype, size: int) -> np.ndarray:
    block = require("lz4.block", "codecs")
    check_lz4(payload, size)
    header = hdf5_header(payload, size)
    if header is None:
        return np.frombuffer(block.decompress(payload.tobytes(), uncompressed_size=size), dtype)
    parts = [
        (
            bytes(data)
            if len(data) == length
            else block.decompress(bytes(data), uncompressed_size=length)
        )
        for data, length in _lz4_blocks(payload, size, header)
    ]
    return np.frombuffer(b"".join(parts), dtype)


def _bslz4(payload: Bytes, dtype: np.dtype, size: int) -> np.ndarray:
    bitshuffle = require("bitshuffle", "codecs")
    start, n_elements = check_bslz4(payload, size, dtype.itemsize)
    return bitshuffle.decompress_lz4(payload[start:], (size // dtype.itemsize,), dtype, n_elements)


def _zstd(payload: Bytes, dtype: np.dtype, size: int) -> np.ndarray:
    zstandard = require("zstandard", "codecs")
    check_zstd(payload, size)
    return np.frombuffer(zstandard.ZstdDecompressor().decompress(payload), dtype)


_DECODERS: dict[str, Callable[[Bytes, np.dtype, int], np.ndarray]] = {
    "blosc": _blosc,
    "lz4": _lz4,
    "bslz4": _bslz4,
    "zstd": _zstd,
}
