"""The files of a room: descriptions with a few shared numbers, and pipes that wake a process."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import stat
import struct
from pathlib import Path
from typing import Annotated, Any

import msgspec

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.shm.folder import lock, why_foreign

SIZE = 4096  # bytes of a place
_WORDS = 16  # 8-byte numbers at the beginning
_TEXT_AT = _WORDS * 8
_LENGTH = struct.Struct("<I")

# Numbers of a subscriber's file.
TAKEN, SLEEPING, STATE, ANSWER = range(4)
# Its states, and the publisher's answers.
JOINING, READY, LEAVING = range(3)
# Numbers of a publisher's file: its newest id, and how many objects it has published.
NEWEST, PUBLISHED = range(2)

Key = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
Whole = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class Publishing(msgspec.Struct, frozen=True):
    """What a publisher tells of itself."""

    key: Key
    pid: Whole

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"p-{self.key}"


class Subscribing(msgspec.Struct, frozen=True):
    """What a subscriber tells of itself: who it is, and its place in the distribution."""

    key: Key
    publisher: Key
    pid: Whole
    group: str = ""
    client_set: str = ""
    updates: Whole = 1
    queue: Whole = 0

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"s-{self.publisher}-{self.key}"


Description = Publishing | Subscribing


def fill(file: int, description: Description) -> None:
    """Give a new file its size and its description.

    Raises:
        TransportError: the description is too long.
    """
    text = msgspec.msgpack.encode(description)
    if len(text) > SIZE - _TEXT_AT - _LENGTH.size:
        raise TransportError(
            f"the names of group and set take {len(text)} bytes, which is too much; shorten"
            " --distributor-group or --distributor-set"
        )
    os.posix_fallocate(file, 0, SIZE)
    os.pwrite(file, _LENGTH.pack(len(text)) + text, _TEXT_AT)


class Place:
    """A file of a room, mapped into memory.

    Attributes:
        words: its numbers, as a memoryview that is read and written by index.
    """

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self._file = file
        self._map = mmap.mmap(file, SIZE)
        self._view = memoryview(self._map)
        self.words: Any = self._view[:_TEXT_AT].cast("Q")

    def told(self, kind: type[Any]) -> Any:
        """Read the description.

        Raises:
            TransportError: it is none of this version, or not that of a file of this name.
        """
        (size,) = _LENGTH.unpack_from(self._map, _TEXT_AT)
        text = bytes(self._map[_TEXT_AT + _LENGTH.size : _TEXT_AT + _LENGTH.size + size])
        try:
            told = msgspec.msgpack.decode(text, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise TransportError(f"its description is not understood ({error})") from error
        if told.name != self.path.name:
            raise TransportError(f"its description is that of {told.name}")
        return told

    def owned(self) -> bool:
        """Whether the process that made it lives."""
        if not lock(self._file, fcntl.LOCK_SH):
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

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file = file
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
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            # Before it is opened: what is no pipe may be anything.
            if why_foreign(path.lstat(), stat.S_IFIFO):
                return -1
            return os.open(path, flags)
        except OSError:
            return -1
