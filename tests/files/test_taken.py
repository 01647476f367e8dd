"""Names that are taken, files that appear, and payloads that are no images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitshuffle
import h5py
import numpy as np
import pytest

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.cli import verify as verify_command
from pvapy_stream.errors import CodecError, FileError
from pvapy_stream.files.completeness import verify
from pvapy_stream.files.master import make_master
from pvapy_stream.files.nexus import FrameWriter
from pvapy_stream.files.record import NOT_DECODABLE
from pvapy_stream.files.repair import repair
from pvapy_stream.files.run_name import RUN, run_id
from pvapy_stream.frame import Frame
from pvapy_stream.settings import FileSettings
from tests.files.support import frame, start, write, writer


def of_run(path: Path, run: str, **options: Any) -> FrameWriter:
    return FrameWriter(FileSettings.of(output=str(path), **options), run=run)


def one_image(made: FrameWriter, number: int) -> list[Path]:
    with made:
        made.write(frame(number))
    return made.files


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.h5", ["a.h5", "a.2.h5", "a.3.h5"]),
        ("{fileId:02d}.h5", ["01.h5", "02.h5", "03.h5"]),
        ("{uniqueId}.h5", ["7.h5", "7.2.h5", "7.3.h5"]),
    ],
)
def test_what_a_run_wrote_is_followed_by_the_next_number(
    tmp_path: Path, name: str, expected: list[str], overwrite: bool
) -> None:
    names = [
        path.name
        for _ in expected
        for path in one_image(of_run(tmp_path / name, "r1", overwrite=overwrite), 7)
    ]
    assert names == expected
    assert all(str(verify(tmp_path / one).ids) == "7" for one in expected)


def test_overwrite_replaces_what_was_there_before_the_run_once(tmp_path: Path) -> None:
    one_image(of_run(tmp_path / "a.h5", "r1"), 1)
    with pytest.raises(FileError, match=r"a\.h5 exists"):
        of_run(tmp_path / "a.h5", "r2")
    assert one_image(of_run(tmp_path / "a.h5", "r2", overwrite=True), 2) == [tmp_path / "a.h5"]
    assert one_image(of_run(tmp_path / "a.h5", "r2", overwrite=True), 3) == [tmp_path / "a.2.h5"]
    assert str(verify(tmp_path / "a.h5").ids) == "2"


def test_what_a_killed_writer_of_the_run_left_stays_though_nobody_can_open_it(
    tmp_path: Path,
) -> None:
    part = tmp_path / "a.h5.part"
    with h5py.File(part, "w", libver="latest") as file:
        file["x"] = np.arange(1000)
    part.write_bytes(part.read_bytes()[:1500])
    before = part.read_bytes()
    assert one_image(of_run(tmp_path / "a.h5", "r1", overwrite=True), 1) == [tmp_path / "a.2.h5"]
    assert part.read_bytes() == before


@pytest.mark.parametrize("run", ["", "r2"])
def test_a_part_is_never_replaced(tmp_path: Path, run: str) -> None:
    with of_run(tmp_path / "a.h5", "r1") as made:
        made.write(frame(1))
        made.flush()
        (tmp_path / "copy").write_bytes((tmp_path / "a.h5.part").read_bytes())
    (tmp_path / "a.h5").unlink()
    (tmp_path / "copy").rename(tmp_path / "a.h5.part")
    with pytest.raises(FileError, match=r"--repair .*a\.h5\.part; or give another name"):
        of_run(tmp_path / "a.h5", run, overwrite=True)
    assert repair(tmp_path / "a.h5.part") == (tmp_path / "a.h5", 1)


def test_only_plain_files_are_replaced(tmp_path: Path) -> None:
    victim = write(tmp_path / "victim.h5", [1])
    (tmp_path / "link.h5").symlink_to(victim)
    (tmp_path / "folder.h5").mkdir()
    for name in ("link.h5", "folder.h5"):
        with pytest.raises(FileError, match="not a plain file"):
            writer(tmp_path / name, overwrite=True)
    (tmp_path / "b.h5.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError, match=r"b\.h5\.part exists"):
        writer(tmp_path / "b.h5", overwrite=True)
    assert str(verify(victim).ids) == "1"


def test_processes_of_a_run_have_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import multiprocessing as m\n"
        "from pvapy_stream.files.run_name import run_id\n"
        "if __name__ == '__main__':\n"
        "    with m.get_context('spawn').Pool(2) as pool:\n"
        "        print(run_id(), *pool.starmap(run_id, [()] * 2))\n"
    )
    names = []
    for _ in range(2):
        out, err = start(code).communicate(timeout=60)
        one, *others = out.split()
        assert others == [one, one], err
        names.append(one)
    assert names[0] != names[1]
    monkeypatch.setenv(RUN, "given")
    assert run_id() == "given"


# -- files that appear meanwhile -----------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_appears_before_the_end_stays(tmp_path: Path, overwrite: bool) -> None:
    path, part = tmp_path / "a.h5", tmp_path / "a.h5.part"
    if overwrite:
        write(path, [1])
    made = writer(path, overwrite=overwrite)
    made.write(frame(2))
    path.unlink(missing_ok=True)
    path.write_bytes(b"theirs")
    with pytest.raises(FileError, match="appeared while"):
        made.close()
    assert path.read_bytes() == b"theirs"
    assert str(verify(part).ids) == "2"
    with pytest.raises(FileError, match=r"a\.h5 exists"):
        repair(part)
    path.rename(tmp_path / "theirs")
    assert repair(part) == (path, 1)
    assert verify(path).ok


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    assert verify(write(tmp_path / "a.h5", [1])).ok
    made = writer(tmp_path / "b.h5")
    made.write(frame(1))
    (tmp_path / "b.h5").write_bytes(b"theirs")
    with pytest.raises(FileError, match="appeared while"):
        made.close()
    assert (tmp_path / "b.h5").read_bytes() == b"theirs"


def test_a_master_does_not_replace_a_file_of_its_run(tmp_path: Path) -> None:
    files = one_image(of_run(tmp_path / "a.h5", "r1"), 1)
    with pytest.raises(FileError, match="a file of this run"):
        make_master(files, tmp_path / "a.h5", overwrite=True, run="r1")
    with pytest.raises(FileError, match="exists"):
        make_master(files, tmp_path / "a.h5", run="r1")
    (tmp_path / "m.h5").write_bytes(b"old")
    assert make_master(files, tmp_path / "m.h5", overwrite=True, run="r1") == 1
    assert str(verify(tmp_path / "a.h5").ids) == "1"


# -- payloads that are no images -----------------------------------------------------------------


def packed(number: int, damaged: bool, side: int) -> Frame:
    image = np.random.default_rng(number).integers(0, 2**16, (side, side)).astype("u2")
    payload = bitshuffle.compress_lz4(image.reshape(-1)).copy()
    if damaged:
        payload.view(np.uint8)[10:200] = 0
    return Frame(number, payload.view(np.uint8), image.shape, dtype=image.dtype, codec="bslz4")


@pytest.mark.parametrize("side", [64, 512])
def test_a_payload_that_does_not_decode_is_not_written(tmp_path: Path, side: int) -> None:
    saved, lost, raised = IdSet(), {}, []
    made = FrameWriter(
        FileSettings.of(output=str(tmp_path / "a.h5")),
        on_saved=saved.update,
        on_lost=lambda ids, kind, _: lost.setdefault(kind, IdSet()).update(ids),
    )
    for number in range(1, 21):
        try:
            made.write(packed(number, number in (5, 6, 20), side))
        except CodecError:
            raised.append(number)
    made.close()
    refused = IdSet(raised) | lost.get(NOT_DECODABLE, IdSet())
    assert str(refused) == "5-6,20"
    assert (raised == []) == (side == 512)
    assert str(saved) == "1-4,7-19"
    report = verify(tmp_path / "a.h5", deep=True)
    assert (report.ids, report.problems) == (saved, [])
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["entry/data/data"][()].shape == (17, side, side)
    if side == 512:
        assert str(report.lost[f"failed, {NOT_DECODABLE}"]) == "5-6,20"


@pytest.mark.parametrize("codec", ["none", "lz4", "bslz4", "zstd", "blosc"])
def test_verify_deep_decodes_what_was_written(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path / "a.h5", range(1, 6), compression=codec)
    assert verify(path, deep=True).ok
    assert make_master([path], tmp_path / "m.h5") == 5
    assert verify(tmp_path / "m.h5", deep=True).ok


def test_verify_deep_finds_rubbish_with_a_right_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pvapy_stream.files.rows.check_stored", lambda _: None)
    path = tmp_path / "a.h5"
    with writer(path) as made:
        for number in range(1, 6):
            made.write(packed(number, number == 3, 64))
    assert verify(path).ok
    report = verify(path, deep=True)
    assert "1 images cannot be decoded: rows 2; the first: cannot decode" in report.problems[0]
    make_master([path], tmp_path / "m.h5")
    assert not verify(tmp_path / "m.h5", deep=True).ok
    assert verify_command.main([str(path)]) == 0
    assert verify_command.main(["--deep", str(path)]) == 1
    assert "cannot be decoded" in capsys.readouterr().out


def test_a_block_size_of_0_is_written_as_the_filter_needs_it(tmp_path: Path) -> None:
    one = packed(1, False, 64)
    header = one.nbytes.to_bytes(8, "big") + bytes(4)
    payload = np.frombuffer(header + one.payload.tobytes(), np.uint8)
    with writer(tmp_path / "a.h5") as made:
        made.write(Frame(1, payload, (64, 64), dtype=np.dtype("u2"), codec="bslz4"))
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["entry/data/data"][0], one.image)
