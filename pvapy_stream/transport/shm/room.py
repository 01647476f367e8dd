"""Where publishers and subscribers of a channel meet: small files of this user alone.

Each publisher has a file, and each subscriber has one for each publisher it follows. A file is
locked as long as its owner lives, so a process that was killed is told from one that is silent at
once; whoever finds an unlocked file removes it. Behind its description a subscriber's file has a
few numbers that both sides see: how many samples it took, whether it sleeps.

A file is made under a name that begins with a dot, is locked, and gets its name then. A sweeper
removes what it can lock; who finds the file it has just made removed makes another. Whoever makes
a file shares a lock on the folder of all rooms, and who removes an empty room has that lock alone.
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
from collections.abc import Callable, Iterator

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.shm.folder import (
    lock,
    locked,
    open_file,
    open_folder,
    path,
    skip,
    subfolder,
    tell_once,
    why_foreign,
)
from pvapy_stream.transport.shm.place import SIZE, Bell, Description, Place, Publishing, fill

_ROOMS = "rooms"
_PATIENCE = 0.5  # s; for a lock that is held for microseconds, unless its holder was stopped
_ENTER_PATIENCE = 10.0  # s
_KEY = "[0-9a-f]{32}"
_NAMES = {
    "p": re.compile(f"p-{_KEY}"),
    "s": re.compile(f"s-{_KEY}-{_KEY}"),
    "w": re.compile(f"w-{_KEY}"),
    ".": re.compile(rf"\.{_KEY}"),
}

_Create = Callable[[str, int], int]


class Room:
    """The place of one channel."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        name = hashlib.sha256(channel.encode()).hexdigest()[:32]
        self.folder = path() / _ROOMS / name

    # -- our own files ---------------------------------------------------------------------------

    def enter(self, description: Description) -> Place:
        """Make a file of our own; it shows up whole and locked.

        Raises:
            TransportError: it cannot be made.
        """
        name = description.name
        return Place(
            self.folder / name,
            self._make(name, _create_file, lambda file: fill(file, description)),
        )

    def bell(self, key: str) -> Bell:
        """Make a bell of our own.

        Raises:
            TransportError: it cannot be made.
        """
        name = f"w-{key}"
        return Bell(self.folder / name, self._make(name, _create_pipe, lambda _: None))

    def _make(self, name: str, create: _Create, fill: Callable[[int], None]) -> int:
        deadline = time.monotonic() + _ENTER_PATIENCE
        try:
            while True:
                with self._kept() as folder:
                    file = _appear(folder, name, create, fill) if folder is not None else None
                if file is not None:
                    return file
                if time.monotonic() > deadline:
                    raise TransportError(
                        f"channel {self.channel}: {self.folder} is removed again and again; is it"
                        " another program?"
                    )
        except OSError as error:
            raise TransportError(
                f"cannot make {self.folder / name} for channel {self.channel}: {error.strerror};"
                " shared memory may be full (df /dev/shm)"
            ) from error

    @contextlib.contextmanager
    def _kept(self) -> Iterator[int | None]:
        """The folder, which nobody removes meanwhile; None when it cannot be had just now."""
        rooms = open_folder(subfolder(_ROOMS))
        if rooms is None:
            yield None
            return
        try:
            # Without the lock, as when its holder was stopped, it takes a few attempts at worst.
            with locked(rooms, fcntl.LOCK_SH, _PATIENCE):
                folder = self._folder_in(rooms)
                try:
                    yield folder
                finally:
                    if folder is not None:
                        os.close(folder)
        finally:
            os.close(rooms)

    def _folder_in(self, rooms: int) -> int | None:
        name = self.folder.name
        try:
            os.mkdir(name, 0o700, dir_fd=rooms)
        except FileExistsError:
            found = open_folder(name, rooms)
            if found is None:
                self._clear(rooms)
            return found
        return open_folder(name, rooms)

    def _clear(self, rooms: int) -> None:
        """Remove what bears the name of our folder and is none.

        Raises:
            TransportError: it is a folder of another owner.
        """
        try:
            found = os.stat(self.folder.name, dir_fd=rooms, follow_symlinks=False)
        except FileNotFoundError:
            return
        why = why_foreign(found, stat.S_IFDIR)
        if stat.S_ISDIR(found.st_mode):
            raise TransportError(
                f"channel {self.channel} needs {self.folder}, but {why or 'it cannot be opened'};"
                " remove it"
            )
        tell_once(self.folder, f"is removed: {why}, and channel {self.channel} needs its place")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder.name, dir_fd=rooms)

    # -- files of others -------------------------------------------------------------------------

    @contextlib.contextmanager
    def _there(self) -> Iterator[int | None]:
        """The folder; None when there is none."""
        rooms = open_folder(self.folder.parent)
        folder = open_folder(self.folder.name, rooms) if rooms is not None else None
        try:
            yield folder
        finally:
            for file in (folder, rooms):
                if file is not None:
                    os.close(file)

    def names(self, kind: str) -> list[str]:
        """Names of files that begin so, oldest first; what cannot be ours is skipped."""
        with self._there() as folder:
            return self._names(folder, kind) if folder is not None else []

    def _names(self, folder: int, kind: str) -> list[str]:
        return [name for _, name in sorted(self._listed(folder, kind))]

    def _listed(self, folder: int, kind: str) -> list[tuple[int, str]]:
        """What there is of ours, each with the time of its last change."""
        found: list[tuple[int, str]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(kind):
                    continue
                # It may be taken away just now.
                with contextlib.suppress(FileNotFoundError):
                    state = entry.stat(follow_symlinks=False)
                    why = _why_not_listed(entry.name, state)
                    if why:
                        skip(self.folder / entry.name, why)
                    else:
                        found.append((state.st_ctime_ns, entry.name))
        return found

    def open(self, name: str) -> Place | None:
        """Another's file; None when it is gone, or its owner is: then it is removed."""
        with self._there() as folder:
            return self._open(folder, name) if folder is not None else None

    def _open(self, folder: int, name: str) -> Place | None:
        file = open_file(name, folder, stat.S_IFREG, SIZE)
        if file is None:
            return None
        try:
            place = Place(self.folder / name, file)
        except (OSError, ValueError):
            os.close(file)
            return None
        if not place.owned():
            place.close(remove=True)
            return None
        return place

    def has_publisher(self) -> bool:
        """Whether a publisher lives here; the files of dead ones are removed."""
        for name in self.names("p-"):
            place = self.open(name)
            if place is None:
                continue
            try:
                place.told(Publishing)
                return True
            except TransportError as error:
                skip(place.path, str(error))
            finally:
                place.close(remove=False)
        return False

    # -- what the dead left ----------------------------------------------------------------------

    def sweep(self) -> None:
        """Remove what dead processes left, here and in all other rooms of this user."""
        rooms = open_folder(self.folder.parent)
        if rooms is None:
            return
        try:
            for name in os.listdir(rooms):
                self._sweep_room(rooms, name)
        finally:
            os.close(rooms)

    def _sweep_room(self, rooms: int, name: str) -> None:
        path = self.folder.parent / name
        try:
            found = os.stat(name, dir_fd=rooms, follow_symlinks=False)
            why = why_foreign(found, stat.S_IFDIR)
            if not why and not re.fullmatch(_KEY, name):
                why = "its name is none of ours"
            if why:
                skip(path, why)
                return
            other = Room(self.channel)
            other.folder = path
            other._sweep()
            if path != self.folder:
                other.leave()
        except FileNotFoundError:
            # Another sweeper was faster.
            pass
        except OSError as error:
            skip(path, f"it cannot be swept ({error.strerror})")

    def _sweep(self) -> None:
        with self._there() as folder:
            if folder is not None:
                for name in self._names(folder, ""):
                    _remove_dead(folder, name)

    def leave(self) -> None:
        """Remove the folder if nobody is in it."""
        rooms = open_folder(self.folder.parent)
        if rooms is None:
            return
        try:
            with locked(rooms, fcntl.LOCK_EX, _PATIENCE) as alone, contextlib.suppress(OSError):
                if alone:
                    os.rmdir(self.folder.name, dir_fd=rooms)
        finally:
            os.close(rooms)


def _appear(folder: int, name: str, create: _Create, fill: Callable[[int], None]) -> int | None:
    """Make a file in a folder, locked and filled; None when it was swept before it was locked."""
    part = f".{new_key()}"
    try:
        file = create(part, folder)
    except FileNotFoundError:
        return None
    try:
        if not lock(file, fcntl.LOCK_EX) or not os.fstat(file).st_nlink:
            os.close(file)
            return None
        fill(file)
        os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part, dir_fd=folder)
        os.close(file)
        raise
    return file


