"""Decompression of area detector payloads: blosc, lz4 and bslz4 (bitshuffle with LZ4).

Two framings of lz4 and bslz4 are in use. Area detector plugins send the bare blocks; chunks of
HDF5 files (filters 32004 and 32008) start with a header that holds the uncompressed size as a
big-endian 64-bit integer and the block size as a 32-bit one. The header is recognised by that
size, so both are read without being told. ``PVAPY_COMPRESSED_PAYLOAD_START`` and
``PVAPY_COMPRESSED_PAYLOAD_END`` (byte offsets) are honoured as the incumbent does.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pvapy_stream.errors import CodecError, MissingExtraError
from pvapy_stream.plugins import require

_HDF5_HEADER = struct.Struct(">QI")
_BLOCK_LENGTH = struct.Struct(">I")
_BITSHUFFLE_BLOCK = 8192  # bytes, for all pixel types

Bytes = NDArray[np.uint8]


def decompress(codec: str, payload: Bytes, dtype: np.dtype[Any], size: int) -> NDArray[Any]:
    """Decompress one payload.

    Args:
        codec: ``blosc``, ``lz4`` or ``bslz4``.
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


def strip_hdf5_header(codec: str, chunk: bytes, size: int) -> bytes:
    """Turn an HDF5 chunk into what area detector plugins send: without the filter's header.

    A chunk of several LZ4 blocks, or of bitshuffle blocks of unusual size, has no headerless form
    and is returned as it is; `decompress` reads that too.
    """
    header = _hdf5_header(chunk, size)
    if header is None or codec not in ("lz4", "bslz4"):
        return chunk
    if codec == "bslz4":
        # Only the header tells of another block size than bitshuffle's own.
        return chunk[_HDF5_HEADER.size :] if header == _BITSHUFFLE_BLOCK else chunk
    blocks = _lz4_blocks(chunk, size, header)
    # A block that did not shrink is stored raw by the HDF5 filter, which a bare LZ4 decoder cannot
    # read.
    return bytes(blocks[0][0]) if len(blocks) == 1 and len(blocks[0][0]) != blocks[0][1] else chunk


def _view(payload: bytes | Bytes) -> memoryview:
    return memoryview(payload) if isinstance(payload, bytes) else payload.data


def _hdf5_header(payload: Any, size: int) -> int | None:
    """Block size in bytes if the payload starts with an HDF5 filter header, else None."""
    if len(payload) < _HDF5_HEADER.size:
        return None
    uncompressed, block = _HDF5_HEADER.unpack_from(_view(payload))
    return block if uncompressed == size else None


def _lz4_blocks(payload: Any, size: int, block: int) -> list[tuple[memoryview, int]]:
    """Compressed bytes and uncompressed length of each block behind an HDF5 lz4 header."""
    view, at, left = _view(payload), _HDF5_HEADER.size, size
    blocks: list[tuple[memoryview, int]] = []
    while left > 0:
        (length,) = _BLOCK_LENGTH.unpack_from(view, at)
        at += _BLOCK_LENGTH.size
        blocks.append((view[at : at + length], min(block, left)))
        at += length
        left -= min(block, left)
    return blocks


def _blosc(payload: Bytes, dtype: np.dtype[Any], size: int) -> NDArray[Any]:
    blosc = require("blosc", "codecs")
    return np.frombuffer(blosc.decompress(payload.tobytes()), dtype)


def _lz4(payload: Bytes, dtype: np.dtype[Any], size: int) -> NDArray[Any]:
    block = require("lz4.block", "codecs")
    header = _hdf5_header(payload, size)
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


def _bslz4(payload: Bytes, dtype: np.dtype[Any], size: int) -> NDArray[Any]:
    bitshuffle = require("bitshuffle", "codecs")
    header = _hdf5_header(payload, size)
    elements = 0 if header is None else header // dtype.itemsize
    body = payload if header is None else payload[_HDF5_HEADER.size :]
    return bitshuffle.decompress_lz4(body, (size // dtype.itemsize,), dtype, elements)


_DECODERS: dict[str, Callable[[Bytes, np.dtype[Any], int], NDArray[Any]]] = {
    "blosc": _blosc,
    "lz4": _lz4,
    "bslz4": _bslz4,
}
