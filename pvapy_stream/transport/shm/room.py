"""Where publishers and subscribers of a channel meet: small files of this user alone.

Each publisher has a file, and each subscriber has one for each publisher it follows. A file is
locked as long as its owner lives, so a process that was killed is told from one that is silent at
once; whoever finds an unlocked file removes it. Behind its description a subscriber's file has a
few numbers that both sides see: how many samples it took, whether it sleeps.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import select
import stat
import struct
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from pvapy_stream.errors import TransportError

SHM = Path("/dev/shm")  # noqa: S108 - not for temporary files: the memory itself
_SIZE = 4096
_WORDS = 16  # 8-byte numbers at the beginning
_TEXT_AT = _WORDS * 8
_LENGTH = struct.Struct("<I")
_YOUNG = 10.0  # s
_TRIES = 20

_T = TypeVar("_T")

# Numbers of a subscriber's file.
TAKEN, SLEEPING, STATE, ANSWER = range(4)
# Its states, and the publisher's answers.
JOINING, READY, LEAVING = range(3)
# Numbers of a publisher's file: its newest id, and how many objects it has published.
NEWEST, PUBLISHED = range(2)


class Publishing(msgspec.Struct, frozen=True):
    """What a publisher tells of itself."""

    key: str
    pid: int


class Subscribing(msgspec.Struct, frozen=True):
    """What a subscriber tells of itself: who it is, and its place in the distribution."""

    key: str
    publisher: str
    pid: int
    group: str = ""
    client_set: str = ""
    updates: int = 1
    queue: int = 0


class Place:
    """A file of a room, mapped into memory.

    Attributes:
        words: its numbers, as a memoryview that is read and written by index.
    """

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self._file = file
        self._map = mmap.mmap(file, _SIZE)
        self._view = memoryview(self._map)
        self.words: Any = self._view[:_TEXT_AT].cast("Q")

    def tell(self, text: bytes) -> None:
        """Write the description."""
        if len(text) > _SIZE - _TEXT_AT - _LENGTH.size:
            raise TransportError(
                f"the names of group and set take {len(text)} bytes, which is too much; shorten"
                " --distributor-group or --distributor-set"
            )
        _LENGTH.pack_into(self._map, _TEXT_AT, len(text))
        self._map[_TEXT_AT + _LENGTH.size : _TEXT_AT + _LENGTH.size + len(text)] = text

    def told(self) -> bytes:
        """Read the description."""
        (size,) = _LENGTH.unpack_from(self._map, _TEXT_AT)
        return bytes(self._map[_TEXT_AT + _LENGTH.size : _TEXT_AT + _LENGTH.size + size])

    def owned(self) -> bool:
        """Whether the process that made it lives."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return False

    def close(self, remove: bool) -> None:
        """Let go of it, and remove it if asked."""
        if remove:
            self.path.unlink(missing_ok=True)
        self.words.release()
        self._view.release()
        self._map.close()
        os.close(self._file)


class Bell:
    """Wakes a subscriber that waits: a pipe with a name, locked as long as its owner lives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path, 0o600)
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLIN)

    def wait(self, seconds: float) -> None:
        """Wait until somebody rings, for a limited time; other threads run meanwhile."""
        if self._poll.poll(seconds * 1000):
            with contextlib.suppress(BlockingIOError):
                os.read(self._file, 4096)

    def ring(self) -> None:
        """Ring oneself."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._file, b"!")

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._file)

    @staticmethod
    def rope(path: Path) -> int:
        """A file to write a byte to, which rings the bell; -1 when there is no bell."""
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return -1

    @staticmethod
    def sweep(path: Path) -> None:
        """Remove the bell of a dead process."""
        try:
            file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            # One that is being made is not locked yet either.
            if time.time() - os.fstat(file).st_mtime > _YOUNG:
                path.unlink(missing_ok=True)
        finally:
            os.close(file)


