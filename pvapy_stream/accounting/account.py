"""The ledgers of one input of a stage: one for each epoch of its ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger

# If there are more epochs, those in which nothing was lost or dropped are removed. If there are
# no such epochs, further ids are recorded in the last one.
MOST_EPOCHS = 256


class Account:
    """The ledgers of one input.

    Attributes:
        ledger: the ledger of the present epoch.
        ledgers: the ledgers of all epochs that are kept, oldest first.
        left_out: number of ids that were processed in the epochs that were removed.
    """

    __slots__ = ("ledger", "ledgers", "left_out")

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.ledgers = [ledger]
        self.left_out = 0

    def begin_epoch(self) -> bool:
        """Begin a new ledger, as ids started again; False if there are too many already."""
        if len(self.ledgers) >= MOST_EPOCHS and not self._remove_clean_epoch():
            self.ledger.crowded += 1
            return False
        self.ledger = self.ledger.next_epoch()
        self.ledgers.append(self.ledger)
        return True

    def _remove_clean_epoch(self) -> bool:
        """Remove the oldest epoch without losses or drops; False if there is none."""
        for number, one in enumerate(self.ledgers):
            if one.clean:
                self.left_out += len(one.processed)
                del self.ledgers[number]
                return True
        return False

    def note_late_start(self, value: int, first: int = 1, but: IdSet | None = None) -> IdSet:
        """Record the ids before the first one of an epoch that may have been sent as unknown.

        Args:
            value: the first id that arrived in this epoch, or can still arrive.
            first: the smallest id that may have been sent, unless an earlier epoch began lower.
            but: ids that are not unknown: they arrived through another input, or were dropped on
                purpose.

        Returns:
            the ids that were recorded.
        """
        firsts = [(one.received - one.skipped).first for one in self.ledgers]
        unknown = IdSet()
        if value > (low := min([first, *(one for one in firsts if one is not None)])):
            unknown.add_range(low, value - 1)
            if but:
                unknown = unknown - but
            self.ledger.unknown.update(unknown)
        return unknown

    def confirm(self, ids: IdSet) -> int:
        """Record received ids as processed; the number of ids that were recorded."""
        return self._each_epoch(ids, _confirm)

    def fail_late(self, error: str, ids: IdSet) -> int:
        """Record a later error of received ids; the number of ids that were recorded."""
        return self._each_epoch(ids, lambda ledger, some: ledger.fail_late(error, some))

    def reject_late(self, policy: str, ids: IdSet) -> int:
        """Record received ids as dropped by a policy; the number of ids that were recorded."""
        return self._each_epoch(ids, lambda ledger, some: _reject(ledger, policy, some))

    def _each_epoch(self, ids: IdSet, take: Callable[[Ledger, IdSet], IdSet]) -> int:
        """Call `take` for each epoch, oldest first, with the ids that no earlier epoch took."""
        taken = 0
        for ledger in self.ledgers:
            if not ids:
                break
            known = take(ledger, ids)
            taken += len(known)
            ids = ids - known
        return taken

    def plain(self, closed: bool) -> list[dict[str, Any]]:
        """The ledgers as plain values, for files and pipes; `closed` is an entry of each."""
        return [{**one.to_dict(), "closed": closed} for one in self.ledgers]


def _confirm(ledger: Ledger, ids: IdSet) -> IdSet:
    known = _without_fate(ledger, ids)
    ledger.processed.update(known)
    return known


def _reject(ledger: Ledger, policy: str, ids: IdSet) -> IdSet:
    known = _without_fate(ledger, ids)
    if known:
        ledger.rejected.setdefault(policy, IdSet()).update(known)
    return known


def _without_fate(ledger: Ledger, ids: IdSet) -> IdSet:
    known = ids & ledger.received
    return known - ledger.fates(near=known) if known else known
