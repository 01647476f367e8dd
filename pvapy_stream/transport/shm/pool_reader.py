"""The pools of the payloads that one receiver gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvapy_stream.transport.shm.frames import SampleHeader
from pvapy_stream.transport.shm.peer_directory import has_subscribers
from pvapy_stream.transport.shm.pool_file import PoolFile, open_pool
from pvapy_stream.transport.shm.pool_user import PoolUser, join_pool
from pvapy_stream.transport.shm.references import PayloadPlace

if TYPE_CHECKING:
    from pvapy_stream.transport.shm.slot_memory import HeldMemory


class PoolReader:
    """Finds payloads by references. One thread at a time uses it.

    Attributes:
        problem: why the last payload that was lost cannot be read.
    """

    def __init__(self) -> None:
        self._users: dict[bytes, PoolUser] = {}
        # Pools that have no column for us: payloads are copied while the sender holds them.
        self._without_column: dict[bytes, PoolFile] = {}
        self.problem = ""

    def payload(self, place: PayloadPlace, header: SampleHeader) -> HeldMemory | bytes | None:
        """The slot with a payload, held; or a copy of the slot; None if it is lost.

        The sender must hold the slot until this returns.
        """
        pool, slot, generation = place
        user = self._users.get(pool) or self._join(pool)
        if user is None:
            return self._copy(place, header)
        layout = user.pool.layout
        if header.payload_at + header.payload > layout.slot_size:
            self.problem = "a payload is larger than its slot"
            return None
        if not user.acquire_checked(slot, generation):
            self.problem = "the memory of a payload was reused before it was received"
            return None
        memory = user.memory(slot)
        if not user.keeps_many:
            return memory
        return bytes(memoryview(memory).cast("B")[: header.payload_at + header.payload])

    def _join(self, key: bytes) -> PoolUser | None:
        if key in self._without_column:
            return None
        user = join_pool(key, has_subscribers)
        if user is not None:
            self._users[key] = user
        return user

    def _copy(self, place: PayloadPlace, header: SampleHeader) -> bytes | None:
        pool = self._without_column.get(place.pool) or open_pool(place.pool)
        if pool is None:
            self.problem = f"the pool {place.pool.hex()} of a payload cannot be opened"
            return None
        self._without_column[place.pool] = pool
        end = header.payload_at + header.payload
        if place.slot >= pool.layout.n_slots or end > pool.layout.slot_size:
            self.problem = "a payload is outside of its pool"
            return None
        copy = pool.slot(place.slot)[:end].tobytes()
        if pool.generations[place.slot] != place.generation:
            self.problem = "the memory of a payload was reused while it was copied"
            return None
        return copy

    def refresh(self) -> None:
        """Called a few times a second: leave pools whose owners are gone."""
        for key, user in [*self._users.items()]:
            if not user.n_held and not user.pool.has_owner():
                del self._users[key]
                user.close()
        for key, pool in [*self._without_column.items()]:
            if not pool.has_owner():
                del self._without_column[key]
                pool.close()

    def close(self) -> None:
        """Leave all pools; what is held stays readable."""
        for user in self._users.values():
            user.close()
        self._users.clear()
        for pool in self._without_column.values():
            pool.close()
        self._without_column.clear()
