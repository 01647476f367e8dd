"""Opens files of frames, also those that are being written or were never closed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pvapy_stream.codecs import decompress
from pvapy_stream.errors import CodecError, FileError
from pvapy_stream.files.chunks import NONE, checksum, codec_of
from pvapy_stream.files.disk import file_error
from pvapy_stream.files.nexus_layout import ATTRIBUTES, CHECKSUMS, IDS, IMAGES, TIMES, opened

if TYPE_CHECKING:
    import h5py


def open_any(path: Path) -> h5py.File:
    """Open a file to read, also one that is being written.

    Raises:
        FileError: it cannot be read.
    """
    try:
        try:
            return opened(path, "r")
        except OSError as error:
            # The message of HDF5 for a file that is being written, or whose writer was killed.
            # Other files must not be opened with `swmr`: it omits checks that prevent crashes.
            if "open for write" not in str(error):
                raise
            return opened(path, "r", swmr=True)
    except OSError as error:
        raise file_error("read", path, error) from error


def open_data(path: Path) -> h5py.File:
    """Open a file of frames to read, also one that is being written.

    Raises:
        FileError: it cannot be read, or is no file of frames.
    """
    file = open_any(path)
    missing = [name for name in (IMAGES, IDS, TIMES, CHECKSUMS, ATTRIBUTES) if name not in file]
    if missing:
        file.close()
        raise FileError(f"{path} has no /{missing[0]}: it was not written by this program")
    return file


def chunk_is_whole(images: h5py.Dataset, row: int, expected: int) -> bool:
    """Whether the stored chunk of an image exists and has the expected checksum."""
    try:
        _, chunk = images.id.read_direct_chunk((row,) + (0,) * (images.ndim - 1))
    except (OSError, RuntimeError, ValueError):
        return False
    return checksum(chunk) == expected


def check_pixels_of(images: h5py.Dataset, row: int) -> None:
    """Decode the stored chunk of an image.

    Raises:
        CodecError: it does not give an image.
        OSError, RuntimeError, ValueError: it cannot be read.
        MissingExtraError: the codec's library is not installed.
    """
    mask, chunk = images.id.read_direct_chunk((row,) + (0,) * (images.ndim - 1))
    codec = codec_of(images)
    size = math.prod(images.shape[1:]) * images.dtype.itemsize
    if codec is None:
        raise CodecError("images have filters that this program does not write")
    if codec != NONE and not mask:
        decompress(codec, np.frombuffer(chunk, np.uint8), images.dtype, size)
    elif len(chunk) != size:
        raise CodecError(f"{len(chunk)} bytes where an image has {size}")
