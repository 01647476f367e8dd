"""What a replay does to a stream on purpose. No sockets, no clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.pva.serial import Buffer, largest_array

KINDS = ("drop", "delay", "duplicate", "reorder", "corrupt", "reconnect")


class Due(NamedTuple):
    """An object of a recording that is to be published.

    Attributes:
        at: when, s after the first one.
        id: its id.
        data: its bytes, in the format of `pva.serial`.
        shift: how much larger `id` is than in its bytes.
        delayed: whether it is published late.
        again: whether it is a duplicate on purpose.
        reconnects: whether the channel disappears before it.
    """

    at: float
    id: int
    data: Buffer
    shift: int = 0
    delayed: bool = False
    again: bool = False
    reconnects: bool = False


def _not_noted(kind: str, object_id: int) -> None:
    pass


class Faults:
    """Does faults to the objects of a stream.

    Each kind has random numbers of its own, one for each object: the same seed makes the same
    faults at any speed, and whatever else is requested.

    Args:
        rates: part of the objects, 0 to 1, by kind.
        seed: of the random numbers.
        note: called with the kind and the id of what was done.

    Attributes:
        done: ids by kind.
        counts: how many objects, by kind; more than ids if ids occur more than once.
        spared: ids of objects that were to be corrupted and have no array.
    """

    def __init__(
        self,
        rates: Mapping[str, float],
        seed: int,
        note: Callable[[str, int], None] = _not_noted,
    ) -> None:
        self.done: dict[str, IdSet] = {}
        self.counts: dict[str, int] = {}
        self.spared = IdSet()
        self._note = note
        self._rates = {kind: rates[kind] for kind in KINDS if rates.get(kind, 0.0) > 0}
        # Reproducible on purpose; these are no secrets.
        self._random = {kind: random.Random(f"{seed} {kind}") for kind in KINDS}  # noqa: S311
        self._place = random.Random(f"{seed} place")  # noqa: S311
        for kind in self._rates:
            self.done[kind], self.counts[kind] = IdSet(), 0

    def apply(self, objects: Iterable[Due]) -> Iterator[Due]:
        """The stream with faults. An object is taken when the one before was taken from here."""
        if not self._rates:
            yield from objects
            return
        held: Due | None = None
        for one in objects:
            chosen = {k for k, rate in self._rates.items() if self._random[k].random() < rate}
            if "drop" in chosen:
                self._done("drop", one.id)
                continue
            if "corrupt" in chosen:
                one = self._corrupted(one)
            if "delay" in chosen:
                self._done("delay", one.id)
                one = one._replace(delayed=True)
            if "reconnect" in chosen:
                self._done("reconnect", one.id)
                one = one._replace(reconnects=True)
            if "reorder" in chosen and held is None:
                held = one
                continue
            yield from self._repeated(one, "duplicate" in chosen)
            if held is not None:
                self._done("reorder", held.id)
                yield held._replace(at=one.at)
                held = None
        if held is not None:
            # Nothing follows that it could come after.
            yield held

    def _repeated(self, one: Due, twice: bool) -> Iterator[Due]:
        yield one
        if twice:
            self._done("duplicate", one.id)
            yield one._replace(again=True, delayed=False, reconnects=False)

    def _corrupted(self, one: Due) -> Due:
        """The object with a wrong byte in its largest array."""
        begin, end = largest_array(one.data)
        place = self._place.random()
        if begin == end:
            self.spared.add(one.id)
            return one
        data = bytearray(one.data)
        data[begin + int(place * (end - begin))] ^= 0xFF
        self._done("corrupt", one.id)
        return one._replace(data=data)

    def _done(self, kind: str, object_id: int) -> None:
        self.done[kind].add(object_id)
        self.counts[kind] += 1
        self._note(kind, object_id)

    def lines(self) -> list[str]:
        """What was done, a line for each kind that was requested."""
        told = [
            f"{kind} on purpose: {self.counts[kind]} objects" + (f", ids {ids}" if ids else "")
            for kind, ids in self.done.items()
        ]
        if self.spared:
            told.append(f"not corrupted, as they have no array: ids {self.spared}")
        return told
