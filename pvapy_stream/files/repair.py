"""Recovery of files whose writer was killed.

HDF5 marks a file that is being written in its superblock, and refuses to open a marked one for
anything but reading along. The mark is taken off here as `h5clear` of the HDF5 tools does it; the
end of the file is put where it is, so that nothing that is added later falls on data.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from pvapy_stream.errors import FileError
from pvapy_stream.files import swissfel_layout
from pvapy_stream.files.disk import file_error
from pvapy_stream.files.layout import CHECKSUMS, IMAGES, complete, opened
from pvapy_stream.files.names import PART, final_of
from pvapy_stream.files.reading import chunk_is_whole, open_any, open_data
from pvapy_stream.files.record import RECOVERED, LossRecord

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FLAGS_AT = 11
_END_AT = 28
_CHECKED = 44  # bytes of the superblock before its checksum
_M = 0xFFFFFFFF


def repair(path: str | Path) -> tuple[Path, int]:
    """Complete a file whose writer was killed, and take `.part` off its name.

    Returns:
        its path now, and how many images, or rows, it has.

    Raises:
        FileError: it is no file of ours, is whole already, or cannot be recovered.
    """
    path = Path(path)
    target = final_of(path) if path.name.endswith(PART) else path
    if target != path and target.exists():
        raise FileError(f"cannot recover {path}: {target} exists; move one of them away")
    try:
        finish = _finish_messages if _holds_messages(path) else _finish_frames
        n_good = _check_messages(path) if finish is _finish_messages else _check(path)
        _unmark(path)
        with opened(path, "r+") as file:
            finish(file, n_good)
        os.replace(path, target)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise file_error("recover", path, error) from error
    return target, n_good


def _check(path: Path) -> int:
    """How many images from the first on are whole."""
    with open_data(path) as file:
        if "loss_record" in file["entry"]:
            raise FileError(f"{path} is whole: its writer closed it; there is nothing to recover")
        images, checks = file[IMAGES], file[CHECKSUMS][()]
        n_good = len(checks)
        while n_good and not chunk_is_whole(images, n_good - 1, int(checks[n_good - 1])):
            n_good -= 1
        return n_good


def _finish_frames(file: Any, n_good: int) -> None:
    file[CHECKSUMS].resize(n_good, 0)
    text = f"The writer of this file was killed; recovered with {n_good} images."
    complete(file, LossRecord(RECOVERED), {"recovery": text})


def _holds_messages(path: Path) -> bool:
    with open_any(path) as file:
        return swissfel_layout.ACQUISITION in file


def _check_messages(path: Path) -> int:
    """How many rows there are."""
    with open_any(path) as file:
        if file[swissfel_layout.ACQUISITION].attrs["state"] != swissfel_layout.OPEN:
            raise FileError(f"{path} is whole: its writer closed it; there is nothing to recover")
        return file[swissfel_layout.COUNTED].shape[0]


def _finish_messages(file: Any, n_good: int) -> None:
    lost = swissfel_layout.gaps(file[swissfel_layout.COUNTED][:n_good])
    swissfel_layout.complete(file, lost, {}, swissfel_layout.RECOVERED)


def _unmark(path: Path) -> None:
    """Take the marks of an open file off the superblock, and set the end of the file."""
    with path.open("r+b") as file:
        block = bytearray(file.read(_CHECKED))
        if block[: len(_SIGNATURE)] != _SIGNATURE or block[len(_SIGNATURE)] < 2:
            raise FileError(f"{path} was not written by this program")
        block[_FLAGS_AT] = 0
        size = file.seek(0, os.SEEK_END)
        end = max(size, struct.unpack_from("<Q", block, _END_AT)[0])
        struct.pack_into("<Q", block, _END_AT, end)
        if end > size:
            file.truncate(end)
        file.seek(0)
        file.write(block + struct.pack("<I", lookup3(bytes(block))))


def lookup3(data: bytes) -> int:
    """Bob Jenkins' lookup3 hash, which HDF5 has as its metadata checksum."""
    a = b = c = (0xDEADBEEF + len(data)) & _M
    at = 0
    while len(data) - at > 12:
        a, b, c = _added(a, b, c, data[at : at + 12])
        a = ((a - c) & _M) ^ _turned(c, 4)
        c = (c + b) & _M
        b = ((b - a) & _M) ^ _turned(a, 6)
        a = (a + c) & _M
        c = ((c - b) & _M) ^ _turned(b, 8)
        b = (b + a) & _M
        a = ((a - c) & _M) ^ _turned(c, 16)
        c = (c + b) & _M
        b = ((b - a) & _M) ^ _turned(a, 19)
        a = (a + c) & _M
        c = ((c - b) & _M) ^ _turned(b, 4)
        b = (b + a) & _M
        at += 12
    if at == len(data):
        return c
    a, b, c = _added(a, b, c, data[at:].ljust(12, b"\0"))
    c = ((c ^ b) - _turned(b, 14)) & _M
    a = ((a ^ c) - _turned(c, 11)) & _M
    b = ((b ^ a) - _turned(a, 25)) & _M
    c = ((c ^ b) - _turned(b, 16)) & _M
    a = ((a ^ c) - _turned(c, 4)) & _M
    b = ((b ^ a) - _turned(a, 14)) & _M
    return ((c ^ b) - _turned(b, 24)) & _M


def _added(a: int, b: int, c: int, twelve: bytes) -> tuple[int, int, int]:
    x, y, z = struct.unpack("<III", twelve)
    return (a + x) & _M, (b + y) & _M, (c + z) & _M


def _turned(x: int, k: int) -> int:
    return ((x << k) | (x >> (32 - k))) & _M
