"""Ledgers are written whatever the disk does, and cost nothing where nobody asked for one."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

import pytest

from pvapy_stream.accounting.account import MOST_EPOCHS, Account
from pvapy_stream.accounting.audit_result import audit
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.keeper import LedgerKeeper
from pvapy_stream.accounting.ledger import Ledger, read_ledgers


def ledger() -> Ledger:
    return Ledger("consumer", 1, "in", received=IdSet([1, 2]), processed=IdSet([1, 2]))


def test_a_ledger_is_open_until_the_end(tmp_path: Path) -> None:
    file = tmp_path / "ledger.json"
    keeper = LedgerKeeper(file, lambda: [ledger()])
    keeper.keep()
    assert not read_ledgers(file)[0].closed
    file.unlink()
    keeper.keep()
    assert not file.exists(), "it is not time yet"
    assert keeper.close() == ""
    assert read_ledgers(file) == [ledger()]
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_is_whole_at_any_time_and_on_disk_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, on_disk = tmp_path / "ledger.json", []
    fsync = os.fsync

    def noted(handle: int) -> None:
        on_disk.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    keeper = LedgerKeeper(file, lambda: [ledger()], period=0)
    keeper.write(final=False)
    assert on_disk == []
    with file.open("rb") as before:
        whole = file.read_bytes()
        keeper.write(final=False)
        # Who reads it meanwhile has the old one.
        assert before.read() == whole
        assert file.stat().st_ino != os.fstat(before.fileno()).st_ino
    keeper.close()
    assert [Path(one).parent for one in on_disk] == [tmp_path, tmp_path.parent]
    assert on_disk[1] == str(tmp_path)


def test_a_failure_is_logged_once_tried_again_and_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "folder" / "ledger.json"
    keeper = LedgerKeeper(file, lambda: [ledger()], period=0)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            keeper.write(final=False)
    assert len(caplog.records) == 1
    assert "cannot write ledger" in keeper.problem
    assert keeper.close() == keeper.problem
    file.parent.mkdir()
    assert keeper.close() == ""
    assert read_ledgers(file)[0].closed


def test_nothing_is_built_without_a_file() -> None:
    keeper = LedgerKeeper(None, lambda: pytest.fail("built"))
    keeper.keep()
    assert keeper.close() == ""


def test_late_news_go_to_the_oldest_epoch_that_waits() -> None:
    account = Account(Ledger("consumer"))
    for _ in range(2):
        for value in range(5):
            account.ledger.received.add(value)
        account.begin_epoch()
    assert account.confirm(IdSet([0, 1, 2])) == 3
    assert account.confirm(IdSet([1, 2])) == 2
    first, second, _ = account.ledgers
    assert (list(first.processed), list(second.processed)) == ([0, 1, 2], [1, 2])
    assert account.fail_late("disk full", IdSet([2, 3, 9])) == 2
    assert list(first.failed["disk full"]) == [2, 3]
    assert list(first.processed) == [0, 1]


def test_epochs_are_bounded() -> None:
    account = Account(Ledger("consumer"))
    account.ledger.missed.add(1)
    while account.begin_epoch():
        account.ledger.missed.add(1)
    assert len(account.ledgers) == MOST_EPOCHS
    assert account.ledger.epoch == MOST_EPOCHS


def _acquisitions(n: int, lost_in: Collection[int] = (), wrong_in: Collection[int] = ()) -> Account:
    """What a stage writes of acquisitions that begin with id 1 each."""
    account = Account(Ledger("consumer", 1, "detector"))
    for number in range(n):
        if number:
            account.begin_epoch()
        for value in range(1, 6):
            if number in lost_in and value == 3:
                account.ledger.missed.add(value)
                continue
            account.ledger.received.add(value)
            if number in wrong_in and value == 4:
                account.ledger.fail("process", value)
            else:
                account.ledger.processed.add(value)
    return account


@pytest.mark.parametrize("lost_in", [5, MOST_EPOCHS + 5, MOST_EPOCHS + 29])
def test_what_was_lost_in_one_of_many_acquisitions_is_named(lost_in: int) -> None:
    account = _acquisitions(MOST_EPOCHS + 30, [lost_in])
    assert len(account.ledgers) == MOST_EPOCHS
    assert account.ledger.epoch == MOST_EPOCHS + 30
    assert account.left_out == 30 * 5
    result = audit(account.ledgers)
    assert not result.ok
    assert "id 3 lost" in result.verdict
    assert result.without_fate == 1
    assert any("30 of its epochs are not included" in note for note in result.notes)
    assert audit(_acquisitions(MOST_EPOCHS + 30).ledgers).ok


def test_more_acquisitions_with_drops_than_there_is_room_for_are_no_success() -> None:
    n = MOST_EPOCHS + 30
    account = _acquisitions(n, [n - 5], range(n))
    assert len(account.ledgers) == MOST_EPOCHS
    result = audit(account.ledgers)
    assert not result.ok
    assert "started again 30 times more than" in result.verdict


def test_a_source_of_many_acquisitions_published_what_arrived() -> None:
    n = MOST_EPOCHS + 30
    source = Account(Ledger("sim", 1, "", "detector"))
    for number in range(n):
        if number:
            source.begin_epoch()
        for value in range(1, 6):
            source.ledger.publish(value)
    # What it left out is not what the consumer left out.
    assert audit([*source.ledgers, *_acquisitions(n).ledgers]).ok
    result = audit([*source.ledgers, *_acquisitions(n, [7]).ledgers])
    assert "id 3 lost between sim 1 and consumer 1" in result.verdict
