"""Files of payload pools: layout, locks, and removal.

See `docs/decisions/0020-payload-pools.md` for the protocol. Layout, in 8-byte integers:

- a header: magic and version, then `PoolLayout`, key of the pool, key of its owner's publisher;
- for each column: state, process id, and key of its publisher (16 bytes);
- for each slot: its generation;
- counters *acquired*, one row for each column; counters *released*, likewise;
- from the next page on: the slots.

Locks are open file description locks on single bytes: one for each column, and one for the owner.
The kernel releases them when the process ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import platform
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pvapy_stream.transport.shm.user_folder import (
    locked,
    open_file,
    open_folder,
    path,
    subfolder,
    warn_skipped,
)

N_COLUMNS = 64
FREE, USED = 0, 1  # states of a column
NO_PUBLISHER = bytes(16)  # key in the column of a receiver

_FOLDER = "pools"
_PAGE = 4096
_HEADER = struct.Struct("<4sI QQ 16s 16s")
_MAGIC, _VERSION = b"PVSP", 1
_COLUMN_WORDS = 4  # state, process id, key
_HEADER_WORDS = 16
_OWNER_BYTE = N_COLUMNS  # bytes of locks: one for each column, then the owner's
_FLOCK = "hhqqi0q"  # struct flock
_REMOVE_TIMEOUT = 0.1  # s
_MAX_SLOTS, _MAX_SLOT_SIZE = 4096, 2**40

Words = npt.NDArray[np.uint64]

# numpy's types do not know that mmap has the buffer protocol.
_words_in = cast("Callable[..., Words]", np.frombuffer)
_bytes_in = cast("Callable[..., npt.NDArray[np.uint8]]", np.frombuffer)
# Parts of the type of `reshape` are unknown.
_shaped = cast("Callable[..., Words]", np.ndarray[Any, Any].reshape)


def possible() -> bool:
    """Whether stores and loads of this processor are ordered as the protocol needs."""
    return platform.machine() in ("x86_64", "AMD64")


@dataclass(frozen=True, slots=True)
class PoolLayout:
    """Where things are in a pool file.

    Attributes:
        n_slots: number of slots.
        slot_size: size of a slot, bytes, a multiple of the page size.
    """

    n_slots: int
    slot_size: int

    @property
    def generations_at(self) -> int:
        return _HEADER_WORDS + N_COLUMNS * _COLUMN_WORDS

    @property
    def acquired_at(self) -> int:
        return self.generations_at + self.n_slots

    @property
    def n_words(self) -> int:
        return self.acquired_at + 2 * N_COLUMNS * self.n_slots

    @property
    def slots_at(self) -> int:
        """Offset of the first slot, bytes."""
        return -(-8 * self.n_words // _PAGE) * _PAGE

    @property
    def size(self) -> int:
        """Size of the file, bytes."""
        return self.slots_at + self.n_slots * self.slot_size


class PoolFile:
    """A pool file that is mapped into memory.

    Attributes:
        key: key of the pool, 16 bytes.
        owner: key of the publisher that owns it, 16 bytes.
        layout: number and size of the slots.
        address: address of the first slot.
        states, pids: of the columns.
        generations: of the slots.
        acquired, released: counters, (column, slot).

    Raises:
        OSError, ValueError: it cannot be mapped, or is not a pool file of this version.
    """

    def __init__(self, file: int, writable: bool) -> None:
        self._file = file
        magic, version, n_slots, slot_size, self.key, self.owner = _HEADER.unpack(
            os.pread(file, _HEADER.size, 0).ljust(_HEADER.size, b"\0")
        )
        self.layout = layout = PoolLayout(n_slots, slot_size)
        if (magic, version) != (_MAGIC, _VERSION):
            raise ValueError(f"it holds {magic!r} of version {version}")
        if (
            not 0 < n_slots <= _MAX_SLOTS
            or not 0 < slot_size <= _MAX_SLOT_SIZE
            or os.fstat(file).st_size != layout.size
        ):
            raise ValueError("its size does not fit its description")
        control = mmap.mmap(file, layout.slots_at)
        words = _words_in(control, np.uint64, layout.n_words)
        end = layout.generations_at
        columns = _shaped(words[_HEADER_WORDS:end], N_COLUMNS, _COLUMN_WORDS)
        self.states, self.pids, self._keys = columns[:, 0], columns[:, 1], columns[:, 2:]
        self.generations = words[end : layout.acquired_at]
        counters = _shaped(words[layout.acquired_at :], 2, N_COLUMNS, n_slots)
        self.acquired, self.released = counters
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._slots = mmap.mmap(
            file, n_slots * slot_size, mmap.MAP_SHARED, access, offset=layout.slots_at
        )
        # The arrays keep the mappings, which end with the last of them.
        self._payload = _bytes_in(self._slots, np.uint8)
        self.address = cast("int", cast("Any", self._payload).__array_interface__["data"][0])

    @property
    def path(self) -> Path:
        return path() / _FOLDER / self.key.hex()

    def slot(self, slot: int) -> npt.NDArray[np.uint8]:
        """The memory of a slot."""
        size = self.layout.slot_size
        return self._payload[slot * size : (slot + 1) * size]

    def allocate(self, slot: int) -> None:
        """Allocate the pages of a slot.

        Raises:
            OSError: shared memory is full.
        """
        layout = self.layout
        os.posix_fallocate(self._file, layout.slots_at + slot * layout.slot_size, layout.slot_size)

    # -- columns ---------------------------------------------------------------------------------

    def claim(self, publisher: bytes) -> int | None:
        """Claim a free column, and lock it; None if there is none."""
        for column in range(N_COLUMNS):
            if self.states[column] == FREE and self.lock(column):
                if self.states[column] == FREE:
                    self.pids[column] = os.getpid()
                    self._keys[column] = np.frombuffer(publisher, np.uint64)
                    self.states[column] = USED
                    return column
                self.unlock(column)
        return None

    def publisher_of(self, column: int) -> bytes:
        """Key of the publisher of a column; `NO_PUBLISHER` for that of a receiver."""
        return self._keys[column].tobytes()

    def lock(self, column: int) -> bool:
        """Lock a column; whether nobody else has locked it."""
        return _lock(self._file, column, fcntl.F_WRLCK)

    def unlock(self, column: int) -> None:
        """Unlock a column."""
        _lock(self._file, column, fcntl.F_UNLCK)

    def in_use(self, column: int) -> bool:
        """Whether another open file has locked a column."""
        return _is_locked(self._file, column)

    def has_owner(self) -> bool:
        """Whether its owner lives."""
        return _is_locked(self._file, _OWNER_BYTE)

    def disown(self) -> None:
        """Show that it has no owner any more."""
        self.unlock(_OWNER_BYTE)

    def close(self) -> None:
        """Release all locks; the memory stays mapped as long as something refers to it."""
        if self._file >= 0:
            # Closing alone would not: the mappings have copies of the descriptor.
            _lock(self._file, 0, fcntl.F_UNLCK, 0)
            os.close(self._file)
            self._file = -1


def create_pool(key: bytes, owner: bytes, layout: PoolLayout) -> PoolFile:
    """Create a pool file; other processes see it complete, and locked by its owner.

    Raises:
        OSError: it cannot be created.
        TransportError: the folder cannot be created.
    """
    folder = subfolder(_FOLDER)
    # Without a name until it is complete: a killed process leaves nothing.
    file = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        _lock(file, _OWNER_BYTE, fcntl.F_WRLCK)
        os.ftruncate(file, layout.size)
        os.posix_fallocate(file, 0, layout.slots_at)
        header = _HEADER.pack(_MAGIC, _VERSION, layout.n_slots, layout.slot_size, key, owner)
        os.pwrite(file, header, 0)
        made = PoolFile(file, writable=True)
        _name(file, folder, key.hex())
        return made
    except BaseException:
        os.close(file)
        raise


def _name(file: int, folder: Path, name: str) -> None:
    within = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        # Python follows the link in /proc only if it is given a descriptor.
        os.link(f"/proc/self/fd/{file}", name, dst_dir_fd=within, follow_symlinks=True)
    finally:
        os.close(within)


def open_pool(key: bytes) -> PoolFile | None:
    """Open the pool of another publisher; None if it does not exist or is not understood."""
    folder = open_folder(path() / _FOLDER)
    if folder is None:
        return None
    try:
        return _open(folder, key.hex())
    finally:
        os.close(folder)


def _open(folder: int, name: str, without_owner: bool = False) -> PoolFile | None:
    file = open_file(name, folder, stat.S_IFREG)
    if file is None:
        return None
    if without_owner and _is_locked(file, _OWNER_BYTE):
        os.close(file)
        return None
    try:
        opened = PoolFile(file, writable=False)
        if opened.key.hex() == name:
            return opened
        why = "it belongs to another pool"
    except (OSError, ValueError) as error:
        why = str(error)
    os.close(file)
    warn_skipped(path() / _FOLDER / name, why)
    return None


# -- removal -------------------------------------------------------------------------------------

# Whether a living subscriber is connected to the publisher with this key.
HasSubscribers = Callable[[bytes], bool]


def sweep(has_subscribers: HasSubscribers) -> None:
    """Remove the files of all pools that nobody can read any more."""
    folder = open_folder(path() / _FOLDER)
    if folder is None:
        return
    try:
        for name in os.listdir(folder):
            pool = _open(folder, name, without_owner=True)
            if pool is not None:
                remove_if_unused(pool, has_subscribers)
                pool.close()
    finally:
        os.close(folder)


def remove_if_unused(pool: PoolFile, has_subscribers: HasSubscribers) -> None:
    """Remove the file of a pool without owner, unless somebody may still read it."""
    with contextlib.suppress(OSError):
        if pool.has_owner():
            return
        file = os.open(pool.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # The lock keeps two users that leave from each seeing the other.
            with locked(file, fcntl.LOCK_EX, _REMOVE_TIMEOUT) as alone:
                if alone and not _may_be_read(pool, has_subscribers):
                    pool.path.unlink(missing_ok=True)
        finally:
            os.close(file)


def _may_be_read(pool: PoolFile, has_subscribers: HasSubscribers) -> bool:
    if any(pool.in_use(column) for column in range(N_COLUMNS)):
        return True
    used = cast("list[int]", np.flatnonzero(pool.states).tolist())
    keys = {pool.publisher_of(column) for column in used} - {NO_PUBLISHER}
    return any(has_subscribers(key) for key in {*keys, pool.owner})


# -- locks ---------------------------------------------------------------------------------------


def _lock(file: int, byte: int, how: int, n_bytes: int = 1) -> bool:
    asked = struct.pack(_FLOCK, how, os.SEEK_SET, byte, n_bytes, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, asked)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _is_locked(file: int, byte: int) -> bool:
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    (found, *_) = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))
    return found != fcntl.F_UNLCK
