"""Memory of slots of payload pools; the end of the last view of it releases the slot."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import numpy.typing as npt

from pvapy_stream.transport.shm.pool_file import PoolFile


class SlotUser(Protocol):
    """Who holds slots: the owner of a pool, or another user of it."""

    pool: PoolFile

    def give_back(self, slot: int) -> None:
        """End the hold of a memory. Called by the garbage collector at any instant."""
        ...


def held_memory_of(array: object) -> HeldMemory | None:
    """The held slot that an array is a view of; None if it is none."""
    while isinstance(array, (np.ndarray, memoryview)):
        # numpy's and Python's types do not say what a view is of.
        array = cast("object", array.base if isinstance(array, np.ndarray) else array.obj)
    return cast("HeldMemory", array) if isinstance(array, _HeldSlot) else None


class _HeldSlot:
    """What all types of `held_memory_type` have in common."""


@lru_cache(maxsize=64)
def held_memory_type(size: int) -> type[HeldMemory]:
    """Type of the memory of a slot that is held; its end releases the slot.

    Args:
        size: bytes of the slot.
    """

    def give_back(self: HeldMemory) -> None:
        self.user.give_back(self.slot)

    kind = type("HeldMemory", (_HeldSlot, ctypes.c_uint8 * size), {"__del__": give_back})
    return cast("type[HeldMemory]", kind)


def address_of(array: npt.NDArray[np.uint8]) -> int:
    """Address of the first element."""
    return cast("int", array.__array_interface__["data"][0])


def end_writing(array: npt.NDArray[np.generic]) -> None:
    """Make the arrays read-only that an array is a view of."""
    base: object = array.base
    while isinstance(base, np.ndarray):
        base.flags.writeable = False
        base = cast("object", base.base)


if TYPE_CHECKING:

    class HeldMemory(ctypes.Array[ctypes.c_uint8]):
        """Memory of a slot, of a type from `held_memory_type`.

        Attributes:
            user: who holds it.
            slot: its number.
            reserved: bytes that the owner of the pool gave to be written; others have none.
        """

        user: SlotUser
        slot: int
        reserved: int
