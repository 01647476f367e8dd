"""Pixels of image messages: typed arrays (RFC 8746), compressed ones as they came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from pvapy_stream.codecs import check_bslz4, hdf5_header, strip_hdf5_header
from pvapy_stream.dectris.cbor import tag_of, tagged
from pvapy_stream.errors import CodecError, DectrisError
from pvapy_stream.frame import Pixels

_MATRIX = 40  # tag of a multi-dimensional array, slowest dimension first
_COMPRESSED = 56500  # tag of compressed bytes
_LARGEST = 2**30  # bytes of one image

# Tags of typed arrays; those that NTNDArray has no type for are missing.
_TYPES = {
    **dict.fromkeys((64, 68), "u1"),
    **{65: ">u2", 66: ">u4", 67: ">u8", 69: "<u2", 70: "<u4", 71: "<u8"},
    **{72: "i1", 73: ">i2", 74: ">i4", 75: ">i8", 77: "<i2", 78: "<i4", 79: "<i8"},
    **{81: ">f4", 82: ">f8", 85: "<f4", 86: "<f8"},
}
_TAGS = {np.dtype(kind): tag for tag, kind in _TYPES.items() if tag != 68 and kind[0] != ">"}


@dataclass(frozen=True, slots=True)
class Picture:
    """The pixels of one channel.

    Attributes:
        shape: (ny, nx).
        dtype: type of a pixel, in the byte order of this machine.
        codec: ``""`` for pixels, else ``lz4`` or ``bslz4``, as in `Frame`.
        payload: 1-d array: pixels, or compressed bytes as area detector plugins send them.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    codec: str
    payload: Pixels


def read_picture(value: object) -> Picture:
    """The pixels of a channel; compressed ones are checked, and not decompressed.

    Raises:
        DectrisError: it is no image of two dimensions, its type or compression is not known, or its
            sizes do not fit.
    """
    tag, content = tag_of(value)
    if tag != _MATRIX:
        raise DectrisError(f"an image is no array of two dimensions (tag {_MATRIX})")
    if not _is_list(content, 2):
        raise DectrisError("an image has no dimensions and values")
    shape = _shape(content[0])
    tag, data = tag_of(content[1])
    if tag not in _TYPES:
        raise DectrisError(f"pixels of the type with tag {tag} are not supported")
    dtype = np.dtype(_TYPES[tag])
    size = math.prod(shape) * dtype.itemsize
    if size > _LARGEST:
        raise DectrisError(f"an image of {size} bytes is larger than the allowed {_LARGEST}")
    tag, packed = tag_of(data)
    if tag == _COMPRESSED:
        return _compressed(packed, shape, dtype, size)
    if tag != -1 or not isinstance(packed, bytes):
        raise DectrisError("the pixels of an image are no bytes")
    if len(packed) != size:
        raise DectrisError(
            f"an image of {shape[1]}x{shape[0]} pixels of type {dtype.name} has {len(packed)}"
            f" bytes, not {size}"
        )
    pixels = np.frombuffer(packed, dtype)
    native = dtype.newbyteorder("=")
    return Picture(shape, native, "", pixels.astype(native, copy=False))


def _is_list(value: object, length: int) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, (list, tuple)) and len(value) == length


def _shape(value: object) -> tuple[int, int]:
    if not _is_list(value, 2):
        raise DectrisError(f"an image has the dimensions {_short(value)}, not two")
    ny, nx = value
    if any(type(n) is not int or not 0 < n < 2**31 for n in (ny, nx)):
        raise DectrisError(f"an image has the dimensions {_short(value)}")
    return ny, nx


def _compressed(
    content: object, shape: tuple[int, int], dtype: np.dtype[Any], size: int
) -> Picture:
    if not _is_list(content, 3):
        raise DectrisError("compressed pixels have no algorithm, element size and bytes")
    codec, element, chunk = content
    if not isinstance(codec, str) or codec not in ("lz4", "bslz4"):
        raise DectrisError(f"the compression {_short(codec)} is not supported")
    if not isinstance(chunk, bytes):
        raise DectrisError("compressed pixels are no bytes")
    if dtype.byteorder == ">":
        raise DectrisError(f"compressed pixels of type {dtype.name} are big-endian")
    if codec == "bslz4" and element != dtype.itemsize:
        raise DectrisError(
            f"bslz4 has elements of {_short(element)} bytes, and pixels have {dtype.itemsize}"
        )
    if hdf5_header(chunk, size) is None:
        raise DectrisError(
            f"compressed pixels do not begin with their size, which is {size} bytes for"
            f" {shape[1]}x{shape[0]} pixels of type {dtype.name}"
        )
    try:
        if codec == "bslz4":
            check_bslz4(chunk, size, dtype.itemsize)
        # It checks lz4 itself.
        bare = strip_hdf5_header(codec, chunk, size)
    except CodecError as error:
        raise DectrisError(f"pixels compressed with {codec}: {error}") from error
    return Picture(shape, dtype, codec, np.frombuffer(bare, np.uint8))


def _short(value: object) -> str:
    """A value of a message, for an error; it may be large."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def written(image: Pixels, codec: str = "", chunk: Sequence[int] | bytes = b"") -> Any:
    """An image as it is in messages.

    Args:
        image: array (ny, nx).
        codec: ``""``, ``lz4`` or ``bslz4``.
        chunk: the compressed pixels, in the framing of HDF5's filters.
    """
    data: object = image.tobytes()
    if codec:
        element = image.itemsize if codec == "bslz4" else 0
        data = tagged(_COMPRESSED, [codec, element, bytes(chunk)])
    return tagged(_MATRIX, [list(image.shape), tagged(_TAGS[image.dtype], data)])
