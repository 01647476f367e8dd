"""What a writer says it saved is in its file, whatever happens to it."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.errors import FileError
from pvapy_stream.files.completeness import verify
from pvapy_stream.files.file_witness import ids_in, witness
from pvapy_stream.files.nexus import FrameWriter
from pvapy_stream.files.record import NOT_WRITTEN
from pvapy_stream.files.repair import repair
from pvapy_stream.settings import FileSettings
from tests.files.support import frame, pixels, start, write, writer
from tests.support import rounds

# Says which ids it took, and which it saved, one line each.
_TELL = """
import sys, itertools
from pvapy_stream.files.nexus import FrameWriter
from pvapy_stream.settings import FileSettings
from tests.files.support import frame
settings = FileSettings.of(output=sys.argv[1], compression=sys.argv[2], images_per_file=400)
w = FrameWriter(settings, on_saved=lambda ids: [
    print("saved", a, b - 1, flush=True) for a, b in ids.ranges().tolist()])
for number in itertools.count(1):
    print("taken", number, flush=True)
    w.write(frame(number))
"""


# Meets the limit of the file size without having looked for it.
_TO_THE_LIMIT = """
import resource, sys
import pvapy_stream.files.rows
from pvapy_stream.errors import FileError
from tests.files.support import frame, writer
pvapy_stream.files.rows.check_space = lambda *_: None
resource.setrlimit(resource.RLIMIT_FSIZE, (1000000, 1000000))
w = writer(sys.argv[1])
try:
    for number in range(1, 5000):
        w.write(frame(number, (32, 32)))
        if number % 50 == 0:
            w.flush()
except FileError as error:
    print(error, flush=True)
try:
    w.close()
except FileError:
    pass
"""


def told_and_killed(process: subprocess.Popen[str], seed: int) -> tuple[int, IdSet]:
    """Kill a writer after a random number of lines: the last id it took, and those it saved."""
    n_lines = random.Random(seed).randrange(100, 4000)
    taken, saved = 0, IdSet()
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdin is not None
    for count, line in enumerate(process.stdout):
        if count == n_lines:
            process.kill()
        words = line.split()
        if not line.endswith("\n") or len(words) < 2:
            continue
        if words[0] == "taken":
            taken = int(words[1])
        elif len(words) == 3:
            saved.add_range(int(words[1]), int(words[2]))
    process.wait(20)
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()
    return taken, saved


def numbers_in(path: Path) -> list[int]:
    """Ids of a file, which its pixels tell again."""
    with h5py.File(path) as file:
        ids = file["entry/data/id"][()].tolist()
        for number, image in zip(ids, file["entry/data/data"], strict=True):
            assert np.array_equal(image, pixels(number))
    return ids


@pytest.mark.parametrize(
    ("seed", "codec"), [(seed, ("none", "bslz4")[seed % 2]) for seed in range(1, 1 + rounds(4))]
)
def test_what_a_killed_writer_said_it_saved_is_in_its_files(
    tmp_path: Path, seed: int, codec: str
) -> None:
    taken, saved = told_and_killed(start(_TELL, tmp_path / "{fileId:03d}.h5", codec), seed)
    found = IdSet()
    truth = IdSet()
    for path in sorted(tmp_path.iterdir()):
        seen = witness(path)
        assert seen.problem == ""
        assert seen.ids == ids_in(path, deep=True)
        assert seen.closed == (path.suffix == ".h5")
        found = found | seen.ids
        if not seen.closed:
            assert seen.repair_command == f"pvapy-stream verify --repair {path}"
            path, n_images = repair(path)
            assert n_images == seen.n_images
        ids = numbers_in(path)
        assert verify(path).problems == []
        truth = truth | IdSet(ids)
    assert found == truth
    assert not saved - truth
    whole = IdSet()
    whole.add_range(1, taken)
    assert not truth - whole


class Fates:
    """A writer, and what it says of its frames."""

    def __init__(self, path: Path, ledger: Ledger | None = None, **options: Any) -> None:
        self.saved = IdSet()
        self.lost: dict[str, IdSet] = {}
        self.failed: list[int] = []
        self.writer = FrameWriter(
            FileSettings.of(output=str(path), **options),
            account=lambda: ledger,
            on_saved=self.saved.update,
            on_lost=lambda ids, kind, _: self.lost.setdefault(kind, IdSet()).update(ids),
        )

    def write(self, numbers: range, shape: tuple[int, int] = (128, 128)) -> None:
        rng = np.random.default_rng(1)
        for number in numbers:
            image = rng.integers(0, 60000, shape).astype("u2")
            try:
                self.writer.write(frame(number).replace(image=image))
            except FileError:
                self.failed.append(number)

    def close(self) -> None:
        try:
            self.writer.close()
        except FileError:
            pass


@pytest.mark.parametrize("codec", ["none", "bslz4"])
@pytest.mark.parametrize("seen_before", [True, False])
def test_on_a_full_disk_every_frame_has_one_true_fate(
    small_disk: Path, codec: str, seen_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not seen_before:
        # As with a quota: HDF5 meets it.
        monkeypatch.setattr("pvapy_stream.files.rows.check_space", lambda *_: None)
    fates = Fates(small_disk / "a.h5", compression=codec)
    fates.write(range(1, 400))
    fates.close()
    (path,) = small_disk.iterdir()
    there = ids_in(path, deep=True)
    lost = fates.lost.get(NOT_WRITTEN, IdSet())
    assert fates.failed
    assert len(there) > 30
    assert fates.saved - lost == there
    assert not lost & there
    assert there | lost | IdSet(fates.failed) == IdSet(range(1, 400))
    assert len(there) + len(lost) + len(fates.failed) == 399


def test_a_limit_of_the_file_size_ends_in_a_file_that_is_closed(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    fates = Fates(tmp_path / "a.h5")
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, limits[1]))
    try:
        fates.write(range(1, 200))
        fates.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    report = verify(tmp_path / "a.h5")
    assert report.state == "closed"
    assert report.problems == []
    assert report.ids == fates.saved
    assert fates.saved | IdSet(fates.failed) == IdSet(range(1, 200))


def test_a_file_that_cannot_be_closed_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_end(*_: object) -> None:
        raise OSError(28, "No space left on device")

    fates = Fates(tmp_path / "a.h5")
    fates.write(range(1, 11))
    fates.writer.flush()
    monkeypatch.setattr("pvapy_stream.files.nexus_layout.complete", no_end)
    fates.close()
    seen = witness(tmp_path / "a.h5.part")
    assert (str(seen.ids), str(fates.saved), fates.lost) == ("1-10", "1-10", {})
    monkeypatch.undo()
    assert repair(seen.path)[1] == 10


@pytest.fixture(scope="module")
def without_end(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that met the limit of the file size."""
    path = tmp_path_factory.mktemp("limit") / "a.h5"
    out, _ = start(_TO_THE_LIMIT, path).communicate(timeout=60)
    assert "exceed the allowed size" in out
    return path.with_name("a.h5.part")


