"""The ledgers of one input of a stage: one for each epoch of its ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger

# Ids that go back more often than this are no epochs: what follows stays in the last one.
MOST_EPOCHS = 256


class Account:
    """Ledgers of what came by one input.

    Attributes:
        ledger: of the present epoch.
        ledgers: of all epochs, in order.
    """

    __slots__ = ("ledger", "ledgers")

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.ledgers = [ledger]

    def begin_epoch(self) -> bool:
        """Begin a ledger for ids that start again; False when there are too many."""
        if len(self.ledgers) >= MOST_EPOCHS:
            return False
        self.ledger = self.ledger.next_epoch()
        self.ledgers.append(self.ledger)
        return True

    def note_late_start(self, value: int, first: int = 1) -> IdSet:
        """Ids start again: whether any were sent before `value` is unknown, if they may have been.

        Args:
            value: the first id that came in this epoch, or could still come.
            first: the first that may have been sent; smaller ones that came earlier may be, too.

        Returns:
            the ids that are unknown.
        """
        firsts = [(one.received - one.skipped).first for one in self.ledgers]
        unknown = IdSet()
        if value > (low := min([first, *(one for one in firsts if one is not None)])):
            unknown.add_range(low, value - 1)
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
