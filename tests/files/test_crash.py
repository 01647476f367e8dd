from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.errors import FileError
from pvapy_stream.files.completeness import verify
from pvapy_stream.files.record import NOT_WRITTEN
from pvapy_stream.files.repair import repair
from pvapy_stream.files.superblock import lookup3
from tests.files.support import WRITE_FOR_EVER, frame, pixels, start, write, writer

KILLED_AT_ITS_BEGIN = """
import os, sys
from pathlib import Path
import numpy as np
from pvapy_stream.files import nexus_layout
nexus_layout.make_tree = lambda *_: os.kill(os.getpid(), 9)
nexus_layout.NexusFile(Path(sys.argv[1]), (8, 8), np.dtype("u1"))
"""


def test_a_writer_that_is_killed_while_it_makes_its_file_leaves_nothing_to_save(
    tmp_path: Path,
) -> None:
    part = tmp_path / "a.h5.part"
    words = [sys.executable, "-c", KILLED_AT_ITS_BEGIN, tmp_path / "a.h5"]
    subprocess.run(words, timeout=60, check=False)
    assert part.exists()
    with pytest.raises(FileError, match="no image can be read; its writer was killed before"):
        repair(part)
    assert part.exists()


@pytest.mark.parametrize("codec", ["none", "bslz4"])
def test_a_killed_writer_loses_its_last_second_at_most(tmp_path: Path, codec: str) -> None:
    part = tmp_path / "a.h5.part"
    told: list[tuple[int, float]] = []
    process = start(WRITE_FOR_EVER, tmp_path / "a.h5", codec)
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stdout:
        number, when = line.split()
        told.append((int(number), float(when)))
        if float(when) - told[0][1] > 2.5:
            process.kill()
            break
    process.wait(10)
    told += [(int(a), float(b)) for a, b in (line.split() for line in process.stdout)]
    assert process.stdin is not None
    process.stdin.close()
    process.stdout.close()
    process.stderr.close()
    safe = max(number for number, when in told if when < told[-1][1] - 1.0)

    with h5py.File(part, "r", swmr=True) as file:
        n = file["entry/data/id"].shape[0]
        assert n >= safe
        assert np.array_equal(file["entry/data/data"][n - 1], pixels(n))
    before = verify(part)
    assert before.state == "not closed"
    assert before.n_checked == n
    assert len(before.problems) == 1
    assert "--repair" in before.problems[0]

    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    assert "truncated" in verify(part).problems[0]
    path, n_images = repair(part)
    assert 0 < n_images < n
    assert (tmp_path / "a.h5.part.damaged").read_bytes() == whole[: len(whole) // 2]
    found = verify(path)
    assert (found.state, found.n_images, found.problems) == ("recovered", n_images, [])
    with h5py.File(path) as file:
        for number, image in zip(file["entry/data/id"], file["entry/data/data"], strict=True):
            assert np.array_equal(image, pixels(int(number)))
    path.unlink()
    part.write_bytes(whole)

    path, n_images = repair(part)
    assert path == tmp_path / "a.h5"
    assert n_images == n
    assert not part.exists()
    after = verify(path)
    assert after.ok
    assert (after.state, after.n_images, str(after.ids)) == ("recovered", n, f"1-{n}")
    with h5py.File(path, "r+") as file:
        assert all(
            np.array_equal(image, pixels(i)) for i, image in enumerate(file["entry/data/data"], 1)
        )
        late = file["entry/attributes/late"]
        assert late[()].tolist() == [0] * 50 + list(range(51, n + 1))
        # The end of the file is where it is: what is added falls on nothing.
        file["more"] = np.arange(100000)
    assert verify(path).ok


def test_what_cannot_be_recovered(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="whole"):
        repair(write(tmp_path / "a.h5", [1]))
    (tmp_path / "no.h5.part").write_bytes(b"nothing")
    with pytest.raises(FileError, match="cannot read"):
        repair(tmp_path / "no.h5.part")
    with pytest.raises(FileError, match=r"cannot recover .*No such file"):
        repair(tmp_path / "missing.h5.part")
    (tmp_path / "a.h5.part").touch()
    with pytest.raises(FileError, match=r"a\.h5 exists"):
        repair(tmp_path / "a.h5.part")


def test_lookup3_is_that_of_hdf5(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", libver="latest"):
        pass
    block = (tmp_path / "a.h5").read_bytes()[:48]
    assert lookup3(block[:44]) == int.from_bytes(block[44:], "little")


@pytest.mark.parametrize("codec", ["none", "bslz4"])
@pytest.mark.parametrize("seen_before", [True, False])
def test_a_full_disk_stops_with_a_readable_file(
    small_disk: Path, codec: str, seen_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not seen_before:
        # As with a quota: HDF5 meets it.
        monkeypatch.setattr("pvapy_stream.files.rows.check_space", lambda *_: None)
    ledger = Ledger("consumer", 1)
    made = writer(small_disk / "a.h5", compression=codec, account=lambda: ledger)
    rng = np.random.default_rng(1)
    number = 0

    def go_on() -> None:
        nonlocal number
        for number in range(1, 200):
            ledger.received.add(number)
            image = rng.integers(0, 60000, (256, 256)).astype("u2")
            made.write(frame(number).replace(image=image))
            ledger.processed.add(number)

    with pytest.raises(FileError, match=r"a\.h5\.part: no space left on device"):
        go_on()
    assert number > 30
    ledger.fail("process: FileError", number)
    with pytest.raises(FileError, match="no space left"):
        made.write(frame(number + 1))
    made.close(ledger)
    report = verify(small_disk / "a.h5")
    assert report.state == "closed"
    assert report.problems == []
    assert report.n_images == made.n_images
    # What is not in the file is in its record: the one that failed, and those before it that
    # were still being compressed.
    lost = {n for ids in report.lost.values() for n in ids}
    assert lost == set(range(report.n_images + 1, number + 1))
    assert set(report.lost) <= {"failed, process: FileError", f"failed, {NOT_WRITTEN}"}
    with h5py.File(small_disk / "a.h5") as file:
        assert "no space left" in file["entry/ended/description"].asstr()[()]
