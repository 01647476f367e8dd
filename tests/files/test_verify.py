from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import pytest

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.files.completeness import verify
from pvapy_stream.files.master import make_master
from pvapy_stream.files.record import LossRecord
from tests.files.support import frame, write, writer


def ledger_of(received: Any, **others: Any) -> Ledger:
    ledger = Ledger("consumer", 1)
    for number in received:
        ledger.received.add(number)
    for name, numbers in others.items():
        for number in numbers:
            getattr(ledger, name).add(number)
    return ledger


def test_a_whole_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", range(1, 11), ledger_of(range(11), skipped=[0]))
    report = verify(path)
    assert report.ok
    assert (report.state, report.n_images, report.n_checked) == ("closed", 10, 10)


@pytest.mark.parametrize("codec", ["none", "bslz4"])
def test_any_changed_byte_of_an_image_is_found(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path / "a.h5", range(10), compression=codec)
    with h5py.File(path) as file:
        info = file["entry/data/data"].id.get_chunk_info(4)
    for at in (0, info.size // 2, info.size - 1):
        data = bytearray(path.read_bytes())
        data[info.byte_offset + at] ^= 1
        path.write_bytes(data)
        report = verify(path)
        assert report.problems == ["1 images are damaged or missing: rows 4"]
        data[info.byte_offset + at] ^= 1
        path.write_bytes(data)
    assert verify(path).ok


def test_a_cut_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", range(10))
    path.write_bytes(path.read_bytes()[:-100])
    assert not verify(path).ok
    path.write_bytes(b"")
    assert verify(path).state == "unreadable"
    assert "no.h5" in verify(tmp_path / "no.h5").problems[0]


@pytest.mark.parametrize(
    ("ids", "message"),
    [([1, 2, 2, 3], "more than once: 2"), ([1, 5, 4, 6], "go back 1 times, first at row 2")],
)
def test_ids_that_do_not_increase(tmp_path: Path, ids: list[int], message: str) -> None:
    assert message in verify(write(tmp_path / "a.h5", ids)).problems[0]


def test_lengths(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", range(5))
    with h5py.File(path, "r+") as file:
        file["entry/data/time"].resize((4,))
    assert verify(path).problems == ["/entry/data/time has 4 rows, where there are 5 ids"]


def test_losses(tmp_path: Path) -> None:
    ledger = ledger_of([1, 2, 4, 5, 6, 7, 8], missed=[3], left=[5])
    ledger.reject("receiver queue", 6)
    ledger.fail("process: CodecError", 7)
    report = verify(write(tmp_path / "a.h5", [1, 2, 4], ledger))
    assert {what: str(ids) for what, ids in report.lost.items()} == {
        "missed": "3",
        "left in a queue": "5",
        "rejected, receiver queue": "6",
        "failed, process: CodecError": "7",
        "received and not in the file": "8",
    }
    assert report.n_lost == 5


def test_gaps_are_losses_only_when_no_ledger_explains_them(tmp_path: Path) -> None:
    # A consumer's share of a distributed stream has gaps.
    assert verify(write(tmp_path / "a.h5", [1, 3, 5], ledger_of([1, 3, 5]))).ok
    assert verify(write(tmp_path / "b.h5", [1, 3, 5])).n_lost == 2


def test_written_and_then_failed_is_no_loss(tmp_path: Path) -> None:
    # The image is in the file; what failed was to publish it.
    ledger = ledger_of([1, 2])
    ledger.fail("publishing: gone", 2)
    assert verify(write(tmp_path / "a.h5", [1, 2], ledger)).ok


def test_another_kind_of_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = [1]
    assert "not written by this program" in verify(tmp_path / "a.h5").problems[0]


def test_an_empty_stream_leaves_no_file(tmp_path: Path) -> None:
    with writer(tmp_path / "a.h5"):
        pass
    assert list(tmp_path.iterdir()) == []
    with writer(tmp_path / "b.h5") as made:
        made.write(frame(1))
        made.close()
    made.close()
    assert verify(tmp_path / "b.h5").ok


def test_what_was_filtered_out_is_no_loss(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", [1, 5])
    for known in (True, False):
        record = LossRecord(known=known, stage="consumer 1")
        for number in (1, 5):
            record.received.add(number)
        for number in (2, 3, 4, 6):
            record.filtered.add(number)
        record.missed.add(3)
        with h5py.File(path, "r+") as file:
            del file["entry/loss_record"]
            record.write(file["entry"])
        report = verify(path)
        assert report.ok, report
        assert str(report.filtered) == "2-4,6"
    make_master([path], tmp_path / "m.h5")
    report = verify(tmp_path / "m.h5")
    assert report.ok, report
    assert str(report.filtered) == "2-4,6"
    record.missed.add(7)
    with h5py.File(path, "r+") as file:
        del file["entry/loss_record"]
        record.write(file["entry"])
    assert {what: str(ids) for what, ids in verify(path).lost.items()} == {"missed": "7"}


def test_a_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", range(1, 4), ledger_of(range(1, 5), missed=[5]))
    with h5py.File(path, "r+") as file:
        del file["entry/loss_record/filtered"]
        del file["entry/loss_record/unknown"]
    assert {what: str(ids) for what, ids in verify(path).lost.items()} == {
        "missed": "5",
        "received and not in the file": "4",
    }


def test_what_is_unknown_is_a_loss_unless_the_file_has_it(tmp_path: Path) -> None:
    record = LossRecord(known=True)
    for number in (2, 3):
        record.unknown.add(number)
    assert {what: str(ids) for what, ids in record.losses(IdSet([1, 2])).items()} == {
        "unknown": "3"
    }
