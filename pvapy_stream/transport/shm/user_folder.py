"""The private folder of a user in shared memory: all files except the samples themselves.

Only this user can create files in it, but it may contain anything: files of another program, of
another version or of a person. A file is opened only after checks that this package can have
created it, and links are never followed. Anything else is reported once and left unchanged.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import threading
import time
from collections.abc import Generator
from pathlib import Path

from pvapy_stream.errors import TransportError

SHM = Path("/dev/shm")  # noqa: S108 - shared memory, not temporary files
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_WARNINGS = 20
_LOCK_INTERVAL = 0.002  # s between two attempts

_log = logging.getLogger(__name__)
_warned: set[str] = set()
_warned_lock = threading.Lock()


def path() -> Path:
    """Path of the folder."""
    return SHM / f"pvapy_stream-{os.getuid()}"


def private_folder() -> Path:
    """The folder; it is created if it does not exist.

    Raises:
        TransportError: it cannot be created, or other users have access to it.
    """
    folder = path()
    file = _create(folder)
    try:
        if stat.S_IMODE(os.fstat(file).st_mode) & 0o077:
            raise _not_ours(folder)
    finally:
        os.close(file)
    return folder


def subfolder(name: str) -> Path:
    """A folder in the private one; it is created if it does not exist.

    Raises:
        TransportError: it cannot be created, or is a link, a file or owned by another user.
    """
    folder = private_folder() / name
    os.close(_create(folder))
    return folder


def _create(folder: Path) -> int:
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        file = os.open(folder, _FOLDER_FLAGS)
    except NotADirectoryError as error:
        raise _not_ours(folder) from error
    except OSError as error:
        raise TransportError(
            f"cannot create {folder}: {error.strerror}; mode shm needs shared memory at {SHM}"
        ) from error
    if os.fstat(file).st_uid != os.getuid():
        os.close(file)
        raise _not_ours(folder)
    return file


def _not_ours(folder: Path) -> TransportError:
    return TransportError(
        f"{folder} is not a folder of this user alone; remove it, or set its mode with chmod 700"
    )


def open_folder(name: str | Path, within: int | None = None) -> int | None:
    """Descriptor of a folder of this user; None if there is none, or a link."""
    try:
        file = os.open(name, _FOLDER_FLAGS, dir_fd=within)
    except OSError:
        return None
    if os.fstat(file).st_uid != os.getuid():
        os.close(file)
        return None
    return file


def open_file(name: str, within: int, kind: int, size: int | None = None) -> int | None:
    """Descriptor of a file in a folder; None if it does not exist or `why_foreign` rejects it.

    Args:
        name: its name.
        within: descriptor of the folder.
        kind: `stat.S_IFREG` or `stat.S_IFIFO`.
        size: its size in bytes, if known.
    """
    try:
        file = os.open(name, _FILE_FLAGS, dir_fd=within)
    except OSError:
        return None
    if why_foreign(os.fstat(file), kind, size):
        os.close(file)
        return None
    return file


def why_foreign(found: os.stat_result, kind: int, size: int | None = None) -> str:
    """Why this package cannot have created a file; "" if it can.

    Args:
        found: result of `lstat` or `fstat`, never of the target of a link.
        kind: `stat.S_IFREG`, `stat.S_IFIFO` or `stat.S_IFDIR`.
        size: its size in bytes, if known.
    """
    if stat.S_ISLNK(found.st_mode):
        return "it is a link"
    if stat.S_IFMT(found.st_mode) != kind:
        return f"it is no {_KINDS[kind]}"
    if found.st_uid != os.getuid():
        return f"it belongs to user {found.st_uid}"
    if kind != stat.S_IFDIR and found.st_nlink > 1:
        return f"it has {found.st_nlink} names (hard links)"
    if size is not None and found.st_size != size:
        return f"it has {found.st_size} bytes, not {size}"
    return ""


_KINDS = {stat.S_IFREG: "plain file", stat.S_IFIFO: "pipe", stat.S_IFDIR: "folder"}


def warn_skipped(path: Path, why: str) -> None:
    """Warn once that something is left unchanged."""
    warn_once(path, f"is skipped: {why}; remove it if it is not needed")


def warn_once(path: Path, what: str) -> None:
    """Log one warning for each path; after many paths, a last warning that there are more."""
    with _warned_lock:
        if str(path) in _warned or len(_warned) > _MAX_WARNINGS:
            return
        _warned.add(str(path))
        if len(_warned) > _MAX_WARNINGS:
            what = (
                "and further files that do not belong to pvapy_stream are skipped without a message"
            )
    _log.warning("%s %s", path, what)


@contextlib.contextmanager
def locked(file: int, how: int, timeout: float) -> Generator[bool, None, None]:
    """Try to lock a descriptor for `timeout` seconds; yields whether it is locked."""
    deadline = time.monotonic() + timeout
    has_lock = lock(file, how)
    while not has_lock and time.monotonic() < deadline:
        time.sleep(_LOCK_INTERVAL)
        has_lock = lock(file, how)
    try:
        yield has_lock
    finally:
        # Closing does not unlock it: a child process forked meanwhile shares the descriptor.
        if has_lock:
            fcntl.flock(file, fcntl.LOCK_UN)


def lock(file: int, how: int) -> bool:
    """Lock a descriptor without waiting; whether it is locked."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
