"""A source that is killed and started again, with what it shows and what gets lost, for tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pvaccess as pva

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import SequenceTracker
from pvapy_stream.hpc.processor import UserDataProcessor
from pvapy_stream.hpc.stage import Stage
from pvapy_stream.pva.objects import mark
from pvapy_stream.transport.ports import Return

_KIND = {
    "uniqueId": pva.INT,
    "process": pva.INT,
    "timeStamp": {"secondsPastEpoch": pva.LONG, "nanoseconds": pva.INT, "userTag": pva.INT},
}


class Notes(UserDataProcessor):
    """Notes what it processed: process of the source, and id."""

    def __init__(self) -> None:
        super().__init__({})
        self.taken: list[tuple[int, int]] = []

    def process(self, pvObject: Any) -> Any:
        self.taken.append((pvObject["process"], pvObject["uniqueId"]))


class Follower(Protocol):
    """Who may be connected to the source."""

    connected: bool

    def connect(self, source: Source) -> None:
        """Be shown what it has."""
        ...

    def take(self, obj: Any) -> None:
        """Take an object that was sent."""
        ...


class Member:
    """A stage that follows the source, alone or with others that share it."""

    def __init__(self, number: int, members: int) -> None:
        self.processor = Notes()
        self.shared = members > 1
        self.stage = Stage(
            self.processor,
            Ledger("consumer", number, "source", group="g" if self.shared else ""),
            SequenceTracker(members),
            id_field="uniqueId",
            skip=1,
        )
        self.connected = False
        self._process = 0

    def take(self, obj: Any) -> None:
        """Take an object that was sent."""
        self.stage.handle(obj)

    def connect(self, source: Source) -> None:
        """The source shows what it has."""
        before, self._process = self._process, source.process
        self.connected = True
        shown = source.object(source.newest)
        if before == 0:
            self.stage.ledger.sources.append(source.name)
            self.stage.handle(shown)
            return
        how, name = Return(anew=before != source.process), source.name
        if not self.stage.handle_again(shown, how, shared=self.shared, source=name):
            self.stage.handle(shown)


@dataclass
class Source:
    """One that is started again and again, and sends ids from 1 each time.

    Attributes:
        marks: whether what its channel holds at first is marked.
        sent: what it sent: process and id.
        known: of each process, the last id that somebody knows.
        heads: of each process, what was sent before anybody was there.
    """

    marks: bool
    members: Sequence[Follower]
    process: int = 0
    newest: int = 0
    sent: list[tuple[int, int]] = field(default_factory=list)
    known: dict[int, int] = field(default_factory=dict)
    heads: dict[int, int] = field(default_factory=dict)
    turn: int = 0

    @property
    def first(self) -> int:
        """The process that was there when the first member came."""
        return min(self.heads, default=0)

    def gone(self, taken: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
        """What nobody took, of what somebody can know of: processes and ids."""
        return {
            (process, value)
            for process, value in set(self.sent) - set(taken)
            if value <= self.known.get(process, -1)
            and not (process == self.first and value <= self.heads[process])
        }

    @property
    def name(self) -> str:
        """Names its process."""
        return f"pva {self.process}"

    def object(self, value: int) -> pva.PvObject:
        made = pva.PvObject(_KIND, {"uniqueId": value, "process": self.process})
        return mark(made) if value == 0 and self.marks else made

    def start(self) -> None:
        """Another process of it."""
        self.process += 1
        self.newest = 0
        for one in self.members:
            one.connected = False

    def connect(self, one: Follower) -> None:
        if not one.connected:
            self.heads.setdefault(self.process, self.newest or -1)
            self.known[self.process] = self.newest
            one.connect(self)

    def send(self, lose: bool) -> None:
        """Send the next object to the one whose turn it is; perhaps it does not get there."""
        self.newest += 1
        self.sent.append((self.process, self.newest))
        there = [one for one in self.members if one.connected]
        if not there:
            return
        self.turn += 1
        if not lose:
            if self.heads[self.process] < 0:
                # Ids of a source may begin anywhere.
                self.heads[self.process] = self.newest - 1
            self.known[self.process] = self.newest
            there[self.turn % len(there)].take(self.object(self.newest))
