"""The ledgers of one input of a stage: one for each epoch of its ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger

# Ids may go back more often: then those epochs are left out in which nothing was lost or dropped.
# If there are no such epochs, what follows stays in the last one.
MOST_EPOCHS = 256


class Account:
    """Ledgers of what came by one input.

    Attributes:
        ledger: of the present epoch.
        ledgers: of all epochs that are kept, in order.
        left_out: how many ids were processed in those that are not.
    """

    __slots__ = ("ledger", "ledgers", "left_out")

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.ledgers = [ledger]
        self.left_out = 0

    def begin_epoch(self) -> bool:
        """Begin a ledger for ids that start again; False when there is no room for it."""
        if len(self.ledgers) >= MOST_EPOCHS and not self._leave_one_out():
            self.ledger.crowded += 1
            return False
        self.ledger = self.ledger.next_epoch()
        self.ledgers.append(self.ledger)
        return True

    def _leave_one_out(self) -> bool:
        """Leave out the oldest epoch of which there is nothing to tell; False if there is none."""
        for number, one in enumerate(self.ledgers):
            if one.clean:
                self.left_out += len(one.processed)
                del self.ledgers[number]
                return True
        return False

    def note_late_start(self, value: int, first: int = 1, but: IdSet | None = None) -> IdSet:
        """Ids start again: whether any were sent before `value` is unknown, if they may have been.

        Args:
            value: the first id that came in this epoch, or could still come.
            first: the first that may have been sent; smaller ones that came earlier may be, too.
            but: ids that are known: they came in another way, or were dropped on purpose.

        Returns:
            the ids that are unknown.
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
        """Ids that were received are processed now; how many they were."""
        return self._share_out(ids, _confirm)

    def fail_late(self, error: str, ids: IdSet) -> int:
        """Ids that were taken met an error afterwards; how many they were."""
        return self._share_out(ids, lambda ledger, some: ledger.fail_late(error, some))

    def _share_out(self, ids: IdSet, take: Callable[[Ledger, IdSet], IdSet]) -> int:
        """Give ids to the oldest epochs that wait for them."""
        taken = 0
        for ledger in self.ledgers:
            if not ids:
                break
            known = take(ledger, ids)
            taken += len(known)
            ids = ids - known
        return taken

    def plain(self, closed: bool) -> list[dict[str, Any]]:
        """The ledgers for files and pipes."""
        return [{**one.to_dict(), "closed": closed} for one in self.ledgers]


def _confirm(ledger: Ledger, ids: IdSet) -> IdSet:
    known = ids & ledger.received
    if known:
        known = known - ledger.fates(near=known)
        ledger.processed.update(known)
    return known
