"""The folder of all that is not the samples themselves, and what lies in it that is not ours.

All names in it are of this user alone, but anything may lie there: what another program, another
version or a person left. Nothing is opened before it is known to be of our making, no link is
followed, and what is not ours is named once and left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pvapy_stream.errors import TransportError

SHM = Path("/dev/shm")  # noqa: S108 - not for temporary files: the memory itself
_AS_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_AS_FILE = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_NAMED = 20
_LOCK_STEP = 0.002  # s

_log = logging.getLogger(__name__)
_named: set[str] = set()
_naming = threading.Lock()


def path() -> Path:
    """Where the folder is."""
    return SHM / f"pvapy_stream-{os.getuid()}"


def private_folder() -> Path:
    """The folder, made if need be.

    Raises:
        TransportError: it cannot be made, or others have a hand in it.
    """
    folder = path()
    file = _made(folder)
    try:
        if stat.S_IMODE(os.fstat(file).st_mode) & 0o077:
            raise _not_ours(folder)
    finally:
        os.close(file)
    return folder


def subfolder(name: str) -> Path:
    """A folder in the private one, made if need be.

    Raises:
        TransportError: it cannot be made, or is a link, a file or of another owner.
    """
    folder = private_folder() / name
    os.close(_made(folder))
    return folder


def _made(folder: Path) -> int:
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        file = os.open(folder, _AS_FOLDER)
    except NotADirectoryError as error:
        raise _not_ours(folder) from error
    except OSError as error:
        raise TransportError(
            f"cannot make {folder}: {error.strerror}; mode shm needs shared memory at {SHM}"
        ) from error
    if os.fstat(file).st_uid != os.getuid():
        os.close(file)
        raise _not_ours(folder)
    return file


def _not_ours(folder: Path) -> TransportError:
    return TransportError(
        f"{folder} is not a folder of this user alone; remove it, or make it so with chmod 700"
    )


def open_folder(name: str | Path, within: int | None = None) -> int | None:
    """Descriptor of a folder of ours; None when there is none, as when it is a link."""
    try:
        file = os.open(name, _AS_FOLDER, dir_fd=within)
    except OSError:
        return None
    if os.fstat(file).st_uid != os.getuid():
        os.close(file)
        return None
    return file


def open_file(name: str, within: int, kind: int, size: int | None = None) -> int | None:
    """Descriptor of a file of ours in a folder; None when it is gone or not ours.

    Args:
        name: its name.
        within: descriptor of the folder.
        kind: `stat.S_IFREG` or `stat.S_IFIFO`.
        size: bytes it has, if that is known.
    """
    try:
        file = os.open(name, _AS_FILE, dir_fd=within)
    except OSError:
        return None
    if why_foreign(os.fstat(file), kind, size):
        os.close(file)
        return None
    return file


def why_foreign(found: os.stat_result, kind: int, size: int | None = None) -> str:
    """Why something cannot be of our making; "" when it can. `found` must not be of a link's end.

    Args:
        found: what `lstat` or `fstat` say.
        kind: `stat.S_IFREG`, `stat.S_IFIFO` or `stat.S_IFDIR`.
        size: bytes it has, if that is known.
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


def skip(path: Path, why: str) -> None:
    """Say once that something is left alone."""
    tell_once(path, f"is skipped: {why}; remove it if it is not needed")


def tell_once(path: Path, what: str) -> None:
    """Say something about a path once, and of very many paths that they are many."""
    with _naming:
        if str(path) in _named or len(_named) > _MOST_NAMED:
            return
        _named.add(str(path))
        if len(_named) > _MOST_NAMED:
            what = "and more that is not of pvapy_stream is skipped; no more of it is named"
    _log.warning("%s %s", path, what)


@contextlib.contextmanager
def locked(file: int, how: int, patience: float) -> Iterator[bool]:
    """Try for a limited time to lock a descriptor; whether that succeeded."""
    deadline = time.monotonic() + patience
    has_lock = lock(file, how)
    while not has_lock and time.monotonic() < deadline:
        time.sleep(_LOCK_STEP)
        has_lock = lock(file, how)
    try:
        yield has_lock
    finally:
        # Closing is not enough: a child that was forked meanwhile has the descriptor too.
        if has_lock:
            fcntl.flock(file, fcntl.LOCK_UN)


def lock(file: int, how: int) -> bool:
    """Lock a descriptor if nobody else has locked it."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