def _create_file(name: str, folder: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(name, flags, 0o600, dir_fd=folder)


def _create_pipe(name: str, folder: int) -> int:
    os.mkfifo(name, 0o600, dir_fd=folder)
    return os.open(name, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def _kind_of(name: str) -> int | None:
    """Kind of file that bears such a name; None for those of both kinds that are being made."""
    return {"w": stat.S_IFIFO, ".": None}.get(name[0], stat.S_IFREG)


def _why_not_listed(name: str, found: os.stat_result) -> str:
    pattern = _NAMES.get(name[0])
    if pattern is None or not pattern.fullmatch(name):
        return "its name is none of ours"
    kind = _kind_of(name)
    if kind is None:
        kind = stat.S_IFIFO if stat.S_ISFIFO(found.st_mode) else stat.S_IFREG
        return why_foreign(found, kind)
    return why_foreign(found, kind, SIZE if kind == stat.S_IFREG else None)


def _remove_dead(folder: int, name: str) -> None:
    """Remove a file whose owner does not live. Who makes a file sees that it was removed."""
    kind = _kind_of(name)
    for one in (stat.S_IFREG, stat.S_IFIFO) if kind is None else (kind,):
        file = open_file(name, folder, one)
        if file is not None:
            if lock(file, fcntl.LOCK_SH):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
            os.close(file)


def new_key() -> str:
    """A name that nobody else has."""
    return uuid.uuid4().hex


def has_publisher(channel: str) -> bool:
    """Whether a living process of this user on this host publishes a channel in shared memory."""
    return Room(channel).has_publisher()
