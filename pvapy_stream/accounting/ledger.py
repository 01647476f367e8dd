"""The account of a stage: every id has a fate.

A stage writes down which ids it received, and for each of them whether it was processed, skipped
(an initial update), rejected (and by what), failed (and by which error) or left in a queue at stop;
which ids never arrived; and which it published. `audit` lays the ledgers of a run side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.errors import LedgerError

FORMAT = "pvapy_stream ledger 1"
_SETS = ("received", "processed", "skipped", "left", "missed", "published")
_BY_REASON = ("rejected", "failed")


@dataclass(slots=True)
class Ledger:
    """What one stage did with each id.

    Attributes:
        stage: kind of the stage: sim, mirror, consumer, collector.
        stage_id: its id.
        input_channel: channel it receives from; "" for a source.
        output_channel: channel it publishes on; "" for none.
        group: distributor group, or "" when it gets the whole stream.
        client_set: distributor set; all clients of a set get the same ids.
        received: ids that arrived, and for each of these one of the next five.
        processed: ids the processor took without error.
        skipped: initial updates that were not to be processed.
        rejected: ids by the queue or policy that rejected them.
        failed: ids by the error they met.
        left: ids that still waited when the time to drain was over.
        missed: ids that should have arrived and did not.
        published: ids that went out.
        went_back: how often an id was not larger than the one before: a repeat, or a source that
            started again.
        asked: ids it wanted, when it takes only a range of what its source has; None for all.
        anonymous: how many objects came whose structure has no id; none of the sets has them.
    """

    stage: str
    stage_id: int = 0
    input_channel: str = ""
    output_channel: str = ""
    group: str = ""
    client_set: str = ""
    received: IdSet = field(default_factory=IdSet)
    processed: IdSet = field(default_factory=IdSet)
    skipped: IdSet = field(default_factory=IdSet)
    left: IdSet = field(default_factory=IdSet)
    missed: IdSet = field(default_factory=IdSet)
    published: IdSet = field(default_factory=IdSet)
    rejected: dict[str, IdSet] = field(default_factory=dict)
    failed: dict[str, IdSet] = field(default_factory=dict)
    went_back: int = 0
    anonymous: int = 0
    asked: IdSet | None = None

    def reject(self, policy: str, value: int) -> None:
        """An id was dropped under a named policy."""
        self.rejected.setdefault(policy, IdSet()).add(value)

    def fail(self, error: str, value: int) -> None:
        """An id met an error."""
        self.failed.setdefault(error, IdSet()).add(value)

    def fail_late(self, error: str, ids: IdSet) -> None:
        """Ids that were written down as processed met an error afterwards."""
        known = ids & self.processed
        if known:
            self.processed = self.processed - known
            self.failed.setdefault(error, IdSet()).update(known)

    def without_fate(self) -> IdSet:
        """Ids that were received and of which nothing else is known."""
        known = union(
            [
                self.processed,
                self.skipped,
                self.left,
                *self.rejected.values(),
                *self.failed.values(),
            ]
        )
        return self.received - known

    def to_dict(self) -> dict[str, Any]:
        """For files and pipes: plain values only."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Ledger:
        """What `to_dict` wrote.

        Raises:
            LedgerError: unknown or malformed entries.
        """
        try:
            ledger = cls(**values)
            for name in _SETS:
                setattr(ledger, name, IdSet.from_list(getattr(ledger, name)))
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


def _plain(value: Any) -> Any:
    if isinstance(value, IdSet):
        return value.to_list()
    if isinstance(value, dict):
        by_reason = cast("dict[str, IdSet]", value)
        return {reason: ids.to_list() for reason, ids in by_reason.items()}
    return value


def union(sets: Iterable[IdSet]) -> IdSet:
    """All ids that are in any of the sets."""
    gathered = IdSet()
    for ids in sets:
        gathered.update(ids)
    return IdSet.of_ranges(gathered.ranges())


def wanted(ledgers: Sequence[Ledger]) -> IdSet | None:
    """What stages asked for together; None when one of them wants all."""
    asked = [one.asked for one in ledgers]
    return None if None in asked else union(ids for ids in asked if ids is not None)


def merged(ledgers: Sequence[Ledger]) -> Ledger:
    """One ledger of a stage that has several: an id has every fate it met in any of them."""
    total = Ledger.from_dict(ledgers[0].to_dict())
    for ledger in ledgers[1:]:
        for name in _SETS:
            getattr(total, name).update(getattr(ledger, name))
        for name in _BY_REASON:
            for reason, ids in getattr(ledger, name).items():
                getattr(total, name).setdefault(reason, IdSet()).update(ids)
        total.went_back += ledger.went_back
        total.anonymous += ledger.anonymous
        total.asked = wanted([total, ledger])
    return total


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
    if content.format != FORMAT:
        raise LedgerError(f"{path} is a ledger of another version: {content.format}, not {FORMAT}")
    try:
        return [Ledger.from_dict(entry) for entry in content.stages]
    except LedgerError as error:
        raise LedgerError(f"{path}: {error}") from error


class _File(msgspec.Struct):
    format: str
    stages: list[dict[str, Any]]
