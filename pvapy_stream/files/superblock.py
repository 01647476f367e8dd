"""The superblock of an HDF5 file: the mark of an open file, and the end of the file.

HDF5 marks a file that is being written in its superblock. It opens a marked file only for reading
in SWMR mode, and does not open a file that is shorter than its superblock says.
"""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from pvapy_stream.errors import FileError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FLAGS_AT = 11
_END_AT = 28
_CHECKED = 44  # bytes of the superblock before its checksum
_SIZE = _CHECKED + 4
_M = 0xFFFFFFFF


def unmark(path: Path) -> None:
    """Remove the mark of an open file from the superblock, and set the end of the file.

    This is what `h5clear` of the HDF5 tools does. The end is set to the size of the file, so that
    later additions do not overwrite data.

    Raises:
        FileError: this program did not write the file.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        block, end = _unmarked(file.read(_SIZE), size, path)
        if end > size:
            file.truncate(end)
        file.seek(0)
        file.write(block)


def is_cut(path: Path) -> bool:
    """Whether a file is shorter than its superblock says.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        block = file.read(_SIZE)
        size = file.seek(0, os.SEEK_END)
    try:
        return _unmarked(block, size, path)[1] > size
    except FileError:
        return False


def open_cut(path: Path) -> h5py.File:
    """Open a file whose end is missing, for reading; the missing bytes are read as zeros.

    The file is not changed. HDF5 detects the missing bytes by its checksums.

    Raises:
        OSError: it cannot be opened.
        FileError: this program did not write the file.
    """
    return h5py.File(_CutFile(path), "r")


def _unmarked(block: bytes, size: int, path: Path) -> tuple[bytes, int]:
    """A superblock without the mark, and the end of the file that it contains."""
    if len(block) < _SIZE or block[: len(_SIGNATURE)] != _SIGNATURE or block[len(_SIGNATURE)] < 2:
        raise FileError(f"{path} was not written by this program")
    made = bytearray(block[:_CHECKED])
    made[_FLAGS_AT] = 0
    end = max(size, struct.unpack_from("<Q", made, _END_AT)[0])
    struct.pack_into("<Q", made, _END_AT, end)
    return bytes(made) + struct.pack("<I", lookup3(bytes(made))), end


class _CutFile(io.RawIOBase):
    """A file extended by zeros to the length in its superblock, and without the mark."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("rb")
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        try:
            self._block, self._end = _unmarked(self._file.read(_SIZE), size, path)
        except FileError:
            self._file.close()
            raise
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._end - self._at))
        self._file.seek(self._at)
        data = self._file.read(wanted).ljust(wanted, b"\0")
        if self._at < len(self._block):
            data = self._block[self._at : self._at + wanted] + data[len(self._block) - self._at :]
        view[:wanted] = data[:wanted]
        self._at += wanted
        return wanted

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


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
