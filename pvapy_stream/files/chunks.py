"""Chunks of HDF5 datasets, one image each, made without HDF5, in any thread.

HDF5 compresses under its global lock, so one core at a time. Here the codec's own library makes
the bytes that HDF5's filter would have made, in any thread; the file gets them by direct chunk
write. Frames that arrive compressed are put into that form by their header alone.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hdf5plugin
import numpy as np

from pvapy_stream.codecs import (
    BITSHUFFLE_BLOCK,
    BLOCK_LENGTH,
    HDF5_HEADER,
    decompress,
    hdf5_header,
)
from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import ColorMode, Frame, Pixels
from pvapy_stream.plugins import require

if TYPE_CHECKING:
    import h5py

NONE = "none"

Chunk = bytes | memoryview | Pixels

_LZ4_BLOCK = 1 << 30  # bytes; the filter's own default
_ZSTD_LEVEL = 1
_BLOSC_LEVEL = 5

try:  # the same checksum, several times as fast
    from isal.isal_zlib import crc32 as _crc32
except ImportError:
    _crc32 = zlib.crc32


def checksum(chunk: Any, before: int = 0) -> int:
    """CRC-32 of a chunk as it is stored, as `zlib.crc32` gives it.

    Args:
        chunk: its bytes.
        before: checksum of what precedes it.
    """
    return _crc32(memoryview(chunk).cast("B"), before)


def size_of(chunk: Chunk) -> int:
    """Bytes of a chunk."""
    return len(chunk) if isinstance(chunk, bytes) else chunk.nbytes


def recycle(chunk: Chunk) -> None:
    """Reuse the memory of a chunk that `encode` made and that is no longer needed."""
    if isinstance(chunk, memoryview) and isinstance(chunk.obj, bytearray):
        _buffers.append(chunk.obj)


def one_core_each() -> None:
    """Let codecs use no further threads when called in this thread: several such threads run."""
    if (found := importlib.util.find_spec("bitshuffle")) is None or not found.origin:
        return
    # The library for OpenMP that comes with bitshuffle's wheels; the setting is the thread's own.
    for library in Path(found.origin).parent.parent.glob("bitshuffle.libs/libgomp*"):
        ctypes.CDLL(str(library)).omp_set_num_threads(1)


def filter_options(codec: str) -> dict[str, object]:
    """What `h5py.Group.create_dataset` needs for a codec."""
    return dict(_OPTIONS[codec]()) if codec != NONE else {}


def codec_of(images: h5py.Dataset) -> str | None:
    """Codec of the chunks of a dataset; None if it is not one that this module writes."""
    plan = images.id.get_create_plist()
    filters = [plan.get_filter(at)[0] for at in range(plan.get_nfilters())]
    if not filters:
        return NONE
    return _FILTERS.get(filters[0]) if len(filters) == 1 else None


def prepare(codec: str) -> None:
    """Find a codec's library.

    Raises:
        MissingExtraError: it is not installed.
    """
    if module := _MODULES.get(codec):
        found = require(module, "codecs")
        if codec == "blosc":
            found.set_releasegil(True)


def encode(codec: str, image: Pixels) -> Chunk:
    """A chunk of one image, as the codec's HDF5 filter would store it; any thread may call it.

    Args:
        codec: ``none``, ``lz4``, ``bslz4``, ``zstd`` or ``blosc``.
        image: array in C order.
    """
    return _ENCODERS[codec](image) if codec != NONE else image


def stored_form(frame: Frame) -> tuple[str, tuple[int, ...]] | None:
    """Codec and shape of a frame whose payload can be stored as it came; None if it cannot."""
    if not frame.codec or not frame.has_image or frame.codec not in _DIRECT:
        return None
    if frame.color_mode not in (ColorMode.MONO, ColorMode.RGB1):
        # Another order of the pixels than (ny, nx, 3).
        return None
    if "PVAPY_COMPRESSED_PAYLOAD_START" in os.environ or (
        "PVAPY_COMPRESSED_PAYLOAD_END" in os.environ
    ):
        return None
    return frame.codec, frame.stored_shape


def stored_chunk(frame: Frame) -> Chunk | None:
    """The chunk of a frame that arrived compressed, not decompressed; None if there is no such."""
    payload = frame.payload.view(np.uint8)
    return _DIRECT[frame.codec](payload, frame.nbytes)


def check_stored(frame: Frame) -> None:
    """Decode a frame that is to be stored as it came.

    Raises:
        CodecError: its payload gives no image.
    """
    decompress(frame.codec, frame.payload.view(np.uint8), frame.dtype, frame.nbytes)


def check_pixels(image_shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    """Refuse what cannot be a stack of images.

    Raises:
        ObjectError: pixels that are no numbers, or no image.
    """
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ObjectError(f"images of type {dtype} cannot be written: pixels must be numbers")
    if not image_shape or 0 in image_shape:
        raise ObjectError(f"an image of shape {image_shape} cannot be written: it has no pixels")


# Memory to be reused: new memory takes as much time as the compression into it.
_buffers: deque[bytearray] = deque(maxlen=16)


def _joined(parts: Sequence[bytes | memoryview]) -> memoryview:
    """Buffers joined in one piece of reused memory."""
    size = sum(len(part) for part in parts)
    try:
        buffer = _buffers.pop()
    except IndexError:
        buffer = bytearray()
    if len(buffer) < size:
        buffer = bytearray(size + size // 8)
    view = memoryview(buffer)[:size]
    at = 0
    for part in parts:
        view[at : at + len(part)] = part
        at += len(part)
    return view


def _lz4(image: Pixels) -> Chunk:
    compress = require("lz4.block", "codecs").compress
    plain = image.data.cast("B")
    block = min(len(plain), _LZ4_BLOCK)
    parts: list[bytes | memoryview] = [HDF5_HEADER.pack(len(plain), block)]
    for at in range(0, len(plain), block):
        piece = plain[at : at + block]
        packed = compress(piece, store_size=False)
        # The filter takes a block as long as its pixels for plain pixels.
        parts += [
            BLOCK_LENGTH.pack(min(len(packed), len(piece))),
            packed if len(packed) < len(piece) else piece,
        ]
    return _joined(parts)


def _bslz4(image: Pixels) -> Chunk:
    # As unsigned numbers: only the size of a pixel matters.
    pixels = image.reshape(-1).view(f"u{image.dtype.itemsize}")
    packed = require("bitshuffle", "codecs").compress_lz4(pixels)
    return _joined((HDF5_HEADER.pack(image.nbytes, BITSHUFFLE_BLOCK), packed.data.cast("B")))


_own = threading.local()


def _zstd(image: Pixels) -> bytes:
    compressor = getattr(_own, "zstd", None)
    if compressor is None:
        # One for each thread: they cannot be shared.
        compressor = require("zstandard", "codecs").ZstdCompressor(level=_ZSTD_LEVEL)
        _own.zstd = compressor
    return compressor.compress(image)


def _blosc(image: Pixels) -> bytes:
    blosc = require("blosc", "codecs")
    return blosc.compress_ptr(
        image.ctypes.data,
        image.size,
        image.dtype.itemsize,
        _BLOSC_LEVEL,
        blosc.SHUFFLE,
        "lz4",
    )


_ENCODERS: dict[str, Callable[[Pixels], Chunk]] = {
    "lz4": _lz4,
    "bslz4": _bslz4,
    "zstd": _zstd,
    "blosc": _blosc,
}
_MODULES = {"lz4": "lz4.block", "bslz4": "bitshuffle", "zstd": "zstandard", "blosc": "blosc"}
_FILTERS = {32001: "blosc", 32004: "lz4", 32008: "bslz4", 32015: "zstd"}
_OPTIONS: dict[str, Callable[[], Mapping[str, object]]] = {
    "lz4": hdf5plugin.LZ4,
    "bslz4": lambda: hdf5plugin.Bitshuffle(cname="lz4"),
    "zstd": lambda: hdf5plugin.Zstd(clevel=_ZSTD_LEVEL),
    "blosc": lambda: hdf5plugin.Blosc(
        cname="lz4", clevel=_BLOSC_LEVEL, shuffle=hdf5plugin.Blosc.SHUFFLE
    ),
}


def _direct_lz4(payload: Pixels, size: int) -> Chunk | None:
    if hdf5_header(payload, size) is not None:
        return payload
    if payload.size >= size or size > _LZ4_BLOCK:
        # The filter would take a block of this length for plain pixels.
        return None
    header = HDF5_HEADER.pack(size, size) + BLOCK_LENGTH.pack(payload.size)
    return b"".join((header, payload.data))


def _direct_bslz4(payload: Pixels, size: int) -> Chunk | None:
    block = hdf5_header(payload, size)
    if block is None:
        return b"".join((HDF5_HEADER.pack(size, BITSHUFFLE_BLOCK), payload.data))
    if block:
        return payload
    # bitshuffle takes its own block size for 0, its filter takes it for an error.
    return b"".join((HDF5_HEADER.pack(size, BITSHUFFLE_BLOCK), payload.data[HDF5_HEADER.size :]))


def _direct_blosc(payload: Pixels, _: int) -> Chunk | None:
    return payload


_DIRECT: dict[str, Callable[[Pixels, int], Chunk | None]] = {
    "lz4": _direct_lz4,
    "bslz4": _direct_bslz4,
    "blosc": _direct_blosc,
}
