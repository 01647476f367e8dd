"""The newest messages of a stream, within limits; any number of readers can read them.

Messages have sequence numbers in the order of their arrival. Nothing is taken out by reading:
`cursor.RangeCursor` remembers how far a reader is.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pvapy_stream.daq.id_watch import LATE
from pvapy_stream.daq.order import OrderIndex

# A pulse, or a time, that is further back is not late: its source has restarted.
LATE_PULSES = LATE
LATE_NS = 10_000_000_000
# A time so far ahead of the others is believed when the next one says so too.
JUMP_NS = 600_000_000_000
_COMPACT_AT = 4096


@dataclass(frozen=True, slots=True)
class RingLimits:
    """How much is kept in memory; 0: no such limit. The newest message is always kept.

    Attributes:
        messages: number of messages.
        nbytes: bytes of memory.
        seconds: between the arrivals of the oldest and the newest.
    """

    messages: int = 0
    nbytes: int = 0
    seconds: float = 0


class RingEntry(Protocol):
    """A message as it is kept."""

    @property
    def pulse_id(self) -> int: ...
    @property
    def timestamp_ns(self) -> int: ...
    @property
    def cost(self) -> int:
        """Bytes of memory that it takes."""
        ...


Kept = TypeVar("Kept", bound=RingEntry)


class Overflow(Protocol[Kept]):
    """Keeps messages that exceed the limits of memory; see `spill.Spill`."""

    first: int

    def write(self, sequence: int, message: Kept) -> bool: ...
    def read(self, sequence: int) -> Kept: ...
    def close(self) -> None: ...


class Ring(Generic[Kept]):
    """The newest messages. For one thread; others may read its numbers.

    Args:
        limits: how much is kept in memory.
        spill: where messages go that memory has no room for; None: they are let go.
        late_pulses: how many pulses back a message may be without meaning that its source has
            started again.

    Attributes:
        dropped: dropped messages.
        memory: bytes that the messages in memory take.
    """

    def __init__(
        self,
        limits: RingLimits,
        spill: Overflow[Kept] | None = None,
        late_pulses: int = LATE_PULSES,
    ) -> None:
        self.limits = limits
        self.spill = spill
        self.pulses = OrderIndex(late_pulses)
        self.times = OrderIndex(LATE_NS, JUMP_NS)
        self.dropped = 0
        self.memory = 0
        self._arrivals = array("d")
        self._arrivals_head = 0
        self._kept: dict[int, Kept] = {}
        self._first_kept = 0
        self._first = 0

    def __len__(self) -> int:
        return self.next - self._first

    @property
    def first(self) -> int:
        """Sequence number of the oldest message, in memory or on disk."""
        return self._first

    @property
    def next(self) -> int:
        """Sequence number of the next message."""
        return self.pulses.next

    @property
    def in_memory(self) -> int:
        """Number of messages in memory."""
        return self.next - self._first_kept

    @property
    def seconds(self) -> float:
        """Between the arrivals of the oldest and the newest message; for any thread."""
        try:
            return max(0.0, self.arrival(self.next - 1) - self.arrival(self._first))
        except IndexError:
            return 0.0

    @property
    def fill(self) -> float:
        """Part of the nearest limit in memory that is used, 0 to 1."""
        limits = self.limits
        parts = (
            (self.in_memory, limits.messages),
            (self.memory, limits.nbytes),
            (self.seconds, limits.seconds),
        )
        return min(1.0, max((used / most for used, most in parts if most), default=0.0))

    def edges(self) -> tuple[int | None, int | None]:
        """Pulse ids of the oldest message, and the newest that is not odd; for any thread."""
        try:
            last = self.next - 1
            odd = self.pulses.is_odd(last)
            return self.pulses.value(self._first), (
                self.pulses.newest if odd else self.pulses.value(last)
            )
        except IndexError:
            return None, None

    def append(self, message: Kept, now: float) -> None:
        """Take a message; `now`: s on a clock that does not go back."""
        self._kept[self.next] = message
        self.pulses.append(message.pulse_id)
        self.times.append(message.timestamp_ns)
        self._arrivals.append(now)
        self.memory += message.cost
        while self._is_full(now):
            self._let_go()

    def _is_full(self, now: float) -> bool:
        kept = self.in_memory
        if kept <= 1:
            return False
        limits = self.limits
        return (
            0 < limits.messages < kept
            or 0 < limits.nbytes < self.memory
            or 0 < limits.seconds < now - self.arrival(self._first_kept)
        )

    def _let_go(self) -> None:
        """Take the oldest message out of memory."""
        sequence = self._first_kept
        message = self._kept.pop(sequence)
        self.memory -= message.cost
        self._first_kept += 1
        spill = self.spill
        first = self._first_kept
        if spill is not None and spill.write(sequence, message):
            first = min(spill.first, first)
        while self._first < first:
            self._drop()

    def _drop(self) -> None:
        self._first += 1
        self.dropped += 1
        self.pulses.drop()
        self.times.drop()
        self._arrivals_head += 1
        if self._arrivals_head >= _COMPACT_AT and self._arrivals_head * 2 >= len(self._arrivals):
            del self._arrivals[: self._arrivals_head]
            self._arrivals_head = 0

    def arrival(self, sequence: int) -> float:
        """When a message arrived."""
        return self._arrivals[sequence - self._first + self._arrivals_head]

    def get(self, sequence: int) -> Kept:
        """A message that is still there.

        Raises:
            FileError: it is on disk and cannot be read.
        """
        kept = self._kept.get(sequence)
        if kept is not None:
            return kept
        if self.spill is None:
            raise IndexError(f"message {sequence} is not in the ring")
        return self.spill.read(sequence)

    def close(self) -> None:
        """Release the disk space."""
        if self.spill is not None:
            self.spill.close()
