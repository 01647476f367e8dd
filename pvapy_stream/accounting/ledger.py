"""The ledger of a stage: every id has a fate.

A stage records which ids it received, and whether each was processed, filtered (dropped
intentionally), skipped (an initial update), rejected (and by which policy), failed (and by which
error) or left in a queue at stop; which ids never arrived; and which it published. `audit` compares
the ledgers of a run.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.errors import LedgerError

FORMAT = "pvapy_stream ledger 2"
_READ = (FORMAT, "pvapy_stream ledger 1")
_SETS = (
    "received", "processed", "filtered", "skipped", "duplicate", "left", "missed", "unknown",
    "published", "repeated", "excused", "repaired",
)  # fmt: skip
_BY_REASON = ("rejected", "failed", "faults", "unrepairable")


@dataclass(slots=True)
class Ledger:
    """What one stage did with each id, in one epoch of the ids.

    An epoch ends when ids decrease: a restarted source sends the same ids again, and each time
    counts. A stage has a ledger for every epoch of each of its processes.

    Attributes:
        stage: kind of the stage: sim, mirror, consumer, collector.
        stage_id: its id.
        input_channel: channel it receives from; "" for a source.
        output_channel: channel it publishes on; "" for none.
        group: distributor group, or "" if it gets the whole stream.
        client_set: distributor set; all clients of a set get the same ids.
        received: ids that arrived, and for each of these one of the next seven.
        processed: ids that the processor handled without error; for a writer, those in the file.
        filtered: ids that the processor dropped intentionally: it returned without publishing.
        skipped: initial updates that were not processed.
        duplicate: ids that arrived again in the same epoch.
        rejected: ids by the queue or policy that rejected them.
        failed: ids by the error that they caused.
        left: ids that still waited when the time to drain was over.
        missed: ids that should have arrived and did not.
        unknown: ids of which the stage cannot know whether they were sent.
        published: ids that were published.
        repeated: those of them that were published more than once.
        went_back: how often an id was not larger than the one before: a repeat, or a restarted
            source.
        asked: ids it requested, if it takes only a range of its source; None for all.
        anonymous: how many objects without an id field arrived; they are in none of the sets.
        incarnation: 1 for the first process of the stage, one more for each restart; 0 for ids of a
            killed process that others confirm.
        started: when that process began, s since 1970; 0 if unknown.
        epoch: 1 for the first epoch of ids in this process.
        closed: whether the stage wrote this at its end; otherwise it was killed or still runs. A
            `LedgerKeeper` sets it.
        opened: whether an opening object has arrived.
        excused: ids that the source reported as filtered; only writers keep them.
        file: name pattern of a writer's files; they decide what is saved.
        run: name of the run that wrote these files.
        crowded: how often ids started again when no further ledger could be begun.
        newest: the newest id that the source had sent when it was asked at the end, or showed; None
            if unknown.
        sources: names of the programs that the ids of this epoch came from, if known.
        faults: ids by what a source did to them on purpose: a replay with faults.
        repaired: received ids that came late, as they were missed here or by a stage before, which
            asked its source for them.
        unrepairable: missed ids that it could not send again, by reason.
        lap: 1 for the first epoch of a program, one more each time its ids go back.
    """

    stage: str
    stage_id: int = 0
    input_channel: str = ""
    output_channel: str = ""
    group: str = ""
    client_set: str = ""
    received: IdSet = field(default_factory=IdSet)
    processed: IdSet = field(default_factory=IdSet)
    filtered: IdSet = field(default_factory=IdSet)
    skipped: IdSet = field(default_factory=IdSet)
    duplicate: IdSet = field(default_factory=IdSet)
    left: IdSet = field(default_factory=IdSet)
    missed: IdSet = field(default_factory=IdSet)
    unknown: IdSet = field(default_factory=IdSet)
    published: IdSet = field(default_factory=IdSet)
    repeated: IdSet = field(default_factory=IdSet)
    rejected: dict[str, IdSet] = field(default_factory=dict)
    failed: dict[str, IdSet] = field(default_factory=dict)
    went_back: int = 0
    anonymous: int = 0
    asked: IdSet | None = None
    incarnation: int = 1
    started: float = 0.0
    epoch: int = 1
    closed: bool = True
    opened: bool = False
    excused: IdSet = field(default_factory=IdSet)
    file: str = ""
    run: str = ""
    crowded: int = 0
    newest: int | None = None
    sources: list[str] = field(default_factory=list[str])
    lap: int = 1
    faults: dict[str, IdSet] = field(default_factory=dict[str, IdSet])
    repaired: IdSet = field(default_factory=IdSet)
    unrepairable: dict[str, IdSet] = field(default_factory=dict[str, IdSet])

    def next_epoch(self) -> Ledger:
        """An empty ledger of the same stage, for ids that start again."""
        return Ledger(
            self.stage,
            self.stage_id,
            self.input_channel,
            self.output_channel,
            self.group,
            self.client_set,
            incarnation=self.incarnation,
            started=self.started,
            epoch=self.epoch + 1,
            file=self.file,
            run=self.run,
            closed=self.closed,
            sources=[*self.sources],
            lap=self.lap + 1,
        )

    def begin(self, incarnation: int) -> None:
        """Record which process of the stage writes it, and its start time."""
        self.incarnation = incarnation
        self.started = time.time()

    @property
    def process(self) -> tuple[int, float]:
        """Identity of the process, which orders the processes of a stage."""
        return self.incarnation, self.started

    def publish(self, value: int) -> None:
        """An id was published."""
        published = self.published
        if value in published:
            self.repeated.add(value)
        else:
            published.add(value)

    def skip(self, value: int) -> None:
        """An initial update arrived, which is not processed."""
        self.received.add(value)
        self.skipped.add(value)

    def reject(self, policy: str, value: int) -> None:
        """An id was dropped by a named policy."""
        self.rejected.setdefault(policy, IdSet()).add(value)

    def fail(self, error: str, value: int) -> None:
        """Processing an id caused an error."""
        self.failed.setdefault(error, IdSet()).add(value)

    def fail_late(self, error: str, ids: IdSet) -> IdSet:
        """Record a later error of ids that count as processed or have no fate; returns these ids.

        Only ids of this ledger are returned, not those of another epoch.
        """
        known = (ids & self.received) - self.fates(but=("processed", "filtered"), near=ids)
        if known:
            self.processed.remove(known)
            self.filtered.remove(known)
            self.failed.setdefault(error, IdSet()).update(known)
        return known

    def fates(self, but: Collection[str] = (), near: IdSet | None = None) -> IdSet:
        """Ids that have a fate.

        Args:
            but: names of fates to exclude.
            near: only ids from the first to the last of these are considered; None: all.
        """
        plain = ("processed", "filtered", "skipped", "left")
        found = [
            *(getattr(self, name) for name in plain if name not in but),
            *self.rejected.values(),
            *self.failed.values(),
        ]
        return union(found if near is None else [ids.near(near) for ids in found])

    def without_fate(self) -> IdSet:
        """Ids that were received and have no fate."""
        return self.received - self.fates()

    @property
    def clean(self) -> bool:
        """Whether nothing was lost or dropped."""
        noted = (
            self.missed, self.unknown, self.left, self.skipped, self.duplicate, self.repeated,
            self.excused, *self.rejected.values(), *self.failed.values(),
        )  # fmt: skip
        plain = not self.anonymous and self.asked is None
        return plain and not any(noted) and not self.without_fate()

    def to_dict(self) -> dict[str, object]:
        """The ledger as plain values, for files and pipes."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Ledger:
        """The ledger that `to_dict` wrote.

        Raises:
            LedgerError: unknown or malformed entries.
        """
        try:
            ledger = cls(**values)
            for name in _SETS:
                if name in values:
                    setattr(ledger, name, IdSet.from_list(values[name]))
            if values.get("asked") is not None:
                ledger.asked = IdSet.from_list(values["asked"])
            for name in _BY_REASON:
                setattr(
                    ledger,
                    name,
                    {reason: IdSet.from_list(ids) for reason, ids in getattr(ledger, name).items()},
                )
        except (TypeError, ValueError, AttributeError) as error:
            raise LedgerError(f"malformed entry: {error}") from error
        return ledger


