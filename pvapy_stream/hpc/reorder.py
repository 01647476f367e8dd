"""Sorts the objects of several producers by id. Uses no EPICS, no threads and no clock."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

if TYPE_CHECKING:
    from pvapy_stream.pva.lazy import StreamObject


LATE = "late"
_ALL, _NONE = float("inf"), float("-inf")
DUPLICATE = "duplicate"


class Released(NamedTuple):
    """An object that left the buffer, in the order of ids."""

    id: int
    producer: Hashable
    obj: StreamObject


class _Producer(Struct):
    order: int
    newest: int | None = None
    live: bool = True


class ReorderBuffer:
    """Holds objects until no object with a smaller id can arrive.

    Each producer sends its ids in ascending order. When every live producer has passed an id, all
    objects up to that id have arrived, however many producers send the same id, and whichever ids
    are missing. Two limits prevent a silent producer from delaying the others: the number of
    objects held, and the time each of them waits.

    Args:
        producers: names of the producers; objects with equal ids are released in this order.
        size: maximum number of objects held; above it, the smallest ids are released.
        gap_timeout: maximum time an object waits, s.
        disorder: how much smaller than its newest id an id of a producer may be.
    """

    def __init__(
        self, producers: Iterable[Hashable], size: int, gap_timeout: float, disorder: int = 0
    ) -> None:
        self.size = size
        self.gap_timeout = gap_timeout
        self._disorder = disorder
        self._producers = {name: _Producer(order) for order, name in enumerate(producers)}
        # (id, order of its producer, order of arrival, producer, object); the first three decide.
        self._heap: list[tuple[int, int, int, Hashable, StreamObject]] = []
        self._arrivals: deque[tuple[float, int]] = deque()
        self._counter = 0
        self.last_released: int | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def held(self) -> Counter[Hashable]:
        """How many objects of each producer wait."""
        return Counter(item[3] for item in self._heap)

    def add(self, producer: Hashable, value: int, obj: StreamObject, now: float) -> str | None:
        """Add an object.

        Args:
            producer: name of its producer.
            value: its id.
            obj: the object.
            now: time of arrival on a monotonic clock, s.

        Returns:
            None, or why it is rejected: `LATE` (a larger id was released) or `DUPLICATE`.
        """
        source = self._producers[producer]
        if source.newest is not None and value <= source.newest:
            if self._holds(producer, value):
                return DUPLICATE
        else:
            source.newest = value
        if self.last_released is not None and value <= self.last_released:
            return LATE
        self._counter += 1
        heapq.heappush(self._heap, (value, source.order, self._counter, producer, obj))
        self._arrivals.append((now, value))
        return None

    def _holds(self, producer: Hashable, value: int) -> bool:
        return any(item[0] == value and item[3] == producer for item in self._heap)

    def begins_anew(self, producer: Hashable, value: int) -> bool:
        """Whether the ids of a producer restarted: this one is smaller by more than `disorder`."""
        newest = self._producers[producer].newest
        return newest is not None and newest - value > self._disorder

    def pass_by(self, producer: Hashable, value: int) -> None:
        """Note that a producer will send no more ids up to this one."""
        source = self._producers[producer]
        if source.newest is None or value > source.newest:
            source.newest = value

    def set_live(self, producer: Hashable, live: bool) -> None:
        """Set whether a producer can send; objects do not wait for one that cannot."""
        self._producers[producer].live = live

    def restart(self) -> None:
        """Begin a new sequence of ids, in which no id is late. Objects in the buffer stay."""
        self.last_released = None
        for source in self._producers.values():
            source.newest = None

    def release(self, now: float) -> list[Released]:
        """Objects that can leave the buffer at time `now`, s, in ascending order of ids."""
        passed = self._passed()
        heap, out = self._heap, []
        while heap and (heap[0][0] <= passed or len(heap) > self.size):
            out.append(self._pop())
        # An overdue object is released together with all smaller ids.
        arrivals = self._arrivals
        while arrivals:
            arrived, value = arrivals[0]
            if self.last_released is not None and value <= self.last_released:
                arrivals.popleft()
            elif now - arrived >= self.gap_timeout:
                while heap and heap[0][0] <= value:
                    out.append(self._pop())
                arrivals.popleft()
            else:
                break
        return self._whole_last_id(out)

    def drain(self) -> list[Released]:
        """All objects in the buffer, in ascending order of ids."""
        out = [self._pop() for _ in range(len(self._heap))]
        self._arrivals.clear()
        return out

    def _passed(self) -> float:
        """The largest id that all live producers have reached; smaller ids cannot arrive."""
        # One plain loop: this is done for every object.
        passed = _ALL
        for source in self._producers.values():
            if source.live:
                newest = source.newest
                if newest is None:
                    return _NONE
                if newest < passed:
                    passed = newest
        return passed - self._disorder

    def _pop(self) -> Released:
        value, _, _, producer, obj = heapq.heappop(self._heap)
        self.last_released = value
        return Released(value, producer, obj)

    def _whole_last_id(self, out: list[Released]) -> list[Released]:
        """Release all objects of the last id together: the rest of them would be late."""
        while self._heap and self._heap[0][0] == self.last_released and out:
            out.append(self._pop())
        return out
