"""What a replay does to a stream on purpose. No sockets, no clock."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
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
        done: what is done to it on purpose, of `KINDS`.
    """

    at: float
    id: int
    data: Buffer
    shift: int = 0
    done: tuple[str, ...] = ()

    @property
    def dropped(self) -> bool:
        """Whether it is not published."""
        return "drop" in self.done

    @property
    def delayed(self) -> bool:
        """Whether it is published late."""
        return "delay" in self.done

    @property
    def again(self) -> bool:
        """Whether it is the second of two."""
        return "duplicate" in self.done

    @property
    def reconnects(self) -> bool:
        """Whether the channel disappears before it."""
        return "reconnect" in self.done


class Faults:
    """Does faults to the objects of a stream.

    Each kind has random numbers of its own, one for each object: the same seed makes the same
    faults at any speed, and whatever else is requested.

    Args:
        rates: part of the objects, 0 to 1, by kind.
        seed: of the random numbers.

    Attributes:
        done: ids by kind, of what `note` was called with.
        counts: how many objects, by kind; more than ids if ids occur more than once.
        spared: ids of objects that were to be corrupted and have no array.
    """

    def __init__(self, rates: Mapping[str, float], seed: int) -> None:
        self.done: dict[str, IdSet] = {}
        self.counts: dict[str, int] = {}
        self.spared = IdSet()
        self._rates = {kind: rates[kind] for kind in KINDS if rates.get(kind, 0.0) > 0}
        # Reproducible on purpose; these are no secrets.
        self._random = {kind: random.Random(f"{seed} {kind}") for kind in KINDS}  # noqa: S311
        self._place = random.Random(f"{seed} place")  # noqa: S311
        for kind in self._rates:
            self.done[kind], self.counts[kind] = IdSet(), 0

    def apply(self, objects: Iterable[Due]) -> Iterator[Due]:
        """The stream with faults; also what is dropped is there, with that in `done`."""
        if not self._rates:
            yield from objects
            return
        held: Due | None = None
        for one in objects:
            chosen = [k for k, rate in self._rates.items() if self._random[k].random() < rate]
            if "drop" in chosen:
                yield one._replace(done=("drop",))
                continue
            if "corrupt" in chosen:
                one = self._corrupted(one)
            one = one._replace(
                done=(*one.done, *(kind for kind in ("delay", "reconnect") if kind in chosen))
            )
            if "reorder" in chosen and held is None:
                held = one
                continue
            yield one
            if "duplicate" in chosen:
                yield one._replace(done=("duplicate",))
            if held is not None:
                yield held._replace(at=one.at, done=(*held.done, "reorder"))
                held = None
        if held is not None:
            # Nothing follows that it could come after.
            yield held

    def _corrupted(self, one: Due) -> Due:
        """The object with a wrong byte in its largest array."""
        begin, end = largest_array(one.data)
        place = self._place.random()
        if begin == end:
            self.spared.add(one.id)
            return one
        data = bytearray(one.data)
        data[begin + int(place * (end - begin))] ^= 0xFF
        return one._replace(data=data, done=("corrupt",))

    def note(self, one: Due) -> None:
        """The turn of an object has come: what is done to it counts now."""
        for kind in one.done:
            self.done[kind].add(one.id)
            self.counts[kind] += 1

    def lines(self) -> list[str]:
        """What was done, a line for each kind that was requested."""
        lines = [
            f"{kind} on purpose: {self.counts[kind]} objects" + (f", ids {ids}" if ids else "")
            for kind, ids in self.done.items()
        ]
        if self.spared:
            lines.append(f"not corrupted, as they have no array: ids {self.spared}")
        return lines
