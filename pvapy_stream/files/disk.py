"""Checks of disks and folders: existing files, space and permissions."""

from __future__ import annotations

import errno
import logging
import os
import resource
import shlex
import stat
import tempfile
from pathlib import Path
from typing import IO, NamedTuple

from pvapy_stream.errors import FileError
from pvapy_stream.files.names import part_of

# What HDF5 and the system raise when a file cannot be written or read.
HDF5_ERRORS = (OSError, RuntimeError, ValueError)

_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
_RESERVE = 2_000_000  # bytes of the disk that are kept to close the file with

_log = logging.getLogger(__name__)


class Reserve:
    """Reserves disk space with a file without a name; HDF5 needs some to close a file."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] | None = None
        try:
            self._file = tempfile.TemporaryFile(dir=folder)
            os.posix_fallocate(self._file.fileno(), 0, _RESERVE)
        except OSError:
            self.release()

    def release(self) -> None:
        """Free the space."""
        if self._file is not None:
            self._file.close()
            self._file = None


# Never released: HDF5 may crash when the interpreter releases them.
_failed_to_close: list[object] = []


def note_failed_close(file: object) -> None:
    """Note a file that HDF5 could not close."""
    _failed_to_close.append(file)


def failed_to_close() -> bool:
    """Whether this process must end without the interpreter's own clean-up, see above."""
    return bool(_failed_to_close)


def file_error(what: str, path: Path, error: BaseException) -> FileError:
    """A `FileError` with a short cause, for an error of HDF5 or the operating system."""
    text = str(error)
    if "No space left" in text or "errno = 28" in text:
        cause = "no space left on device; free some, or write to another"
    elif "Disk quota" in text or "errno = 122" in text:
        cause = "the disk quota is used up; free some, or write to another disk"
    elif "errno = 27" in text or "File too large" in text:
        cause = "the file would exceed the allowed size; write fewer images to a file"
    else:
        cause = getattr(error, "strerror", None) or text
    return FileError(f"cannot {what} {path}: {cause}")


class Identity(NamedTuple):
    """Identifies a plain file, also if its name was given to another one."""

    device: int
    inode: int
    modified_ns: int
    size: int


def identity(path: Path) -> Identity | None:
    """Identity of the plain file at a path; None for no file, a link, a folder or a device."""
    try:
        found = path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return Identity(found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)


def show_name(part: Path, path: Path) -> None:
    """Give a file that is being written its later name too; `take_name` then takes the other off.

    On a file system without hard links, it has the one name only.

    Raises:
        FileError: another file has the name.
        OSError: it cannot be given.
    """
    try:
        os.link(part, path)
    except FileExistsError as error:
        raise FileError(f"{path} exists; give another name") from error
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _log.warning("%s: no hard links there; until it is closed, readers find %s", path, part)


def same_file(path: Path, other: Path) -> bool:
    """Whether two names are of one file; no link counts."""
    found = identity(path)
    also = identity(other)
    return found is not None and also is not None and found[:2] == also[:2]


def take_name(part: Path, path: Path, replaces: Identity | None = None) -> None:
    """Rename a complete file to its final name, unless another file has that name by now.

    Args:
        part: the file.
        path: its final name.
        replaces: identity of the file that had that name before, and may be replaced.

    Raises:
        FileError: another file has the name.
        OSError: the file cannot be renamed.
    """
    if replaces is not None and identity(path) == replaces:
        part.replace(path)
        return
    if same_file(part, path):
        # It had this name already while it was written.
        part.unlink()
        return
    try:
        try:
            # Unlike a rename, a link does not replace a file.
            os.link(part, path)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            part.replace(path)
        else:
            part.unlink()
    except FileExistsError as error:
        raise FileError(
            f"{path} appeared while {part} was written, and is not replaced; move it away, then:"
            f" pvapy-stream verify --repair {shlex.quote(str(part))}"
        ) from error


def check_new(path: Path, overwrite: bool) -> None:
    """Check that a file can be created at a path.

    Args:
        path: of the new file.
        overwrite: whether a plain file may be replaced.

    Raises:
        FileError: a file exists there, or one is being written.
    """
    if os.path.lexists(path):
        if not overwrite:
            raise FileError(f"{path} exists; give another name, or --overwrite to replace it")
        if identity(path) is None:
            raise FileError(f"{path} is not a plain file, and is not replaced; give another name")
    check_no_part(path)


def check_no_part(path: Path) -> None:
    """Check that no file is being written at a path, or was never closed: it may hold data.

    Raises:
        FileError: there is such a file.
    """
    if os.path.lexists(part := part_of(path)):
        raise FileError(
            f"{part} exists: another writer uses it, or was killed; if it was killed, complete it"
            f" with: pvapy-stream verify --repair {shlex.quote(str(part))}; or give another name"
        )


def check_space(path: Path, size: int) -> None:
    """Check that there is space to write, and to close the file afterwards.

    Args:
        path: of the file, or of its folder.
        size: bytes to write.

    Raises:
        FileError: the disk has too little space, or the file would be larger than allowed.
    """
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY:
        reserve = min(_RESERVE, limit // 4)
        if path.stat().st_size + size + reserve > limit:
            raise FileError(
                f"cannot write {path}: the file would be larger than is allowed ({limit} bytes, see"
                " ulimit -f); write fewer images to a file"
            )
    disk = os.statvfs(path)
    if disk.f_bavail * disk.f_frsize < size + _RESERVE:
        raise FileError(
            f"cannot write {path}: no space left on device ({disk.f_bavail * disk.f_frsize} bytes"
            " free); free some, or write to another"
        )


def make_folder(folder: Path) -> None:
    """Create a folder if it does not exist.

    Raises:
        FileError: it cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise file_error("make the folder", folder, error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FileError(f"cannot write to the folder {folder}: permission denied")
