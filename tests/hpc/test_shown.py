"""What a source shows is no frame, and hides none: random runs against the truth."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pvaccess as pva
import pytest

from pvapy_stream.accounting.audit import AuditResult, audit
from pvapy_stream.accounting.ledger import Ledger, union
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
        self.seen: dict[int, int] = {}

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
    members: list[Member]
    process: int = 0
    newest: int = 0
    sent: list[tuple[int, int]] = field(default_factory=list)
    known: dict[int, int] = field(default_factory=dict)
    heads: dict[int, int] = field(default_factory=dict)
    turn: int = 0

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

    def connect(self, one: Member) -> None:
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
            there[self.turn % len(there)].stage.handle(self.object(self.newest))


def run(seed: int) -> tuple[Source, AuditResult]:
    """A run, and its audit without a ledger of the source."""
    draw = random.Random(seed)
    n = draw.choice((1, 2, 3))
    members = [Member(number, n) for number in range(1, n + 1)]
    source = Source(draw.random() < 0.5, members)
    losing, leaving = draw.choice((0.0, 0.05, 0.3)), draw.choice((0.0, 0.1))
    for _ in range(draw.randrange(1, 5)):
        source.start()
        for _ in range(draw.choice((0, 0, 1, 3))):
            source.send(False)
        for one in draw.sample(members, draw.choice((n, n, draw.randint(0, n)))):
            source.connect(one)
            for _ in range(draw.choice((0, 0, 1, 2, 4))):
                source.send(draw.random() < losing)
        for _ in range(draw.choice((0, 1, 3, 10))):
            if draw.random() < leaving:
                draw.choice(members).connected = False
            source.send(draw.random() < losing)
            if draw.random() < 0.3:
                for one in members:
                    source.connect(one)
    newest = source.newest if draw.random() < 0.5 else None
    if newest is not None and any(one.connected for one in members):
        source.known[source.process] = newest
    for one in members:
        one.stage.finish(newest if one.connected else None)
    return source, audit([led for one in members for led in one.stage.account.ledgers])


def first_process(source: Source) -> int:
    """The one that was there when the first member came."""
    return min(source.heads, default=0)


@pytest.mark.parametrize("first", range(0, 500, 100))
def test_what_nobody_has_is_named(first: int) -> None:
    for seed in range(first, first + 100):
        source, result = run(seed)
        taken = [one for member in source.members for one in member.processor.taken]
        assert len(taken) == len(set(taken)), seed
        assert not [one for one in taken if one[1] == 0], seed
        lost = {
            (process, value)
            for process, value in set(source.sent) - set(taken)
            if value <= source.known.get(process, -1)
            and not (process == first_process(source) and value <= source.heads[process])
        }
        subscribers = [one for channel in result.channels for one in channel.subscribers]
        named = union(
            ids for one in subscribers for ids in (one.lost, one.unknown, one.unprocessed)
        )
        skipped = union(stage.ledger.skipped for stage in result.stages)
        gone = {value for _, value in lost}
        assert not gone - set(named | skipped), (seed, lost, result.verdict)
        if gone - set(skipped):
            assert not result.ok, (seed, lost)
        false = set(union(one.lost for one in subscribers)) - {
            value for _, value in set(source.sent) - set(taken)
        }
        assert not false, (seed, false, result.verdict)
        if not set(source.sent) - set(taken):
            assert result.ok, (seed, result.verdict)
