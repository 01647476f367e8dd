"""Which set of a distributor group gets the next object: the policies of distribution."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from pvapy_stream.errors import ObjectError
from pvapy_stream.pva.lazy import StreamObject, frame_of, pv_object
from pvapy_stream.transport.policy import LEAST_QUEUED, RUNS, sticky_field
from pvapy_stream.transport.shm.set_service import FULL, STUCK, SetService

_KEPT = 65536  # values of a field whose set is remembered


class RoundRobin:
    """The sets take turns, in the order in which they were added; each gets a run of objects.

    Attributes:
        policy: of the group, see `transport.policy`.
    """

    def __init__(self, policy: str = RUNS) -> None:
        self.policy = policy
        self._services: list[SetService] = []
        self._current = 0
        self._remaining: int | None = None  # objects of the present turn; None: it has not begun

    @property
    def waits(self) -> Sequence[SetService]:
        """Sets of which one must have room before the next one is chosen; none: it is chosen."""
        return ()

    def next(self, obj: StreamObject) -> SetService | None:
        """The service for the next object; None if there is none."""
        services = self._services
        if len(services) < 2:
            return services[0] if services else None
        if self._remaining is None:
            self._remaining = services[self._current].updates
        elif self._remaining <= 0:
            self._current = self._following()
            self._remaining = services[self._current].updates
        self._remaining -= 1
        return services[self._current]

    def _following(self) -> int:
        """Index of the set whose turn follows the present one."""
        return (self._current + 1) % len(self._services)

    def add(self, service: SetService) -> None:
        """Add a set, after all others."""
        if service not in self._services:
            self._services.append(service)

    def remove(self, service: SetService) -> None:
        """Remove a set; the turns of the others continue."""
        if service not in self._services:
            return
        index = self._services.index(service)
        del self._services[index]
        if index < self._current:
            self._current -= 1
        elif index == self._current:
            self._remaining = None
            self._current = self._current % len(self._services) if self._services else 0


class LeastQueued(RoundRobin):
    """The next run goes to the set with the fewest objects in its queue; equal ones take turns."""

    @property
    def waits(self) -> Sequence[SetService]:
        # The rest of a run goes to its set. Of sets that are stuck, none is waited for.
        services = self._services
        if self._remaining or len(services) < 2 or min(one.load for one in services) != FULL:
            return ()
        return services

    def _following(self) -> int:
        services, n = self._services, len(self._services)
        chosen, least = self._current, STUCK + 1
        for k in range(1, n + 1):
            place = (self._current + k) % n
            load = services[place].load
            if not load:
                return place
            if load < least:
                chosen, least = place, load
        return chosen


class Sticky(LeastQueued):
    """All objects with the same value of a field go to one set, as long as it is there.

    A value that is new goes to the set with the fewest objects in its queue. So does one that has
    not come for as many others as are remembered.

    Args:
        policy: names the field: an attribute of images; for other objects, path of a field.
    """

    def __init__(self, policy: str) -> None:
        super().__init__(policy)
        self._field = sticky_field(policy)
        self._known: OrderedDict[Any, SetService] = OrderedDict()

    @property
    def waits(self) -> Sequence[SetService]:
        # Most values have their set, which is waited for.
        return ()

    def next(self, obj: StreamObject) -> SetService | None:
        if not self._services:
            return None
        value = self._value(obj)
        service = self._known.get(value)
        if service is None:
            self._current = self._following()
            service = self._known[value] = self._services[self._current]
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(value)
        return service

    def _value(self, obj: StreamObject) -> object:
        """The value of the field; None for objects without it, which go together."""
        try:
            value: Any = frame_of(obj).attributes.get(self._field)
        except ObjectError:
            real = pv_object(obj)
            value = real[self._field] if real.hasField(self._field) else None
        try:
            hash(value)
        except TypeError:
            # An array or a structure.
            return repr(value)
        return value

    def remove(self, service: SetService) -> None:
        super().remove(service)
        for value in [value for value, one in self._known.items() if one is service]:
            del self._known[value]


def turns_of(policy: str) -> RoundRobin:
    """The sets of a new group, with a policy of `transport.policy`."""
    if policy == RUNS:
        return RoundRobin()
    return LeastQueued(policy) if policy == LEAST_QUEUED else Sticky(policy)
