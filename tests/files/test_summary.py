"""The last line of a run, and what files decide in ledgers."""

from __future__ import annotations

from pathlib import Path

from pvapy_stream.accounting.comparison import accounts
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.files.file_witness import Witness, witness
from pvapy_stream.files.nexus import FrameWriter
from pvapy_stream.files.record import NOT_WRITTEN
from pvapy_stream.files.summary import (
    NOT_IN_FILE,
    decided,
    decided_by_files,
    lines_of,
    unsaved,
)
from pvapy_stream.settings import FileSettings
from tests.files.support import frame, write, writer


def test_the_sum_of_a_run_names_what_is_in_no_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a b.h5", [1, 2, 3])
    part = path.with_name("a b.2.h5.part")
    with writer(tmp_path / "a b.2.h5") as made:
        made.write(frame(5))
        made.flush()
        part.with_name("copy").write_bytes(part.read_bytes())
    (tmp_path / "a b.2.h5").unlink()
    part.with_name("copy").rename(part)
    ledger = Ledger("consumer", 1)
    for number in range(8):
        ledger.received.add(number)
        ledger.processed.add(number)
    ledger.skipped.add(0)
    ledger.missed.add(9)
    ledger.fail_late(NOT_WRITTEN, IdSet([6]))
    result = unsaved([ledger], map(witness, (path, part)))
    assert not result.ok
    assert lines_of(result, 2) == [
        f"{part} was not closed; 1 images in it can be read; complete it with:"
        f" pvapy-stream verify --repair '{part}'",
        "4 of 8 ids are in 2 files; 4 are not: missed: 1 (9); failed, not written: 1 (6);"
        " received and not in the file: 2 (4,7)",
    ]
    assert unsaved([Ledger("consumer", 1)], [witness(path)]).ok
    upstream = Ledger("consumer", 1, missed=IdSet([4]))
    assert not unsaved([upstream], [witness(path)]).ok
    assert unsaved([upstream], [witness(path)]).arrived_ok
    assert not unsaved([upstream], [witness(path), witness(part)]).arrived_ok


def test_files_decide_what_was_processed() -> None:
    first, second = Ledger("consumer", 1, "in"), Ledger("consumer", 1, "in")
    other = Ledger("consumer", 2, "in")
    for number in range(1, 11):
        first.received.add(number)
        first.processed.add(number)
        other.received.add(number)
        other.processed.add(number)
    for number in range(15, 20):
        second.received.add(number)
    second.processed = IdSet(range(15, 18))
    second.fail(NOT_WRITTEN, 18)
    second.left.add(19)
    second.missed = IdSet(range(11, 15))
    files = [
        Witness(Path("a.h5.part"), IdSet(range(1, 8)), 7, stage="consumer 1", input_channel="in"),
        Witness(Path("a.2.h5"), IdSet(range(12, 20)), 8, True, "consumer 1", "in"),
        Witness(Path("b.h5"), problem="no file"),
    ]
    changed, notes = decided([first, second, other], files)
    assert str(changed[0].processed) == "1-7"
    assert str(changed[0].failed[NOT_IN_FILE]) == "8-10"
    assert str(changed[1].processed) == "12-19"
    assert (changed[1].failed, str(changed[1].missed), str(changed[1].left)) == ({}, "11", "")
    assert changed[2].to_dict() == other.to_dict()
    assert str(first.processed) == "1-10"
    assert notes == [
        "consumer 1: 3 ids that its ledger calls processed are in no file: 8-10",
        "consumer 1: 5 ids are in its files that its ledger does not call processed: 12-14,18-19",
    ]
    assert decided([other], files) == ([other], [])


def test_what_a_killed_process_wrote_is_its_own_though_it_was_started_again() -> None:
    """It was killed after its first flush, and before its ledger called that processed."""
    killed = Ledger("consumer", 1, "in", started=1.0, closed=False)
    again = Ledger("consumer", 1, "in", incarnation=2, started=2.0)
    killed.received.add_range(1, 10)
    again.received.add_range(20, 22)
    again.processed.add_range(20, 21)
    again.failed["full"] = IdSet([22])
    seen = Witness(
        Path("a.h5.part"), IdSet([*range(1, 13), 20, 21, 22]), 15, True, "consumer 1", "in"
    )
    found, _ = decided([killed, again], [seen])
    assert [str(one.received) for one in found] == ["1-12", "20-22"]
    assert [str(one.processed) for one in found] == ["1-12", "20-22"]
    (account,) = accounts(found)
    assert not account.without_fate
    assert not account.dropped


def test_files_of_processes_that_no_ledger_names_yet_count(tmp_path: Path) -> None:
    """A writer of two processes is killed when its ledger has only the first."""
    output = str(tmp_path / "run.{processorId}.h5")
    for number in (1, 2):
        own = Ledger("consumer", number, "in", group="w")
        made = FrameWriter(FileSettings.of(output=output), number, lambda one=own: one, run="r")
        made.write(frame(number))
        made.close()
    ledger = Ledger("consumer", 1, "in", group="w", file=output, run="r", closed=False)
    found, notes = decided_by_files([ledger])
    assert {(one.stage, one.stage_id, one.group): list(one.processed) for one in found} == {
        ("consumer", 1, "w"): [1],
        ("consumer", 2, "w"): [2],
    }
    assert sum("1 ids are in its files" in note for note in notes) == 2