def _plain(value: object) -> object:
    if isinstance(value, IdSet):
        return value.to_list()
    if isinstance(value, dict):
        by_reason = cast("dict[str, IdSet]", value)
        return {reason: ids.to_list() for reason, ids in by_reason.items()}
    return value


def union(sets: Iterable[IdSet]) -> IdSet:
    """All ids that are in any of the sets."""
    parts = [ids.ranges() for ids in sets if ids]
    return IdSet.of_ranges(np.concatenate(parts)) if parts else IdSet()


def wanted(ledgers: Sequence[Ledger]) -> IdSet | None:
    """The ids that the stages requested; None if one of them takes all."""
    asked = [one.asked for one in ledgers]
    return None if None in asked else union(ids for ids in asked if ids is not None)


def merged(ledgers: Sequence[Ledger]) -> Ledger:
    """Merge the ledgers of a stage: an id has each fate that it has in one of them."""
    total = replace(
        ledgers[0],
        **{name: union(getattr(one, name) for one in ledgers) for name in _SETS},
        **{name: _by_reason(getattr(one, name) for one in ledgers) for name in _BY_REASON},
        went_back=sum(one.went_back for one in ledgers),
        anonymous=sum(one.anonymous for one in ledgers),
        asked=wanted(ledgers),
        closed=all(one.closed for one in ledgers),
        opened=any(one.opened for one in ledgers),
        crowded=sum(one.crowded for one in ledgers),
        newest=max((one.newest for one in ledgers if one.newest is not None), default=None),
    )
    return total


def _by_reason(found: Iterable[dict[str, IdSet]]) -> dict[str, IdSet]:
    gathered: dict[str, list[IdSet]] = {}
    for by_reason in found:
        for reason, ids in by_reason.items():
            gathered.setdefault(reason, []).append(ids)
    return {reason: union(sets) for reason, sets in gathered.items()}


def read_ledgers(path: str | Path) -> list[Ledger]:
    """Read the ledgers of one file.

    Raises:
        LedgerError: the file is missing, or is not a ledger.
    """
    try:
        content = msgspec.json.decode(Path(path).read_bytes(), type=_File)
    except OSError as error:
        raise LedgerError(f"cannot read ledger {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise LedgerError(f"{path} is not a ledger: {error}") from error
    if content.format not in _READ:
        raise LedgerError(f"{path} is a ledger of another version: {content.format}, not {FORMAT}")
    try:
        return [Ledger.from_dict(entry) for entry in content.stages]
    except LedgerError as error:
        raise LedgerError(f"{path}: {error}") from error


class _File(msgspec.Struct):
    format: str
    stages: list[dict[str, object]]
