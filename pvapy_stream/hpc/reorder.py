"""Objects of several producers in the order of their ids. No EPICS, no threads, no clock."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

LATE = "late"
_ALL, _NONE = float("inf"), float("-inf")
DUPLICATE = "duplicate"


class Released(NamedTuple):
    """An object whose turn has come."""

    id: int
    producer: Hashable
    obj: Any


@dataclass(slots=True)
class _Producer:
    order: int
    newest: int | None = None
    live: bool = True


class ReorderBuffer:
    """Holds objects until no object with a smaller id can come any more.

    Each producer sends its ids in order. So once every live producer has gone past an id, all
    objects up to it are there, however many producers send the same id, and whatever ids are
    missing. Two bounds keep a silent producer from holding up the others: the number of objects
    held, and the time each of them waits.

    Args:
        producers: who will send; objects of equal id are released in this order.
        size: most objects held; when it is exceeded, the smallest ids are released.
        gap_timeout: longest wait of an object, s.
        disorder: by how much a producer's ids may go back within its stream.
    """

    def __init__(
        self, producers: Iterable[Hashable], size: int, gap_timeout: float, disorder: int = 0
    ) -> None:
        self.size = size
        self.gap_timeout = gap_timeout
        self._disorder = disorder
        self._producers = {name: _Producer(order) for order, name in enumerate(producers)}
        # (id, order of its producer, order of arrival, producer, object); the first three decide.
        self._heap: list[tuple[int, int, int, Hashable, Any]] = []
        self._arrivals: deque[tuple[float, int]] = deque()
        self._counter = 0
        self.last_released: int | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, producer: Hashable, value: int, obj: Any, now: float) -> str | None:
        """Take an object.

        Args:
            producer: who sent it.
            value: its id.
            obj: the object.
            now: time of arrival, s, on any clock that does not go back.

        Returns:
            None, or why it is rejected: `LATE` (its turn is over) or `DUPLICATE`.
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
        """Whether a producer has gone back by more than its disorder: its ids started again."""
        newest = self._producers[producer].newest
        return newest is not None and newest - value > self._disorder

    def pass_by(self, producer: Hashable, value: int) -> None:
        """A producer will send no object with an id up to this one any more."""
        source = self._producers[producer]
        if source.newest is None or value > source.newest:
            source.newest = value

    def set_live(self, producer: Hashable, live: bool) -> None:
        """Say whether a producer can send; one that cannot holds up nobody."""
        self._producers[producer].live = live

    def restart(self) -> None:
        """Begin a new sequence of ids: nothing is late any more. What is held stays."""
        self.last_released = None
        for source in self._producers.values():
            source.newest = None

    def release(self, now: float) -> list[Released]:
        """Objects whose turn has come by `now`, s, in the order of their ids."""
        passed = self._passed()
        heap, out = self._heap, []
        while heap and (heap[0][0] <= passed or len(heap) > self.size):
            out.append(self._pop())
        # An overdue object takes all smaller ids with it.
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
        """All that is held, in order."""
        out = [self._pop() for _ in range(len(self._heap))]
        self._arrivals.clear()
        return out

    def _passed(self) -> float:
        """The largest id that all live producers have reached: smaller ones cannot come."""
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
        """Objects of one id leave together: those behind would be late."""
        while self._heap and self._heap[0][0] == self.last_released and out:
            out.append(self._pop())
        return out
