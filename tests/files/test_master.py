from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.errors import FileError
from pvapy_stream.files.completeness import verify
from pvapy_stream.files.master import make_master
from pvapy_stream.files.names import check_parallel
from tests.files.support import frame, pixels, write, writer


def check(master: Path, ids: list[int], swmr: bool = False) -> None:
    with h5py.File(master, swmr=swmr) as file:
        data = file["entry/data/data"]
        assert file["entry/data/id"][()].tolist() == ids
        assert len(data) == len(ids)
        for row, number in enumerate(ids):
            assert np.array_equal(data[row], pixels(number))
        assert file["entry/data/time"][()].tolist() == [n * 1000 for n in ids]
        assert file["entry/attributes/exposure"][()].tolist() == [n / 2 for n in ids]


@pytest.mark.parametrize("run", [1, 3])
def test_files_of_parallel_writers_are_shown_in_order(tmp_path: Path, run: int) -> None:
    shares: list[list[int]] = [[], [], []]
    for number in range(1, 101):
        shares[(number - 1) // run % 3].append(number)
    files = [
        write(tmp_path / f"{k}.h5", share, compression=("none", "bslz4", "zstd")[k])
        for k, share in enumerate(shares)
    ]
    assert make_master(files, tmp_path / "all.h5") == 100
    check(tmp_path / "all.h5", list(range(1, 101)))
    with h5py.File(tmp_path / "all.h5") as file:
        # Regular shares: one pattern each, not one for each image, and the last run.
        assert len(file["entry/data/data"].virtual_sources()) <= 6
    # Of 100 images in runs, single files have gaps that no ledger explains; the whole has none.
    report = verify(tmp_path / "all.h5")
    assert report.lost == {}


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(owners=st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_any_share_of_ids(tmp_path_factory: pytest.TempPathFactory, owners: list[int]) -> None:
    folder = tmp_path_factory.mktemp("shares")
    files = []
    for owner in sorted(set(owners)):
        ledger = Ledger("consumer", owner)
        ids = [number for number, o in enumerate(owners) if o == owner]
        for number in ids:
            ledger.received.add(number)
        files.append(write(folder / f"{owner}.h5", ids, ledger))
    make_master(files, folder / "all.h5")
    check(folder / "all.h5", list(range(len(owners))))
    assert verify(folder / "all.h5").ok


def test_a_master_moves_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "here" / "data").mkdir(parents=True)
    files = [write(tmp_path / "here" / "data" / f"{k}.h5", [k]) for k in (1, 2)]
    make_master(files, tmp_path / "here" / "all.h5")
    shutil.move(tmp_path / "here", tmp_path / "there")
    check(tmp_path / "there" / "all.h5", [1, 2])
    assert verify(tmp_path / "there" / "all.h5").ok


def test_files_that_are_still_written_are_shown_as_they_are(tmp_path: Path) -> None:
    one = write(tmp_path / "1.h5", [1, 3])
    with writer(tmp_path / "2.h5") as made:
        made.write(frame(2))
        made.flush()
        part = tmp_path / "2.h5.part"
        shutil.copy(part, tmp_path / "copy.h5.part")  # HDF5 knows its own open files
        assert make_master([one, tmp_path / "copy.h5.part"], tmp_path / "now.h5") == 3
        made.write(frame(4))
    check(tmp_path / "now.h5", [1, 2, 3], swmr=True)
    make_master([one, tmp_path / "2.h5"], tmp_path / "now.h5", overwrite=True)
    check(tmp_path / "now.h5", [1, 2, 3, 4])


def test_what_a_master_cannot_show(tmp_path: Path) -> None:
    one = write(tmp_path / "1.h5", [1])
    with writer(tmp_path / "2.h5") as made:
        made.write(frame(2, (4, 4)))
    target = tmp_path / "all.h5"
    with pytest.raises(FileError, match="make a master of each kind"):
        make_master([one, made.files[0]], target)
    with pytest.raises(FileError, match="no files are given"):
        make_master([], target)
    with pytest.raises(FileError, match="cannot read"):
        make_master([tmp_path / "no.h5"], target)
    h5py.File(tmp_path / "other.h5", "w").close()
    with pytest.raises(FileError, match="not written by this program"):
        make_master([tmp_path / "other.h5"], target)
    make_master([one], target)
    with pytest.raises(FileError, match="exists"):
        make_master([one], target)
    with pytest.raises(FileError, match="is a master itself"):
        make_master([target], tmp_path / "more.h5")
    assert not list(tmp_path.glob("*.part"))


def test_a_master_whose_file_is_missing_or_damaged(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{k}.h5", [k]) for k in (1, 2, 3)]
    make_master(files, tmp_path / "all.h5")
    files[1].unlink()
    report = verify(tmp_path / "all.h5")
    assert not report.ok
    assert "2.h5" in report.problems[0]
    make_master([files[0], files[2]], tmp_path / "two.h5")
    assert {k: str(v) for k, v in verify(tmp_path / "two.h5").lost.items()} == {
        "in none of its files": "2"
    }


def test_names_of_parallel_writers() -> None:
    check_parallel("{processorId}.h5", (1, 2), rotates=False)
    check_parallel("one.h5", (1,), rotates=False)
    with pytest.raises(Exception, match="several consumers"):
        check_parallel("{fileId}.h5", (1, 2), rotates=True)
