"""EJFAT's data plane without I/O: events to datagrams and back.

A datagram is the load balancer's header (16 bytes), which a load balancer removes, the reassembly
header (20 bytes), and a segment of an event. All numbers are big-endian:

    'L' 'B' version:u8 next:u8 reserved:u16 entropy:u16 tick:u64
    version<<4:u8 0:u8 data_id:u16 offset:u32 length:u32 event_number:u64

`offset` is the segment's position in the event, `length` that of the whole event. The layout is
that of `include/e2sarHeaders.hpp` of github.com/JeffersonLab/E2SAR.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

LB_HEADER = struct.Struct(">2sBBHHQ")
RE_HEADER = struct.Struct(">BBHIIQ")
HEADERS = LB_HEADER.size + RE_HEADER.size
LONGEST = 2**32 - 1  # bytes of an event

_LB_MAGIC, _LB_VERSION, _LB_VERSIONS = b"LB", 2, (2, 3)
_RE_VERSION = 1
# Overhead of Python for a segment and for an event, so that the limits also hold for small ones.
_SEGMENT_COST, _EVENT_COST = 200, 2000
# Finished events, which are stored to recognize their late segments.
_REMEMBERED = 4096

# Source, data id, event number.
Key = tuple[Hashable, int, int]


def datagrams(
    event: bytes, data_id: int, number: int, payload: int, entropy: int = 0
) -> Iterator[tuple[bytes, memoryview]]:
    """Headers and segment of each datagram of an event.

    Args:
        event: the complete event, not empty.
        data_id: id of the source, 16 bits.
        number: of the event, 64 bits.
        payload: maximum number of bytes of a segment.
        entropy: value by which a load balancer chooses a receiver's port, 16 bits; equal for an
            event.
    """
    tick = time.time_ns() // 1000
    first = LB_HEADER.pack(_LB_MAGIC, _LB_VERSION, _RE_VERSION, 0, entropy, tick)
    view = memoryview(event)
    for at in range(0, len(event), payload):
        header = RE_HEADER.pack(_RE_VERSION << 4, 0, data_id, at, len(event), number)
        yield first + header, view[at : at + payload]


@dataclass(slots=True)
class Drops:
    """Drops by policy; the first five count events, the others datagrams.

    Attributes:
        unfinished: not complete in time.
        evicted: the oldest in assembly, when the limits of memory or number are reached.
        overlapping: their segments overlap.
        queue_full: complete, but too many wait for delivery.
        refused: complete, but pickled or not readable.
        oversize: of events beyond the limit.
        malformed: no headers, or a segment that does not fit its event.
        late: repeated, or of an event that is complete or dropped.
        socket: dropped by the system because the receive buffer of the socket was full.
    """

    unfinished: int = 0
    evicted: int = 0
    overlapping: int = 0
    queue_full: int = 0
    refused: int = 0
    oversize: int = 0
    malformed: int = 0
    late: int = 0
    socket: int = 0


@dataclass(frozen=True, slots=True)
class ReassemblyLimits:
    """Limits of a reassembler.

    Attributes:
        event: bytes of an event.
        memory: bytes of all segments held.
        events: number of events in assembly.
        time: s from an event's first segment to its last.
    """

    event: int
    memory: int
    events: int
    time: float


@dataclass(slots=True)
class _Event:
    length: int
    deadline: float
    segments: dict[int, bytes] = field(default_factory=dict)
    received: int = 0
    cost: int = _EVENT_COST

    def whole(self) -> bytes | None:
        """The event, or None when segments overlap."""
        at = 0
        for offset in sorted(self.segments):
            if offset != at:
                return None
            at += len(self.segments[offset])
        return b"".join(self.segments[offset] for offset in sorted(self.segments))


class Reassembler:
    """Assembles the segments of events. Memory grows with received bytes, not with stated lengths.

    A complete event waits for those of its source that began before it and are still in assembly:
    events are delivered in the order of their numbers, unless one was overtaken completely.
    """

    def __init__(self, limits: ReassemblyLimits) -> None:
        self.drops = Drops()
        self._limits = limits
        # In the order of their first segments, which is that of their deadlines.
        self._events: dict[Key, _Event] = {}
        self._held: dict[Key, tuple[bytes, float]] = {}
        # Numbers in assembly, and held, of each source and data id.
        self._open: dict[tuple[Hashable, int], set[int]] = {}
        self._waiting: dict[tuple[Hashable, int], set[int]] = {}
        self._over: dict[Key, None] = {}
        self._memory = 0

    @property
    def memory(self) -> int:
        """Bytes held, including the overhead of Python."""
        return self._memory

    @property
    def unfinished(self) -> int:
        """Events in assembly."""
        return len(self._events)

    def take(self, datagram: bytes, source: Hashable, now: float) -> list[bytes]:
        """Events to deliver after this datagram; usually none or one.

        Args:
            datagram: received bytes; any content is allowed.
            source: address of the sender.
            now: monotonic time, s.
        """
        at = LB_HEADER.size if datagram[:2] == _LB_MAGIC else 0
        size = len(datagram) - at - RE_HEADER.size
        if size <= 0 or (at and not _is_lb(datagram)):
            self.drops.malformed += 1
            return []
        version, zero, data_id, offset, length, number = RE_HEADER.unpack_from(datagram, at)
        if version != _RE_VERSION << 4 or zero or offset + size > length:
            self.drops.malformed += 1
            return []
        if length > self._limits.event:
            self.drops.oversize += 1
            return []
        key = (source, data_id, number)
        if key in self._over:
            self.drops.late += 1
            return []
        segment = datagram[at + RE_HEADER.size :]
        if size == length and key not in self._events:
            return self._complete(key, segment, now)
        return self._add(key, length, offset, segment, now)

    def _add(self, key: Key, length: int, offset: int, segment: bytes, now: float) -> list[bytes]:
        event = self._events.get(key)
        if event is None:
            event = self._events[key] = _Event(length, now + self._limits.time)
            self._open.setdefault(key[:2], set()).add(key[2])
            self._memory += event.cost
        elif event.length != length:
            self.drops.malformed += 1
            return []
        elif offset in event.segments:
            self.drops.late += 1
            return []
        cost = len(segment) + _SEGMENT_COST
        event.segments[offset] = segment
        event.received += len(segment)
        event.cost += cost
        self._memory += cost
        if event.received < length:
            return self._make_room(key)
        self._close(key)
        whole = event.whole() if event.received == length else None
        if whole is None:
            self.drops.overlapping += 1
            self._remember(key)
            return self._release(key[:2])
        return self._complete(key, whole, now)

    def _complete(self, key: Key, event: bytes, now: float) -> list[bytes]:
        self._remember(key)
        if key[:2] not in self._open and key[:2] not in self._waiting:
            return [event]
        self._held[key] = event, now + self._limits.time
        self._waiting.setdefault(key[:2], set()).add(key[2])
        self._memory += len(event) + _EVENT_COST
        return self._release(key[:2]) + self._make_room()

    def expire(self, now: float) -> list[bytes]:
        """Drop events that are not complete in time; returns events that waited for them."""
        left: list[bytes] = []
        while self._events:
            key, event = next(iter(self._events.items()))
            if event.deadline > now:
                break
            left += self._drop(key)
            self.drops.unfinished += 1
        while self._held:
            key, (_, deadline) = next(iter(self._held.items()))
            if deadline > now:
                break
            left.append(self._take_held(key))
        return left

    def flush(self) -> list[bytes]:
        """Drop all incomplete events; returns the events that waited for them."""
        left: list[bytes] = []
        while self._events:
            left += self._drop(next(iter(self._events)))
            self.drops.unfinished += 1
        return left

    def _make_room(self, keep: Key | None = None) -> list[bytes]:
        """Apply the limits: deliver waiting events, drop the oldest in assembly except `keep`."""
        left: list[bytes] = []
        while self._memory > self._limits.memory or len(self._events) > self._limits.events:
            oldest = next((key for key in self._events if key != keep), None)
            if oldest is not None:
                left += self._drop(oldest)
                self.drops.evicted += 1
            elif self._held:
                left.append(self._take_held(next(iter(self._held))))
            elif keep is not None and keep in self._events:
                # It is within the limits of one event, but has too many tiny segments.
                left += self._drop(keep)
                self.drops.evicted += 1
            else:
                break
        return left

    def _drop(self, key: Key) -> list[bytes]:
        self._close(key)
        self._remember(key)
        return self._release(key[:2])

    def _close(self, key: Key) -> None:
        """Remove an event from assembly."""
        self._memory -= self._events.pop(key).cost
        numbers = self._open[key[:2]]
        numbers.remove(key[2])
        if not numbers:
            del self._open[key[:2]]

    def _release(self, stream: tuple[Hashable, int]) -> list[bytes]:
        """Waiting events for which no earlier one is in assembly any longer."""
        waiting, numbers = self._waiting.get(stream), self._open.get(stream)
        if not waiting:
            return []
        first = min(numbers) if numbers else None
        return [
            self._take_held((*stream, number))
            for number in sorted(waiting)
            if first is None or number < first
        ]

    def _take_held(self, key: Key) -> bytes:
        event, _ = self._held.pop(key)
        self._memory -= len(event) + _EVENT_COST
        waiting = self._waiting[key[:2]]
        waiting.remove(key[2])
        if not waiting:
            del self._waiting[key[:2]]
        return event

    def _remember(self, key: Key) -> None:
        self._over[key] = None
        if len(self._over) > _REMEMBERED:
            del self._over[next(iter(self._over))]


def _is_lb(datagram: bytes) -> bool:
    return datagram[2] in _LB_VERSIONS and datagram[3] == _RE_VERSION
