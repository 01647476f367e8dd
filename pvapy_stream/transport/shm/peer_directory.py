"""The directory of a channel's peers: the files through which publishers and subscribers meet.

Each publisher has a peer file, and each subscriber one for each publisher it is connected to; a
subscriber also has a wake-up FIFO. Every file is locked as long as its owner lives, so the death of
a process is seen at once, and cannot be mistaken for a pause. Any process that finds an unlocked
file removes it.

A file is created under a temporary name that begins with a dot, locked, filled, and renamed: other
processes see it locked and complete. A clean-up removes every file that it can lock, so a file can
be removed between its creation and its lock; its owner notices and creates another. Whoever creates
a file holds a shared lock on the folder of all peer directories, and an empty peer directory is
removed only under an exclusive lock on that folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Generator
from pathlib import Path

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.shm.peer_file import (
    PUBLISHER,
    SIZE,
    SUBSCRIBER,
    Counters,
    Info,
    PeerFile,
    PeerKind,
    write_info,
)
from pvapy_stream.transport.shm.user_folder import (
    lock,
    locked,
    open_file,
    open_folder,
    path,
    subfolder,
    warn_once,
    warn_skipped,
    why_foreign,
)
from pvapy_stream.transport.shm.wakeup import WakeupFifo

# The name on disk is the same in all versions: processes find each other by it.
_DIRECTORIES = "rooms"
_LOCK_TIMEOUT = 0.5  # s; a lock is held for microseconds, unless its holder is suspended
_CREATE_TIMEOUT = 10.0  # s
_KEY = "[0-9a-f]{32}"
_NAMES = {
    "p": re.compile(f"p-{_KEY}"),
    "s": re.compile(f"s-{_KEY}-{_KEY}"),
    "w": re.compile(f"w-{_KEY}"),
    ".": re.compile(rf"\.{_KEY}"),
}

_Create = Callable[[str, int], int]


class PeerDirectory:
    """The peers of one channel.

    Attributes:
        path: where it is; it exists as long as it has files.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        name = hashlib.sha256(channel.encode()).hexdigest()[:32]
        self.path = path() / _DIRECTORIES / name

    # -- files of this process -------------------------------------------------------------------

    def create(self, kind: PeerKind[Info, Counters], info: Info) -> PeerFile[Info, Counters]:
        """Create a peer file of this process; others see it complete and locked.

        Raises:
            TransportError: it cannot be created.
        """
        file = self._create(info.name, _create_file, lambda file: write_info(file, info))
        return PeerFile(self.path / info.name, file, kind)

    def create_wakeup(self, key: str) -> WakeupFifo:
        """Create the wake-up FIFO of a subscriber.

        Raises:
            TransportError: it cannot be created.
        """
        path = self.wakeup_path(key)
        return WakeupFifo(path, self._create(path.name, _create_fifo, lambda _: None))

    def wakeup_path(self, key: str) -> Path:
        """Path of the wake-up FIFO of a subscriber."""
        return self.path / f"w-{key}"

    def _create(self, name: str, create: _Create, fill: Callable[[int], None]) -> int:
        deadline = time.monotonic() + _CREATE_TIMEOUT
        try:
            while True:
                with self._existing() as folder:
                    file = (
                        _create_locked(folder, name, create, fill) if folder is not None else None
                    )
                if file is not None:
                    return file
                if time.monotonic() > deadline:
                    raise TransportError(
                        f"channel {self.channel}: {self.path} is removed repeatedly; check whether"
                        " another program does that"
                    )
        except OSError as error:
            raise TransportError(
                f"cannot create {self.path / name} for channel {self.channel}: {error.strerror};"
                " shared memory may be full (df /dev/shm)"
            ) from error

    @contextlib.contextmanager
    def _existing(self) -> Generator[int | None, None, None]:
        """Descriptor of the folder, which is not removed meanwhile; None: try again."""
        parent = open_folder(subfolder(_DIRECTORIES))
        if parent is None:
            yield None
            return
        try:
            # Without the lock, if its holder is suspended, a few attempts may be needed.
            with locked(parent, fcntl.LOCK_SH, _LOCK_TIMEOUT):
                folder = self._folder_in(parent)
                try:
                    yield folder
                finally:
                    if folder is not None:
                        os.close(folder)
        finally:
            os.close(parent)

    def _folder_in(self, parent: int) -> int | None:
        name = self.path.name
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            found = open_folder(name, parent)
            if found is None:
                self._clear(parent)
            return found
        return open_folder(name, parent)

    def _clear(self, parent: int) -> None:
        """Remove a file that has the name of this folder.

        Raises:
            TransportError: it is a folder of another user.
        """
        try:
            found = os.stat(self.path.name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        why = why_foreign(found, stat.S_IFDIR)
        if stat.S_ISDIR(found.st_mode):
            raise TransportError(
                f"channel {self.channel} needs {self.path}, but {why or 'it cannot be opened'};"
                " remove it"
            )
        warn_once(self.path, f"is removed: {why}, and channel {self.channel} needs its name")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path.name, dir_fd=parent)

    # -- files of other processes ----------------------------------------------------------------

    @contextlib.contextmanager
    def _opened(self) -> Generator[int | None, None, None]:
        """Descriptor of the folder; None if it does not exist."""
        parent = open_folder(self.path.parent)
        folder = open_folder(self.path.name, parent) if parent is not None else None
        try:
            yield folder
        finally:
            for file in (folder, parent):
                if file is not None:
                    os.close(file)

    def names(self, prefix: str) -> list[str]:
        """Names of the files that begin with a prefix, oldest first; foreign ones are skipped."""
        with self._opened() as folder:
            return self._names(folder, prefix) if folder is not None else []

    def _names(self, folder: int, prefix: str) -> list[str]:
        return [name for _, name in sorted(self._listed(folder, prefix))]

    def _listed(self, folder: int, prefix: str) -> list[tuple[int, str]]:
        """Time of the last change and name of each file."""
        found: list[tuple[int, str]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(prefix):
                    continue
                # It may be removed at this moment.
                with contextlib.suppress(FileNotFoundError):
                    state = entry.stat(follow_symlinks=False)
                    why = _why_skipped(entry.name, state)
                    if why:
                        warn_skipped(self.path / entry.name, why)
                    else:
                        found.append((state.st_ctime_ns, entry.name))
        return found

    def open(self, kind: PeerKind[Info, Counters], name: str) -> PeerFile[Info, Counters] | None:
        """Open a file of another process; None if the file or its owner is gone.

        A file without an owner is removed.
        """
        with self._opened() as folder:
            return self._open(folder, kind, name) if folder is not None else None

    def _open(
        self, folder: int, kind: PeerKind[Info, Counters], name: str
    ) -> PeerFile[Info, Counters] | None:
        file = open_file(name, folder, stat.S_IFREG, SIZE)
        if file is None:
            return None
        try:
            peer_file = PeerFile(self.path / name, file, kind)
        except (OSError, ValueError):
            os.close(file)
            return None
        if not peer_file.has_owner():
            peer_file.close(remove=True)
            return None
        return peer_file

    def has_publisher(self) -> bool:
        """Whether the channel has a running publisher; files of dead ones are removed."""
        for name in self.names(PUBLISHER.prefix):
            peer_file = self.open(PUBLISHER, name)
            if peer_file is None:
                continue
            try:
                peer_file.read_info()
                return True
            except TransportError as error:
                warn_skipped(peer_file.path, str(error))
            finally:
                peer_file.close(remove=False)
        return False

    # -- clean-up --------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Remove the files of dead processes, in the peer directories of all channels."""
        parent = open_folder(self.path.parent)
        if parent is None:
            return
        try:
            for name in os.listdir(parent):
                self._sweep_directory(parent, name)
        finally:
            os.close(parent)

    def _sweep_directory(self, parent: int, name: str) -> None:
        path = self.path.parent / name
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            why = why_foreign(found, stat.S_IFDIR)
            if not why and not re.fullmatch(_KEY, name):
                why = "its name is not one of ours"
            if why:
                warn_skipped(path, why)
                return
            other = PeerDirectory(self.channel)
            other.path = path
            other._sweep_files()
            if path != self.path:
                other.remove_if_empty()
        except FileNotFoundError:
            # Another process has removed it.
            pass
        except OSError as error:
            warn_skipped(path, f"it cannot be cleaned up ({error.strerror})")

    def _sweep_files(self) -> None:
        with self._opened() as folder:
            if folder is not None:
                for name in self._names(folder, ""):
                    _remove_dead(folder, name)

    def remove_if_empty(self) -> None:
        """Remove the directory if it has no files."""
        parent = open_folder(self.path.parent)
        if parent is None:
            return
        try:
            with (
                locked(parent, fcntl.LOCK_EX, _LOCK_TIMEOUT) as alone,
                contextlib.suppress(OSError),
            ):
                if alone:
                    os.rmdir(self.path.name, dir_fd=parent)
        finally:
            os.close(parent)


def _create_locked(
    folder: int, name: str, create: _Create, fill: Callable[[int], None]
) -> int | None:
    """Create a locked file with its content; None if it was removed before it was locked."""
    temporary = f".{new_key()}"
    try:
        file = create(temporary, folder)
    except FileNotFoundError:
        return None
    try:
        if not lock(file, fcntl.LOCK_EX) or not os.fstat(file).st_nlink:
            os.close(file)
            return None
        fill(file)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        os.close(file)
        raise
    return file


def _create_file(name: str, folder: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(name, flags, 0o600, dir_fd=folder)


def _create_fifo(name: str, folder: int) -> int:
    os.mkfifo(name, 0o600, dir_fd=folder)
    return os.open(name, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def _kind_of(name: str) -> int | None:
    """Kind of file that has such a name; None for temporary names, which both kinds have."""
    return {"w": stat.S_IFIFO, ".": None}.get(name[0], stat.S_IFREG)


def _why_skipped(name: str, found: os.stat_result) -> str:
    pattern = _NAMES.get(name[0])
    if pattern is None or not pattern.fullmatch(name):
        return "its name is not one of ours"
    kind = _kind_of(name)
    if kind is None:
        kind = stat.S_IFIFO if stat.S_ISFIFO(found.st_mode) else stat.S_IFREG
        return why_foreign(found, kind)
    return why_foreign(found, kind, SIZE if kind == stat.S_IFREG else None)


def _remove_dead(folder: int, name: str) -> None:
    """Remove a file whose owner is dead; a process that just creates one notices its removal."""
    kind = _kind_of(name)
    for one in (stat.S_IFREG, stat.S_IFIFO) if kind is None else (kind,):
        file = open_file(name, folder, one)
        if file is not None:
            if lock(file, fcntl.LOCK_SH):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
            os.close(file)


def new_key() -> str:
    """A unique key of a publisher or subscriber, 32 hexadecimal digits."""
    return uuid.uuid4().hex


def has_publisher(channel: str) -> bool:
    """Whether a process of this user on this host publishes a channel in shared memory."""
    return PeerDirectory(channel).has_publisher()


def has_subscribers(publisher: bytes) -> bool:
    """Whether a living subscriber is connected to a publisher, on any channel.

    Args:
        publisher: its key, as 16 bytes. The publisher itself may be dead.
    """
    found = PeerDirectory("")
    with contextlib.suppress(FileNotFoundError):
        for folder in (path() / _DIRECTORIES).iterdir():
            found.path = folder
            for name in found.names(f"{SUBSCRIBER.prefix}{publisher.hex()}-"):
                file = found.open(SUBSCRIBER, name)
                if file is not None:
                    file.close(remove=False)
                    return True
    return False
