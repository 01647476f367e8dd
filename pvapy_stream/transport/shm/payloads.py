"""Payloads of one publisher in pools: its own, and those of the objects that it passes on."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.shm.copies import NO_MEMORY, NO_SLOT, Copies
from pvapy_stream.transport.shm.frames import Parts
from pvapy_stream.transport.shm.peer_directory import has_subscribers
from pvapy_stream.transport.shm.pool_file import PoolLayout, possible
from pvapy_stream.transport.shm.pool_holders import explain
from pvapy_stream.transport.shm.pool_owner import PoolOwner
from pvapy_stream.transport.shm.pool_user import PoolUser, join_pool
from pvapy_stream.transport.shm.references import Holder, PayloadPlace, Reference
from pvapy_stream.transport.shm.services import free_memory, full_memory, memory_size
from pvapy_stream.transport.shm.slot_memory import address_of, end_writing, held_memory_of
from pvapy_stream.transport.shm.user_folder import SHM

if TYPE_CHECKING:
    from pvapy_stream.transport.shm.slot_memory import HeldMemory

# Bytes of a payload; a copy of a smaller one is cheaper than a reference.
MIN_PAYLOAD = 64 * 2**10
_PAGE = 4096
# Slots for each place in a queue: a chain has several queues, and each stage holds some objects.
_SLOTS_PER_PLACE = 4
_MIN_SLOTS, _USUAL_SLOTS, _MAX_SLOTS = 8, 32, 256
_MAX_SHARE = 0.25  # of the free memory
# Larger objects than before: one that has grown once may grow again.
_GROWTH = 4
_COPIED = "objects are copied at each stage"

_log = logging.getLogger(__name__)


class Payloads:
    """Makes references to payloads, in slots that the publisher holds. Not locked.

    Args:
        publisher: key of the publisher, hexadecimal.
        copies: counts objects for which there is no slot or no memory.
        queued: references in the queues of subscribers, by process id.
    """

    def __init__(
        self, publisher: str, copies: Copies, queued: Callable[[], Mapping[int, int]]
    ) -> None:
        self._publisher = bytes.fromhex(publisher)
        self._copies = copies
        self._queued = queued
        self._own: PoolOwner | None = None
        # Pools whose slots are too small, until all are free.
        self._retired: list[PoolOwner] = []
        self._others: dict[bytes, PoolUser] = {}
        # Payload size for which there was too little memory; 0: none.
        self._too_large = 0
        self._problem = ""
        self._closed = not possible()

    def reference(self, parts: Parts, queue: int) -> Reference | None:
        """A reference to an object, which holds its slot; None: it must be copied.

        Args:
            parts: the object; its payload is written into a slot, unless it is in one.
            queue: length of the queues of the subscribers, in objects.
        """
        if self._closed:
            return None
        try:
            return self._in_place(parts) or self._written(parts, queue)
        except (OSError, TransportError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                self._copies.note(NO_MEMORY, lambda: f"{_COPIED}: {full_memory(parts.nbytes)}")
            else:
                self._note(error)
            return None

    def reserve(self, nbytes: int) -> HeldMemory | None:
        """Memory for a payload, which `reference` then does not copy; None: there is none.

        Only if there is a pool already: the first payload of a size makes it.
        """
        own = self._own
        if self._closed or own is None or own.layout.slot_size < nbytes:
            return None
        try:
            return own.reserve(nbytes)
        except OSError as error:
            self._note(error)
            return None

    def _note(self, error: Exception) -> None:
        kind = f"{type(error).__name__} {getattr(error, 'errno', '')}"
        if kind != self._problem:
            self._problem = kind
            _log.warning("payloads are copied for each stage: %s", error)

    def _in_place(self, parts: Parts) -> Reference | None:
        """A reference to a payload that was received in a slot, or written into a reserved one."""
        memory, payload_at = held_memory_of(parts.memory), parts.payload_at
        payload = parts.payload
        if memory is None:
            # A frame that was made from a received one, with other attributes for instance.
            memory = held_memory_of(payload)
            if memory is None or not isinstance(payload, np.ndarray):
                return None
            pool = memory.user.pool
            payload_at = address_of(payload) - pool.address - memory.slot * pool.layout.slot_size
        user, pool, slot = memory.user, memory.user.pool, memory.slot
        written_here = isinstance(user, PoolOwner)
        if written_here and (payload_at or parts.nbytes != memory.reserved):
            # The rest of it is not written yet, and may be published later.
            return None
        key = pool.key
        holder = self._holder(user, key)
        if holder is None:
            return None
        if written_here and isinstance(payload, np.ndarray):
            end_writing(payload)
        holder.acquire(slot)
        generation = int(pool.generations[slot])
        return Reference(parts, PayloadPlace(key, slot, generation), payload_at, holder)

    def _holder(self, user: object, key: bytes) -> Holder | None:
        """Through whom we hold the slots of a pool that somebody in this process uses."""
        if isinstance(user, PoolOwner) and (user is self._own or user in self._retired):
            return user
        return self._others.get(key) or self._join(key)

    def _join(self, key: bytes) -> PoolUser | None:
        user = join_pool(key, has_subscribers, self._publisher)
        if user is not None:
            self._others[key] = user
        return user

    def _written(self, parts: Parts, queue: int) -> Reference | None:
        own = self._own
        if own is None or own.layout.slot_size < parts.nbytes:
            own = self._create(parts.nbytes, queue)
            if own is None:
                return None
        slot = own.take()
        if slot is None:
            self._copies.note(
                NO_SLOT,
                lambda: explain(own.layout.n_slots, own.n_held, own.holders(), self._queued()),
            )
            return None
        try:
            parts.write_payload(own.pool.slot(slot))
        except BaseException:
            own.release(slot)
            raise
        return Reference(parts, PayloadPlace(own.key, slot, own.generation(slot)), 0, own)

    def _create(self, nbytes: int, queue: int) -> PoolOwner | None:
        size = -(-nbytes // _PAGE) * _PAGE
        if self._own is not None:
            size += size // _GROWTH // _PAGE * _PAGE
        if self._too_large and nbytes >= self._too_large:
            self._copies.note(NO_MEMORY, lambda: _too_small(size))
            return None
        wanted = min(max(_SLOTS_PER_PLACE * queue, _USUAL_SLOTS), _MAX_SLOTS)
        n_slots = min(wanted, int(free_memory() * _MAX_SHARE) // size)
        if n_slots < _MIN_SLOTS:
            self._too_large = nbytes
            self._copies.note(NO_MEMORY, lambda: _too_small(size))
            return None
        made = PoolOwner(self._publisher, PoolLayout(n_slots, size), has_subscribers)
        if self._own is not None:
            self._retired.append(self._own)
        self._own = made
        return made

    def refresh(self) -> None:
        """Called about once a second: leave pools that are not used any more."""
        self._too_large = 0
        if self._own is not None:
            self._own.note_times()
        for pool in [*self._retired]:
            if pool.unused:
                pool.remove()
                self._retired.remove(pool)
        for key, user in [*self._others.items()]:
            if not user.n_held and not user.pool.has_owner():
                user.close()
                del self._others[key]

    def close(self) -> None:
        """Leave all pools; payloads on their way stay until subscribers have acquired them."""
        self._closed = True
        for user in self._others.values():
            if user.n_held:
                user.abandon()
            else:
                user.close()
        self._others.clear()
        for pool in [*self._retired, *([self._own] if self._own is not None else [])]:
            pool.close()
        self._retired.clear()
        self._own = None


def _too_small(slot_size: int) -> str:
    """Why there is no pool with slots of a size, and how large shared memory must be."""
    free = free_memory()
    needed = int(_MIN_SLOTS * slot_size / _MAX_SHARE)
    size = -(-(memory_size() + max(0, needed - free)) // 2**20)
    return (
        f"{_COPIED}: shared memory is too small for a payload pool: {SHM} has {free / 1e6:.0f} MB"
        f" free, and a pool of {_MIN_SLOTS} objects of {slot_size / 1e6:.1f} MB needs"
        f" {needed / 1e6:.0f} MB free, as it takes a quarter of that; make it at least {size} MiB"
        f" (mount -o remount,size={size}m {SHM}; docker run --shm-size={size}m)"
    )