class Room:
    """The place of one channel."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        name = hashlib.sha256(channel.encode()).hexdigest()[:32]
        self.folder = _path() / "rooms" / name

    def make(self) -> None:
        """Make the folder.

        Raises:
            TransportError: it cannot be made, or is not ours alone.
        """
        private_folder()
        _make(self.folder.parent)
        _make(self.folder)

    def enter(self, name: str, description: Any) -> Place:
        """Make a file of our own; it shows up whole and locked."""
        path = self.folder / name
        part = self.folder / f".{name}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            file = self._first(lambda: os.open(part, flags, 0o600))
            os.posix_fallocate(file, 0, _SIZE)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise TransportError(
                f"cannot make {part} for channel {self.channel}: {error.strerror}; shared memory"
                " may be full (df /dev/shm)"
            ) from error
        fcntl.flock(file, fcntl.LOCK_EX)
        place = Place(path, file)
        place.tell(msgspec.msgpack.encode(description))
        part.rename(path)
        return place

    def bell(self, key: str) -> Bell:
        """Make a bell of our own."""
        return self._first(lambda: Bell(self.folder / f"w-{key}"))

    def _first(self, make_file: Callable[[], _T]) -> _T:
        """Make a file; the folder too, which somebody may take away for as long as it is empty."""
        for _ in range(_TRIES):
            self.make()
            with contextlib.suppress(FileNotFoundError):
                return make_file()
        return make_file()

    def names(self, kind: str) -> list[str]:
        """Names of the files that begin so, oldest first."""
        found: list[tuple[int, str]] = []
        # The folder, or a file, may be taken away just now.
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.startswith(kind):
                    with contextlib.suppress(FileNotFoundError):
                        found.append((entry.stat().st_ctime_ns, entry.name))
        return [name for _, name in sorted(found)]

    def open(self, name: str) -> Place | None:
        """Another's file; None when it is gone, or its owner is: then it is removed."""
        path = self.folder / name
        try:
            place = Place(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            return None
        if not place.owned():
            place.close(remove=True)
            return None
        return place

    def publishers(self) -> list[str]:
        """Names of the files of publishers that live; those of others are removed."""
        living = []
        for name in self.names("p-"):
            place = self.open(name)
            if place is not None:
                living.append(name)
                place.close(remove=False)
        return living

    def _sweep(self) -> None:
        for name in [*self.names("p-"), *self.names("s-")]:
            place = self.open(name)
            if place is not None:
                place.close(remove=False)
        for name in self.names("w-"):
            Bell.sweep(self.folder / name)

    def sweep(self) -> None:
        """Remove what dead processes left, here and in all other rooms of this user."""
        for folder in self.folder.parent.iterdir():
            other = Room(self.channel)
            other.folder = folder
            with contextlib.suppress(OSError):
                other._sweep()
                if folder != self.folder:
                    other.leave()

    def leave(self) -> None:
        """Remove the folder if nobody is in it."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def new_key() -> str:
    """A name that nobody else has."""
    return uuid.uuid4().hex


def has_publisher(channel: str) -> bool:
    """Whether a living process of this user on this host publishes a channel in shared memory."""
    room = Room(channel)
    return room.folder.is_dir() and bool(room.publishers())


def _path() -> Path:
    return SHM / f"pvapy_stream-{os.getuid()}"


def private_folder() -> Path:
    """The folder of all that is not the samples themselves.

    Raises:
        TransportError: it cannot be made, or others have a hand in it.
    """
    folder = _path()
    _make(folder)
    found = folder.lstat()
    if (
        not stat.S_ISDIR(found.st_mode)
        or found.st_uid != os.getuid()
        or stat.S_IMODE(found.st_mode) & 0o077
    ):
        raise TransportError(
            f"{folder} is not a folder of this user alone; remove it, or make it so with chmod 700"
        )
    return folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise TransportError(
            f"cannot make {folder}: {error.strerror}; mode shm needs shared memory at {SHM}"
        ) from error
