"""References to payloads in pools: what a publisher sends instead of a copy.

In a sample, header and attributes are as those of a copy; then follow key of the pool, slot and
generation. The header's `payload_at` is an offset in the slot.
"""

from __future__ import annotations

import ctypes
import struct
from collections import deque
from typing import NamedTuple, Protocol

from pvapy_stream.transport.shm.frames import (
    ALL_SUBSCRIBERS,
    REFERENCE,
    Parts,
    SampleBytes,
    SampleHeader,
)

_PLACE = struct.Struct("<16s QQ")


class PayloadPlace(NamedTuple):
    """Where a payload is.

    Attributes:
        pool: key of the pool.
        slot: number of the slot.
        generation: of the payload in that slot.
    """

    pool: bytes
    slot: int
    generation: int


def place_at(header: SampleHeader, address: int) -> PayloadPlace:
    """Where the payload of a sample is."""
    at = header.attributes_at + header.attributes
    return PayloadPlace(*_PLACE.unpack(ctypes.string_at(address + at, _PLACE.size)))


class Holder(Protocol):
    """Who holds slots: the owner of a pool, or another user."""

    def acquire(self, slot: int) -> None: ...

    def release(self, slot: int) -> None: ...


class Reference:
    """An object whose payload is in a pool. Its publisher holds the slot until it is released.

    Args:
        parts: the object.
        place: where its payload is.
        payload_at: offset of the payload in the slot.
        holder: through which the slot is held, once.

    Attributes:
        size: bytes that `write` needs.
    """

    __slots__ = ("_holder", "_parts", "_payload_at", "_place", "size")

    def __init__(self, parts: Parts, place: PayloadPlace, payload_at: int, holder: Holder) -> None:
        self._parts = parts
        self._place = place
        self._payload_at = payload_at
        self._holder = holder
        self.size = parts.attributes_end + _PLACE.size

    def write(
        self, memory: SampleBytes, address: int, chunk: int, sequence: int, flags: int = 0,
        target: bytes = ALL_SUBSCRIBERS,
    ) -> None:  # fmt: skip
        """Write into memory in which a copy would fit, too."""
        end = self._parts.write_header(
            memory, self._payload_at, chunk, sequence, flags | REFERENCE, target
        )
        _PLACE.pack_into(memory, end, *self._place)

    def acquire(self) -> None:
        """Hold the slot once more."""
        self._holder.acquire(self._place.slot)

    def release(self) -> None:
        """End the hold of the constructor, or of one `acquire`."""
        self._holder.release(self._place.slot)


class InFlight:
    """References that were sent to one subscriber, which may not have acquired them yet."""

    __slots__ = ("_sent",)

    def __init__(self) -> None:
        self._sent: deque[tuple[int, Reference]] = deque()

    def add(self, sequence: int, reference: Reference) -> None:
        """Hold a reference until the subscriber has secured it."""
        reference.acquire()
        self._sent.append((sequence, reference))

    def prune(self, secured: int) -> None:
        """Release references that the subscriber has secured.

        Args:
            secured: number of the last sample that it has secured.
        """
        sent = self._sent
        while sent and sent[0][0] <= secured:
            sent.popleft()[1].release()

    def end(self) -> None:
        """Release all: the subscriber is gone."""
        while self._sent:
            self._sent.popleft()[1].release()

    def __len__(self) -> int:
        return len(self._sent)
