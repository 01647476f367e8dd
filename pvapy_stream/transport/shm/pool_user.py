"""A user of a payload pool other than its owner: it holds slots, and counts that in its column."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from pvapy_stream.transport.shm.pool_file import (
    FREE,
    NO_PUBLISHER,
    HasSubscribers,
    PoolFile,
    Words,
    open_pool,
    remove_if_unused,
)
from pvapy_stream.transport.shm.slot_memory import held_memory_type

if TYPE_CHECKING:
    from pvapy_stream.transport.shm.slot_memory import HeldMemory

_CLOSE = -1  # in the queue of released slots
_MAX_SHARE = 4  # a user that keeps more than 1/4 of the slots copies what it receives
_process = os.getpid()
# numpy's types do not know that arrays have the buffer protocol.
_words = cast("Callable[[Words], memoryview[int]]", memoryview)


def _note_fork() -> None:
    global _process
    _process = os.getpid()


os.register_at_fork(after_in_child=_note_fork)


class PoolUser:
    """A column of a pool. One thread at a time acquires; any thread releases.

    Args:
        pool: the pool, opened by this user alone.
        column: the column, claimed in it.
        has_subscribers: see `pool_file.remove_if_unused`.
    """

    def __init__(self, pool: PoolFile, column: int, has_subscribers: HasSubscribers) -> None:
        self.pool = pool
        self._column = column
        self._has_subscribers = has_subscribers
        self._acquired = _words(pool.acquired[column])
        self._released = _words(pool.released[column])
        self._generations = _words(pool.generations)
        self.slot_size = pool.layout.slot_size
        self._memory_type = held_memory_type(self.slot_size)
        self._max_kept = max(1, pool.layout.n_slots // _MAX_SHARE)
        self._n_acquired = self._n_released = 0
        self._to_release: deque[int] = deque()
        self._releasing = threading.Lock()
        self._fence = threading.Lock()
        self._closing = False
        self._process = _process

    @property
    def n_held(self) -> int:
        """Number of slots held; one that is held twice counts twice."""
        return self._n_acquired - self._n_released

    @property
    def keeps_many(self) -> bool:
        """Whether it holds more than its share."""
        return self.n_held > self._max_kept

    def acquire(self, slot: int) -> None:
        """Hold a slot that somebody else holds meanwhile."""
        self._n_acquired += 1
        self._acquired[slot] += 1

    def acquire_checked(self, slot: int, generation: int) -> bool:
        """Hold a slot, unless it has been reused since a reference to it was made."""
        if not 0 <= slot < len(self._generations):
            return False
        self.acquire(slot)
        # A full fence, by a locked instruction: the owner sees that we hold it, or we see that it
        # is reused.
        with self._fence:
            pass
        if self._generations[slot] == generation:
            return True
        self.release(slot)
        return False

    def release(self, slot: int) -> None:
        """Undo one `acquire`. Called by the garbage collector at any instant."""
        if self._process != _process:
            # The copy of an object in a forked process: what it holds is counted by the other one.
            return
        self._to_release.append(slot)
        # Whoever has the lock counts for all: a lock that waits could wait for its own thread.
        while self._to_release and self._releasing.acquire(blocking=False):
            last = False
            try:
                while self._to_release:
                    released = self._to_release.popleft()
                    if released == _CLOSE:
                        self._closing = True
                    else:
                        self._released[released] += 1
                        self._n_released += 1
                last = self._closing and self._n_released == self._n_acquired
                if last:
                    self._closing = False
            finally:
                self._releasing.release()
            if last:
                self._leave()

    give_back = release

    def address_of(self, slot: int) -> int:
        """Address of a slot."""
        return self.pool.address + slot * self.slot_size

    def memory(self, slot: int) -> HeldMemory:
        """The memory of a slot that was acquired; its end releases the slot."""
        memory = self._memory_type.from_address(self.address_of(slot))
        memory.user, memory.slot = self, slot
        return memory

    def close(self) -> None:
        """Return the column as soon as nothing is held; call it when nothing more is acquired."""
        self.release(_CLOSE)

    def _leave(self) -> None:
        pool = self.pool
        pool.states[self._column] = FREE
        pool.unlock(self._column)
        remove_if_unused(pool, self._has_subscribers)
        pool.close()

    def abandon(self) -> None:
        """Leave the column as that of a killed process: it counts until nobody may need it."""
        self.pool.close()


def join_pool(
    key: bytes, has_subscribers: HasSubscribers, publisher: bytes = NO_PUBLISHER
) -> PoolUser | None:
    """Become a user of a pool; None if that is not possible.

    Args:
        key: key of the pool.
        has_subscribers: see `pool_file.remove_if_unused`.
        publisher: key of the publisher that sends references; `NO_PUBLISHER` for a receiver.
    """
    pool = open_pool(key)
    if pool is None:
        return None
    column = None
    # If the system has no more locks, payloads are copied.
    with contextlib.suppress(OSError):
        column = pool.claim(publisher)
    if column is None:
        pool.close()
        return None
    return PoolUser(pool, column, has_subscribers)
