"""The loss record of a file: the fates of the ids that are not in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, union

if TYPE_CHECKING:
    import h5py

CLOSED = "closed"
RECOVERED = "recovered"  # after its writer was killed

MISSED = "missed"
NOT_WRITTEN = "not written"
NOT_DECODABLE = "payload cannot be decoded"

_SETS = ("received", "skipped", "missed", "left", "filtered", "unknown", "repaired")
_BY_REASON = ("rejected", "failed")
_EVERYTHING = (-(2**62), 2**62)


class LossRecord(Struct):
    """Fates of ids, in the range of one file.

    Attributes:
        state: closed or recovered.
        known: whether the stage had a ledger.
        stage: kind and id of the stage that wrote the file, such as ``consumer 1``.
        received: all ids that arrived.
        skipped: initial updates, which were not to be written.
        missed: ids that should have arrived and did not.
        left: ids that still waited at the end.
        filtered: ids that were dropped on purpose before the writer; they are no loss.
        unknown: ids whose fate is not known.
        repaired: ids that came late, whatever the range of the file; they may follow larger ones.
        rejected: ids by the queue or policy that rejected them.
        failed: ids by the error that they caused.
    """

    state: str = CLOSED
    known: bool = False
    stage: str = ""
    received: IdSet = field(default_factory=IdSet)
    skipped: IdSet = field(default_factory=IdSet)
    missed: IdSet = field(default_factory=IdSet)
    left: IdSet = field(default_factory=IdSet)
    filtered: IdSet = field(default_factory=IdSet)
    unknown: IdSet = field(default_factory=IdSet)
    repaired: IdSet = field(default_factory=IdSet)
    rejected: dict[str, IdSet] = field(default_factory=dict)
    failed: dict[str, IdSet] = field(default_factory=dict)

    @classmethod
    def of(
        cls, ledger: Ledger | None, after: int | None = None, until: int | None = None
    ) -> LossRecord:
        """The part of a ledger for ids larger than `after` and up to `until`; None: no limit."""
        if ledger is None:
            return cls()
        first = _EVERYTHING[0] if after is None else after + 1
        last = _EVERYTHING[1] if until is None else until

        def cut(ids: IdSet) -> IdSet:
            ranges = np.clip(ids.ranges(), first, last + 1)
            return IdSet.of_ranges(ranges[ranges[:, 1] > ranges[:, 0]])

        def cut_all(by_reason: Mapping[str, IdSet]) -> dict[str, IdSet]:
            return {reason: found for reason, ids in by_reason.items() if (found := cut(ids))}

        return cls(
            known=True,
            stage=f"{ledger.stage} {ledger.stage_id}",
            received=cut(ledger.received),
            skipped=cut(ledger.skipped),
            missed=cut(ledger.missed),
            left=cut(ledger.left),
            filtered=cut(_filtered(ledger)),
            unknown=cut(_unknown(ledger)),
            repaired=ledger.repaired.copy(),
            rejected=cut_all(ledger.rejected),
            failed=cut_all(ledger.failed),
        )

    def losses(self, written: IdSet) -> dict[str, IdSet]:
        """Lost ids by their fate, without those in `written` and those that were filtered."""
        found = {
            MISSED: self.missed - self.filtered,
            "left in a queue": self.left,
            "unknown": self.unknown - self.filtered,
        }
        found |= {f"rejected, {reason}": ids for reason, ids in self.rejected.items()}
        found |= {f"failed, {reason}": ids for reason, ids in self.failed.items()}
        found = {what: rest for what, ids in found.items() if (rest := ids - written)}
        explained = union([written, self.skipped, self.filtered, *found.values()])
        unexplained = self.received - explained
        return {**found, "received and not in the file": unexplained} if unexplained else found

    def merge(self, other: LossRecord) -> None:
        """Add the record of another file to this one."""
        self.known &= other.known
        self.state = self.state if self.state == other.state else RECOVERED
        for name in _SETS:
            getattr(self, name).update(getattr(other, name))
        for name in _BY_REASON:
            for reason, ids in getattr(other, name).items():
                getattr(self, name).setdefault(reason, IdSet()).update(ids)

    def write(self, parent: h5py.Group) -> None:
        """Write it as `loss_record`, an NXcollection: (n, 2) arrays of first and last id."""
        group = parent.create_group("loss_record")
        group.attrs["NX_class"] = "NXcollection"
        group.attrs["state"] = self.state
        group.attrs["known"] = self.known
        group.attrs["stage"] = self.stage
        for name in _SETS:
            _write_ids(group, name, getattr(self, name))
        for name in _BY_REASON:
            reasons = group.create_group(name)
            reasons.attrs["NX_class"] = "NXcollection"
            for number, (reason, ids) in enumerate(getattr(self, name).items(), 1):
                _write_ids(reasons, f"reason_{number}", ids).attrs["reason"] = reason

    @classmethod
    def read(cls, parent: h5py.Group) -> LossRecord | None:
        """The record that `write` left; None for a file that was not closed."""
        group = parent.get("loss_record")
        if group is None:
            return None
        # Files of earlier versions do not have all of them.
        sets: dict[str, Any] = {name: _read_ids(group[name]) for name in _SETS if name in group}
        reasons: dict[str, Any] = {
            name: {str(data.attrs["reason"]): _read_ids(data) for data in group[name].values()}
            for name in _BY_REASON
        }
        attributes = group.attrs
        return cls(
            str(attributes["state"]),
            bool(attributes["known"]),
            str(attributes["stage"]),
            **sets,
            **reasons,
        )


def _filtered(ledger: Ledger) -> IdSet:
    """Ids that were dropped on purpose before the stage."""
    return ledger.excused


def _unknown(ledger: Ledger) -> IdSet:
    """Ids of which the stage does not know whether they were sent."""
    return ledger.unknown


# Returns the present ledger of the stage.
Account = Callable[[], Ledger | None]


def ids_of(ids: NDArray[np.int64]) -> IdSet:
    """The set of an array of ids."""
    ids = np.unique(ids)
    if not len(ids):
        return IdSet()
    starts = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 2) != 1)
    ends = np.append(starts[1:], len(ids)) - 1
    return IdSet.of_ranges(np.stack([ids[starts], ids[ends] + 1], axis=1))


def _write_ids(group: h5py.Group, name: str, ids: IdSet) -> h5py.Dataset:
    ranges = ids.ranges()
    data = group.create_dataset(name, data=np.stack([ranges[:, 0], ranges[:, 1] - 1], axis=1))
    data.attrs["count"] = len(ids)
    return data


def _read_ids(data: h5py.Dataset) -> IdSet:
    return IdSet.of_ranges(data[()].reshape(-1, 2) + np.array([0, 1]))
