from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import union
from pvapy_stream.errors import FileError, PvapyStreamError, SettingsError
from pvapy_stream.files.completeness import verify
from pvapy_stream.files.file_witness import ids_in
from pvapy_stream.files.record import NOT_WRITTEN
from pvapy_stream.processors.hdf5_writer import Hdf5Writer
from pvapy_stream.testing import ProcessorRun, frame, image_object, run_processor
from tests.files.support import write


def objects(first: int, last: int) -> list[Any]:
    return [image_object(id=n, time=float(n), exposure=n / 2) for n in range(first, last + 1)]


def run(tmp_path: Path, **args: Any) -> ProcessorRun:
    return ProcessorRun(Hdf5Writer, args={"outputDirectory": str(tmp_path), **args})


def test_the_incumbents_configuration(tmp_path: Path) -> None:
    args = {
        "outputDirectory": str(tmp_path / "new"),
        "outputFileNameFormat": "{outputFileId:06}.{processorId}.hdf",
        "nImagesPerFile": 4,
        "datasetName": "images",
    }
    result = run_processor(Hdf5Writer, objects(1, 10), args=args)
    assert result.ok
    assert [one.id for one in result.frames] == list(range(1, 11))
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == [f"00000{n}.1.hdf" for n in (1, 2, 3)]
    with h5py.File(tmp_path / "new" / names[1]) as file:
        assert file["images"].shape == (4, 4, 6)
        assert np.array_equal(file["images"][0], frame(id=5).image)
        assert file["entry/data/id"][()].tolist() == [5, 6, 7, 8]
        assert file["entry/data/time"][0] == 5_000_000_000
        assert file["entry/attributes/exposure"][0] == 2.5
    assert result.stats["nFilesSaved"] == 3
    assert result.stats["nImagesSaved"] == 10
    assert result.stats["nBytesSaved"] == 10 * 48
    assert result.stats["lastFilePath"] == str(tmp_path / "new" / names[2])


def test_the_ledger_is_in_the_file(tmp_path: Path) -> None:
    made = run(tmp_path, nImagesPerFile=0, outputFileNameFormat="a.h5")
    for one in (*objects(1, 3), *objects(6, 8)):
        made.feed(one)
    assert made.finish().ok
    report = verify(tmp_path / "a.h5")
    assert {what: str(ids) for what, ids in report.lost.items()} == {"missed": "4-5"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"nImagesPerFile": "many"}, "--images-per-file"),
        ({"compression": "gzip"}, "--compression"),
        ({"outputFileNameFormat": "same.h5"}, "overwrite each other"),
        ({"outputFileNameFormat": "{what}.h5", "nImagesPerFile": 0}, "unknown key"),
    ],
)
def test_a_wrong_configuration(tmp_path: Path, args: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Hdf5Writer({"outputDirectory": str(tmp_path), **args})


def test_what_is_there_already_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "000001.1.hdf").touch()
    with pytest.raises(FileError, match="exists"):
        run(tmp_path)
    made = run(tmp_path, overwrite=True)
    made.feed(image_object(id=1))
    assert made.finish().ok


def test_errors_are_counted_by_the_stage(tmp_path: Path) -> None:
    made = run(tmp_path)
    made.feed(image_object(id=1))
    made.processor._writer._fail(made.processor._writer._rows, OSError(28, "No space left"))
    made.feed(image_object(id=2))
    made.feed(image_object(id=3))
    result = made.finish()
    assert result.errors == {"process: FileError": 2}
    assert "no space left on device" in result.last_error.lower()
    assert list(result.ledger.failed["process: FileError"]) == [2, 3]
    assert verify(tmp_path / "000001.1.hdf").n_images == 1


def test_configure_goes_on_in_another_file(tmp_path: Path) -> None:
    made = run(tmp_path)
    made.feed(image_object(id=1))
    made.processor.configure({"outputDirectory": str(tmp_path / "b"), "nImagesPerFile": "2"})
    for one in objects(2, 4):
        made.feed(one)
    made.processor.configure({"somebody": "else's"})
    with pytest.raises(SettingsError):
        made.processor.configure({"nImagesPerFile": -1})
    stats = made.processor.getStats()
    assert (stats["nFilesSaved"], stats["nImagesSaved"]) == (3, 4)
    made.processor.resetStats()
    assert made.processor.getStats()["nImagesSaved"] == 0
    made.feed(image_object(id=5))
    assert made.processor.getStats()["nImagesSaved"] == 1
    assert made.finish().ok
    found = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*.hdf"))]
    assert found == ["000001.1.hdf", "b/000002.1.hdf", "b/000003.1.hdf"]
    with pytest.raises(PvapyStreamError, match="closed"):
        made.processor.process_frame(frame(id=6))


def test_overwrite_is_for_the_name_of_the_start_and_not_for_those_of_requests(
    tmp_path: Path,
) -> None:
    # Where a request gives the name, the second file has the number 2, and the third 3.
    for name in ("a.h5", "kept.2.h5", "next.3.h5"):
        write(tmp_path / name, [9])
    made = run(tmp_path, overwrite=True, outputFileNameFormat="a.h5", nImagesPerFile=0)
    made.feed(image_object(id=1))
    with pytest.raises(FileError, match=r"kept\.2\.h5 exists"):
        made.processor.configure({"outputFileNameFormat": "kept.h5"})
    made.feed(image_object(id=2))
    made.processor.configure({"outputFileNameFormat": "next.h5"})
    made.feed(image_object(id=3))
    with pytest.raises(FileError, match=r"next\.3\.h5 exists"):
        made.processor.configure({"compression": "lz4"})
    made.finish()
    found = {path.name: str(ids_in(path)) for path in tmp_path.iterdir()}
    assert found == {
        "a.h5": "1", "kept.2.h5": "9", "kept.h5": "2", "next.2.h5": "3", "next.3.h5": "9",
    }  # fmt: skip


def test_an_id_counts_when_it_is_flushed_and_not_when_the_disk_is_full(small_disk: Path) -> None:
    made = run(small_disk, outputFileNameFormat="a.h5", nImagesPerFile=0, compression="bslz4")
    assert made.processor.confirms
    rng = np.random.default_rng(1)
    for number in range(1, 151):
        image = rng.integers(0, 2**16, (256, 256)).astype(np.uint16)
        made.feed(image_object(image, number))
    result = made.finish()
    there = ids_in(small_disk / "a.h5", deep=True)
    failed = union(result.ledger.failed.values())
    assert 10 < len(there) < 150
    assert there | failed == IdSet(range(1, 151))
    assert not there & failed
    assert result.ledger.processed == there
    assert set(result.ledger.failed) <= {"process: FileError", NOT_WRITTEN}


def test_an_object_without_image_fails_alone(tmp_path: Path) -> None:
    result = run_processor(
        Hdf5Writer,
        [image_object(id=1), image_object(np.empty((0, 0), np.uint8), 2), image_object(id=3)],
        args={"outputDirectory": str(tmp_path)},
    )
    assert result.errors == {"process: ObjectError": 1}
    assert str(verify(tmp_path / "000001.1.hdf").ids) == "1,3"


def test_no_thread_is_left(tmp_path: Path) -> None:
    before = threading.active_count()
    run_processor(Hdf5Writer, objects(1, 3), args={"outputDirectory": str(tmp_path)})
    assert threading.active_count() == before