@pytest.mark.parametrize("cut", [0, 100, 20_000])
def test_a_file_without_its_end_is_read_as_far_as_it_goes(
    without_end: Path, tmp_path: Path, cut: int
) -> None:
    part = Path(shutil.copy(without_end, tmp_path))
    os.truncate(part, part.stat().st_size - cut)
    before = part.read_bytes()
    seen = witness(part)
    assert len(seen.ids) >= 50
    path, n_images = repair(part)
    assert n_images == seen.n_images
    if cut:
        assert (tmp_path / "a.h5.part.damaged").read_bytes() == before
    report = verify(path)
    assert (report.state, report.problems, report.ids) == ("recovered", [], seen.ids)
    with h5py.File(path) as file:
        assert file["entry/data/id"][()].tolist() == list(seen.ids)
        for number, image in zip(seen.ids, file["entry/data/data"], strict=True):
            assert np.array_equal(image, pixels(number, (32, 32)))
        assert file["entry/attributes/exposure"][()].tolist() == [n / 2 for n in seen.ids]


def test_a_file_tells_who_wrote_it(tmp_path: Path) -> None:
    ledger = Ledger("consumer", 3, "det:image")
    with writer(tmp_path / "a.h5", account=lambda: ledger) as made:
        made.write(frame(1))
        made.flush()
        seen = witness(tmp_path / "a.h5.part")
        assert (seen.stage, seen.input_channel) == ("consumer 3", "det:image")
        assert seen.unfinished
    seen = witness(tmp_path / "a.h5")
    assert (seen.stage, seen.unfinished, seen.repair_command) == ("consumer 3", False, "")


def test_a_damaged_image_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", range(1, 11))
    with h5py.File(path) as file:
        info = file["entry/data/data"].id.get_chunk_info(4)
    data = bytearray(path.read_bytes())
    data[info.byte_offset] ^= 1
    path.write_bytes(data)
    assert str(ids_in(path, deep=True)) == "1-4,6-10"


def test_what_cannot_be_read_has_no_ids(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"nothing")
    for name in ("a.h5", "none.h5"):
        seen = witness(tmp_path / name)
        assert not seen.ids
        assert name in seen.problem
