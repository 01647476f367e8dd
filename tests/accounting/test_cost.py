"""What an id costs does not grow with the ids that came before, however irregular they are.

No time is measured: counted are the intervals that are looked at.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.idstore import IdStore
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import SequenceTracker

N = 20_000
IRREGULAR = list(itertools.accumulate(random.Random(1).choices((1, 2, 3, 5, 7), k=N)))


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many intervals were gathered or stored anew, in each call."""
    seen: list[int] = []
    ranges, rebuild = IdStore.ranges, IdStore._rebuild

    def counted(self: Any) -> Any:
        found = ranges(self)
        seen.append(len(found))
        return found

    def rebuilt(self: Any, found: Any) -> None:
        seen.append(len(found))
        rebuild(self, found)

    monkeypatch.setattr(IdStore, "ranges", counted)
    monkeypatch.setattr(IdStore, "_rebuild", rebuilt)
    return seen


def counted(tracker: SequenceTracker) -> None:
    """What a status asks."""
    last = tracker.last or 0
    assert len(tracker.missed) > 0
    assert not tracker.overdue(last)
    tracker.missed.between(last - 50, last)


def late(tracker: SequenceTracker) -> None:
    last = tracker.last or 0
    for value in (last + 2, last + 1):
        tracker.observe(value)


def told_of_filtered(tracker: SequenceTracker) -> None:
    last = tracker.last or 0
    tracker.observe(last + 10)
    tracker.excuse(IdSet(range(last + 1, last + 5)))


@pytest.mark.parametrize("what", [counted, late, told_of_filtered])
def test_a_stage_with_many_losses(
    looked_at: list[int], what: Callable[[SequenceTracker], None]
) -> None:
    tracker = SequenceTracker()
    for value in IRREGULAR:
        tracker.observe(value)
    missed = len(tracker.missed)
    assert sum(looked_at) < N
    looked_at.clear()
    for _ in range(200):
        what(tracker)
    assert sum(looked_at) < N
    assert len(tracker.missed) == missed + 200 * (5 if what is told_of_filtered else 0)


def test_a_writer_behind_a_hit_finder(looked_at: list[int]) -> None:
    account = Account(Ledger("consumer"))
    for value in IRREGULAR:
        account.ledger.received.add(value)
        account.ledger.processed.add(value)
    last = IRREGULAR[-1]
    looked_at.clear()
    for number in range(100):
        first = last + 10 * number
        new = IdSet(range(first + 2, first + 8, 2))
        for value in new:
            account.ledger.received.add(value)
        assert account.ledger.received & new == new
        assert account.confirm(new) == 3
        assert account.fail_late("disk full", IdSet([first + 4])) == 1
    # What failed late, out of order, is gathered now and then.
    assert sum(looked_at) < N
    assert len(account.ledger.processed) == N + 200
    assert len(account.ledger.failed["disk full"]) == 100
