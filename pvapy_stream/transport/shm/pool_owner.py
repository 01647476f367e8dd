"""The owner of a payload pool: it writes payloads into free slots."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from pvapy_stream.transport.shm.pool_file import (
    FREE,
    NO_PUBLISHER,
    USED,
    HasSubscribers,
    PoolFile,
    PoolLayout,
    Words,
    create_pool,
    remove_if_unused,
)
from pvapy_stream.transport.shm.pool_holders import Held
from pvapy_stream.transport.shm.slot_memory import held_memory_type

if TYPE_CHECKING:
    from pvapy_stream.transport.shm.slot_memory import HeldMemory

_CLEAR_PERIOD = 0.05  # s between two looks for dead users
_ATTEMPTS = 3  # to read counters while users come and go
_MAX_SHARE = 4  # no more than 1/4 of the slots are reserved


class PoolOwner:
    """A pool of this process. Not locked.

    Args:
        publisher: key of the publisher that owns it.
        layout: number and size of the slots.
        has_subscribers: whether a living subscriber is connected to a publisher.

    Raises:
        OSError, TransportError: it cannot be created.
    """

    def __init__(
        self, publisher: bytes, layout: PoolLayout, has_subscribers: HasSubscribers
    ) -> None:
        self.key = uuid.uuid4().bytes
        self.layout = layout
        self._has_subscribers = has_subscribers
        self.pool = create_pool(self.key, publisher, layout)
        # Slots that are free, the next one last: one that was used lately is in the caches.
        self._free = [*reversed(range(layout.n_slots))]
        # How often this publisher itself holds each slot.
        self._held = [0] * layout.n_slots
        # Slots whose memory was given out by `reserve`: how many, and those that were given back.
        self._n_reserved = 0
        self._given_back: deque[int] = deque()
        self._memory_type = held_memory_type(layout.slot_size)
        self._allocated: set[int] = set()
        self._fence = threading.Lock()
        self._clear_due = 0.0
        # When the present payload of each slot was first seen, see `note_times`.
        self._seen: Words = np.array(self.pool.generations)
        self._since = np.full(layout.n_slots, time.time())

    # -- slots -----------------------------------------------------------------------------------

    def take(self) -> int | None:
        """A slot to write into, which is then held; None if there is none.

        Raises:
            OSError: shared memory is full.
        """
        if self._free and self._free[-1] not in self._allocated:
            # One that was used is faster than new memory, which the kernel has to clear first.
            self._collect()
        while self._free or self._collect():
            slot = self._free.pop()
            if slot not in self._allocated:
                try:
                    self.pool.allocate(slot)
                except BaseException:
                    self._free.append(slot)
                    raise
                self._allocated.add(slot)
            if self._claim(slot):
                self._held[slot] = 1
                return slot
        return None

    def _claim(self, slot: int) -> bool:
        """Make references to the last payload of a slot invalid; whether nobody holds it."""
        pool = self.pool
        pool.generations[slot] += np.uint64(1)
        # A full fence, see `PoolUser.acquire_checked`.
        with self._fence:
            pass
        return bool((pool.acquired[:, slot] == pool.released[:, slot]).all())

    def generation(self, slot: int) -> int:
        """Generation of the payload in a slot."""
        return int(self.pool.generations[slot])

    def acquire(self, slot: int) -> None:
        """Hold a slot once more."""
        self._held[slot] += 1

    def release(self, slot: int) -> None:
        """Undo `take` or `acquire`."""
        self._held[slot] -= 1

    def reserve(self, nbytes: int) -> HeldMemory | None:
        """The memory of a slot to write a payload into, held until its end; None if there is none.

        Args:
            nbytes: bytes of the payload.

        Raises:
            OSError: shared memory is full.
        """
        self._take_back()
        if self._n_reserved >= max(1, self.layout.n_slots // _MAX_SHARE):
            return None
        slot = self.take()
        if slot is None:
            return None
        memory = self._memory_type.from_address(self.pool.address + slot * self.layout.slot_size)
        memory.user, memory.slot, memory.reserved = self, slot, nbytes
        self._n_reserved += 1
        return memory

    def give_back(self, slot: int) -> None:
        """End the hold of a reserved memory. Called by the garbage collector at any instant."""
        self._given_back.append(slot)

    def _take_back(self) -> None:
        while self._given_back:
            self._held[self._given_back.popleft()] -= 1
            self._n_reserved -= 1

    @property
    def n_held(self) -> int:
        """Number of slots this publisher itself holds."""
        self._take_back()
        return sum(map(bool, self._held))

    @property
    def unused(self) -> bool:
        """Whether all slots are free."""
        self._collect()
        return len(self._free) == self.layout.n_slots

    # -- what others hold ------------------------------------------------------------------------

    def _collect(self) -> bool:
        """Find slots that nobody holds any more; whether there are free ones."""
        now = time.monotonic()
        if now >= self._clear_due:
            self._clear_due = now + _CLEAR_PERIOD
            self._clear_dead()
        self._take_back()
        free = set(self._free)
        candidates = [slot for slot, held in enumerate(self._held) if not held and slot not in free]
        if candidates:
            unheld = self._unheld()
            self._free += [slot for slot in candidates if unheld[slot]]
        return bool(self._free)

    def _unheld(self) -> list[bool]:
        """For each slot, whether no other process holds it."""
        pool = self.pool
        # All counters *released* first, and then all counters *acquired*: equal ones prove that
        # nobody held the slot when the first were read. The other order, or one pass, would not.
        used = self._used()
        for _ in range(_ATTEMPTS):
            before, released = used, pool.released[used]
            used = self._used()
            if used == before:
                acquired = pool.acquired[used]
                return cast("list[bool]", (acquired == released).all(axis=0).tolist())
            # Somebody came or left meanwhile.
        return [False] * self.layout.n_slots

    def _used(self) -> list[int]:
        return cast("list[int]", np.flatnonzero(self.pool.states == USED).tolist())

    def _clear_dead(self) -> None:
        """End the holds of users that have died."""
        pool = self.pool
        for column in self._used():
            if not pool.lock(column):
                continue
            try:
                key = pool.publisher_of(column)
                # What a dead publisher sent may still be in the queue of a living subscriber.
                if pool.states[column] == USED and (
                    key == NO_PUBLISHER or not self._has_subscribers(key)
                ):
                    pool.released[column] = pool.acquired[column]
                    pool.states[column] = FREE
            finally:
                pool.unlock(column)

    def note_times(self) -> None:
        """Note which slots have new payloads. Called about once a second, not for each payload."""
        generations: Words = np.array(self.pool.generations)
        self._since[generations != self._seen] = time.time()
        self._seen = generations

    def holders(self) -> dict[int, Held]:
        """What each process holds, by process id; without this publisher."""
        self.note_times()
        pool = self.pool
        masks: dict[int, npt.NDArray[np.bool_]] = {}
        for column in self._used():
            mask = pool.acquired[column] != pool.released[column]
            if mask.any():
                # A stage may hold a slot twice: to process it, and for those after it.
                pid = int(pool.pids[column])
                masks[pid] = masks.get(pid, False) | mask
        return {
            pid: Held(int(np.count_nonzero(mask)), float(self._since[mask].min()))
            for pid, mask in masks.items()
        }

    def remove(self) -> None:
        """End it, and remove its file; only when it is `unused`."""
        self.pool.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """End it; payloads stay as long as somebody may read them."""
        pool: PoolFile = self.pool
        with contextlib.suppress(OSError):
            pool.disown()
            remove_if_unused(pool, self._has_subscribers)
        pool.close()
