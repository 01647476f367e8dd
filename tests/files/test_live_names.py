"""Files that have their name already while they are written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import h5py
import pytest

from pvapy_stream import FileSettings, Frame, FrameWriter
from pvapy_stream.errors import FileError
from pvapy_stream.files.file_witness import witness
from pvapy_stream.files.repair import repair
from tests.support import image


def writer_of(path: Path) -> FrameWriter:
    return FrameWriter(FileSettings.of(output=str(path)), area_detector=True, live=True)


def test_the_name_is_that_of_the_same_file_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    with writer_of(path) as writer:
        writer.write(Frame.of(1, image(1), attributes={"a": 1.5}))
        writer.write(Frame.of(2, image(2), attributes={"a": 2.5, "late": 3}))
        writer.flush()
        with h5py.File(path, "r", libver="latest", swmr=True) as reader:
            assert reader["entry/data/data"].shape == (2, 4, 6)
            assert reader["entry/instrument/NDAttributes/a"][()].tolist() == [1.5, 2.5]
    assert os.listdir(tmp_path) == ["scan.h5"]
    with h5py.File(path) as file:
        # A column that began late has its link too.
        assert file["entry/instrument/NDAttributes/late"][()].tolist() == [0, 3]
        assert file["entry/instrument/NDAttributes/NDArrayUniqueId"][()].tolist() == [1, 2]


def test_a_name_that_is_taken_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    writer = writer_of(path)
    path.write_text("precious")
    with pytest.raises(FileError, match="exists"):
        writer.write(Frame.of(1, image(1)))
    writer.close()
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["scan.h5"]


def test_a_file_system_without_hard_links_has_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with writer_of(tmp_path / "scan.h5") as writer:
        writer.write(Frame.of(1, image(1)))
        writer.flush()
        assert os.listdir(tmp_path) == ["scan.h5.part"]
    assert os.listdir(tmp_path) == ["scan.h5"]
    assert "no hard links" in caplog.text


@pytest.mark.parametrize("name", ["scan.h5", "scan.h5.part"])
@pytest.mark.parametrize("cut", [False, True])
def test_what_a_killed_writer_leaves_is_recovered_under_either_name(
    tmp_path: Path, name: str, cut: bool
) -> None:
    path = tmp_path / "scan.h5"
    pid = os.fork()
    if not pid:
        writer = writer_of(path)
        for number in range(1, 21):
            writer.write(Frame.of(number, image(number, 64, 64)))
            if number in (5, 20):
                writer.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    assert sorted(os.listdir(tmp_path)) == ["scan.h5", "scan.h5.part"]
    if cut:
        os.truncate(path, path.stat().st_size - 9000)
    found, count = repair(tmp_path / name)
    assert found == path
    assert count == len(witness(path, deep=True).ids) > 0
    kept = ["scan.h5.part.damaged"] if cut else []
    assert sorted(os.listdir(tmp_path)) == ["scan.h5", *kept]
    with h5py.File(path) as file:
        assert file["entry/instrument/detector/data"].shape[0] == count
