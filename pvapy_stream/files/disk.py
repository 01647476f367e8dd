"""What can be wrong with a disk or a folder: names that are taken, no space, no permission."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from pvapy_stream.errors import FileError
from pvapy_stream.files.names import part_of

_RESERVE = 2_000_000  # bytes of the disk that are kept to close the file with


class Reserve:
    """Holds space in a folder, in a file without a name; HDF5 needs some to close a file well."""

    def __init__(self, folder: Path) -> None:
        self._file: Any = None
        try:
            self._file = tempfile.TemporaryFile(dir=folder)
            os.posix_fallocate(self._file.fileno(), 0, _RESERVE)
        except OSError:
            self.release()

    def release(self) -> None:
        """Give the space back."""
        if self._file is not None:
            self._file.close()
            self._file = None


def file_error(what: str, path: Path, error: BaseException) -> FileError:
    """Our error for one of HDF5's or the system's, which may be long."""
    text = str(error)
    if "No space left" in text or "errno = 28" in text:
        cause = "no space left on device; free some, or write to another"
    elif "Disk quota" in text or "errno = 122" in text:
        cause = "the disk quota is used up; free some, or write to another disk"
    elif "errno = 27" in text or "File too large" in text:
        cause = "the file would be larger than is allowed; write fewer images to a file"
    else:
        cause = getattr(error, "strerror", None) or text
    return FileError(f"cannot {what} {path}: {cause}")


def check_new(path: Path, overwrite: bool) -> None:
    """Refuse a name that is taken.

    Raises:
        FileError: a file, or one that is being written, has that name.
    """
    if overwrite:
        return
    if path.exists():
        raise FileError(f"{path} exists; give another name, or --overwrite to replace it")
    if (part := part_of(path)).exists():
        raise FileError(
            f"{part} exists: another writer is at it, or was killed; see it with pvapy-stream"
            f" verify --repair {part}, or give another name, or --overwrite to replace it"
        )


def check_space(path: Path, size: int) -> None:
    """Stop before the disk is full: HDF5 needs some to leave a file that can be read.

    Raises:
        FileError: too little is free.
    """
    disk = os.statvfs(path)
    if disk.f_bavail * disk.f_frsize < size + _RESERVE:
        raise FileError(
            f"cannot write {path}: no space left on device ({disk.f_bavail * disk.f_frsize} bytes"
            " free); free some, or write to another"
        )


def make_folder(folder: Path) -> None:
    """Make a folder if it is not there.

    Raises:
        FileError: it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error("make the folder", folder, error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FileError(f"cannot write to the folder {folder}: permission denied")
