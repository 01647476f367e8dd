"""Ledgers survive files; trackers know what did not come."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.keeper import write_ledgers
from pvapy_stream.accounting.ledger import Ledger, read_ledgers, union
from pvapy_stream.accounting.sequence import IdStep, SequenceTracker
from pvapy_stream.errors import LedgerError


@st.composite
def shares(draw: st.DrawFn) -> tuple[SequenceTracker, list[int], list[int]]:
    """A tracker, the ids of a client's share, and those of them that came."""
    n, updates = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    client, first = draw(st.integers(0, n - 1)), draw(st.integers(0, 100))
    share = [first + i for i in range(draw(st.integers(1, 90))) if i // updates % n == client]
    assume(share)
    lost = draw(st.lists(st.booleans(), min_size=len(share), max_size=len(share)))
    # The first one tells where the client stands in the stream.
    came = [share[0], *(i for i, gone in zip(share[1:], lost[1:], strict=True) if not gone)]
    return SequenceTracker((n - 1) * updates + 1, updates), share, came


@given(shares())
def test_missed_is_what_did_not_come(case: tuple[SequenceTracker, list[int], list[int]]) -> None:
    tracker, share, came = case
    assert all(tracker.observe(value) is IdStep.NEXT for value in came)
    assert list(tracker.missed) == [i for i in share if i not in came and i < came[-1]]
    late = [i for i in share if i > came[-1]]
    assert list(tracker.overdue(share[-1])) == late
    assert not tracker.overdue(came[-1])
    # Asking changes nothing.
    assert list(tracker.overdue(share[-1])) == late


def test_going_back_is_told_and_starts_anew() -> None:
    tracker = SequenceTracker()
    assert [tracker.observe(k) for k in (5, 6, 6)] == [IdStep.NEXT, IdStep.NEXT, IdStep.AGAIN]
    assert tracker.observe(1) is IdStep.BACK
    tracker.begin_epoch(1)
    assert [tracker.observe(k) for k in (2, 4)] == [IdStep.NEXT, IdStep.NEXT]
    assert tracker.n_restarts == 1
    assert list(tracker.missed) == [3]
    tracker.restart()
    assert tracker.observe(90) is IdStep.NEXT
    assert not tracker.missed
    assert not SequenceTracker().overdue(5)


def full_ledger() -> Ledger:
    ledger = Ledger("consumer", 2, "in", "out", "g", "A", went_back=3, anonymous=1)
    ledger.received = IdSet(range(10))
    ledger.processed = IdSet(range(1, 5))
    ledger.skipped = IdSet([0])
    ledger.left = IdSet([9])
    ledger.reject("queue full", 5)
    ledger.fail("process: ValueError", 6)
    ledger.missed = IdSet([20])
    ledger.published = IdSet(range(1, 5))
    return ledger


def test_ids_without_fate() -> None:
    assert list(full_ledger().without_fate()) == [7, 8]


def test_file_keeps_everything(tmp_path: Path) -> None:
    ledger = full_ledger()
    path = tmp_path / "ledger.json"
    write_ledgers(path, [ledger, ledger.to_dict(), Ledger("sim")])
    assert read_ledgers(path) == [ledger, ledger, Ledger("sim")]
    assert list(tmp_path.iterdir()) == [path]


def entry(text: str) -> str:
    return f'{{"format": "pvapy_stream ledger 1", "stages": [{text}]}}'


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "is not a ledger"),
        ("[]", "is not a ledger"),
        ('{"format": "other", "stages": []}', "of another version: other"),
        (entry("7"), "is not a ledger"),
        (entry('{"stage": "x", "y": 1}'), "malformed"),
        (entry('{"stage": "x", "left": [[0, 0, 0, 0]]}'), "malformed"),
        (entry('{"stage": "x", "failed": [1]}'), "malformed"),
    ],
)
def test_what_is_no_ledger_is_refused_by_name(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(LedgerError, match=rf"bad\.json.* {why}|bad\.json: {why}"):
        read_ledgers(path)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot read ledger"):
        read_ledgers(tmp_path / "none.json")
    with pytest.raises(LedgerError, match="cannot write ledger"):
        write_ledgers(tmp_path / "no" / "folder.json", [])


def test_union() -> None:
    assert list(union([IdSet([1, 2]), IdSet(), IdSet([2, 9])])) == [1, 2, 9]
    assert not union([])
