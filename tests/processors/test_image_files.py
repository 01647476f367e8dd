from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from pvapy_stream.errors import ProcessorError, SettingsError
from pvapy_stream.processors import ImageFileWriter
from pvapy_stream.testing import ProcessorRun, image_object, run_processor
from tests.support import wait_until

GREY = np.arange(24, dtype=np.uint16).reshape(4, 6) * 1000
COLOUR = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)


def write(folder: Path, image: np.ndarray, name: str, **others: Any) -> Any:
    args = {"outputDirectory": str(folder), "outputFileNameFormat": name, **others}
    return run_processor(ImageFileWriter, [image_object(image, 42, time=1.5, gain=3)], args=args)


def test_the_default_names_and_what_a_tiff_says(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    objects = [image_object(GREY + k, k, time=k + 0.5, gain=2.5) for k in (1, 2)]
    result = run_processor(ImageFileWriter, objects, args={"outputDirectory": str(folder)})
    assert result.errors == {}
    assert sorted(p.name for p in folder.iterdir()) == ["000001.1.tiff", "000002.1.tiff"]
    for k in (1, 2):
        path = folder / f"{k:06d}.1.tiff"
        assert np.array_equal(tifffile.imread(path), GREY + k)
        with tifffile.TiffFile(path) as file:
            about = json.loads(file.pages[0].description)
        assert (about["uniqueId"], about["timeNs"]) == (k, k * 10**9 + 500_000_000)
        assert about["attributes"]["gain"] == 2.5
    assert [f.id for f in result.frames] == [1, 2]
    assert result.stats["nFilesSaved"] == 2
    assert result.stats["nBytesSaved"] == sum(p.stat().st_size for p in folder.iterdir())


@pytest.mark.parametrize("image", [GREY, GREY.astype(np.uint8), COLOUR], ids=["16", "8", "rgb"])
@pytest.mark.parametrize("ending", ["tif", "png", "npy"])
def test_every_format_gives_the_pixels_back(tmp_path: Path, image: np.ndarray, ending: str) -> None:
    assert write(tmp_path, image, f"{{frameId}}.{ending}").ok
    path = tmp_path / f"42.{ending}"
    found = {
        "tif": lambda: tifffile.imread(path),
        "png": lambda: np.asarray(Image.open(path)),
        "npy": lambda: np.load(path),
    }[ending]()
    assert np.array_equal(found, image)
    assert found.dtype == image.dtype


def test_floats_and_signed_pixels(tmp_path: Path) -> None:
    image = GREY.astype(np.float32) - 0.5
    assert write(tmp_path, image, "{uniqueId}.tiff").ok
    assert np.array_equal(tifffile.imread(tmp_path / "42.tiff"), image)
    result = write(tmp_path, image, "{uniqueId}.png")
    assert "float32" in result.last_error
    assert ".tiff or .npy" in result.last_error
    assert [p.name for p in tmp_path.iterdir()] == ["42.tiff"]


def test_names_with_folders_and_time(tmp_path: Path) -> None:
    assert write(tmp_path, GREY, "p{processorId}/{time:%Y%m%dT%H%M%S}-{objectId:04}.npy").ok
    assert (tmp_path / "p1" / "19700101T000001-0042.npy").is_file()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("image.tiff", "overwrite each other"),
        ("{processorId}.tiff", "overwrite each other"),
        ("{time}.tiff", "overwrite each other"),
        ("{uniqueid}.tiff", "unknown 'uniqueid'"),
        ("{uniqueId.tiff", "cannot be used"),
        ("{uniqueId:zz}.tiff", "cannot be used"),
        ("{uniqueId.__class__}.tiff", "unknown"),
        ("{uniqueId}.jpeg", ".tiff, .tif, .png, .npy"),
        ("../{uniqueId}.tiff", "outside of outputDirectory"),
        ("/tmp/{uniqueId}.tiff", "outside of outputDirectory"),
    ],
)
def test_names_that_cannot_be_are_refused(name: str, words: str) -> None:
    with pytest.raises(SettingsError) as raised:
        ImageFileWriter({"outputFileNameFormat": name})
    assert words in str(raised.value)


def test_a_file_is_not_overwritten_unless_told(tmp_path: Path) -> None:
    assert write(tmp_path, GREY, "{uniqueId}.npy").ok
    again = write(tmp_path, GREY + 1, "{uniqueId}.npy")
    assert again.errors == {"process: ProcessorError": 1}
    assert "42.npy exists" in again.last_error
    assert np.array_equal(np.load(tmp_path / "42.npy"), GREY)
    next_tick(tmp_path / "42.npy")
    assert write(tmp_path, GREY + 1, "{uniqueId}.npy", overwrite=True).ok
    assert np.array_equal(np.load(tmp_path / "42.npy"), GREY + 1)
    assert images(tmp_path) == ["42.npy"]


def next_tick(path: Path) -> None:
    """Wait until the clock of a file system has gone on since a file was written."""
    probe = path.with_name(".probe")

    def is_later() -> bool:
        probe.write_bytes(b"")
        return probe.stat().st_mtime_ns > path.stat().st_ctime_ns

    wait_until(is_later)
    probe.unlink()


def images(folder: Path) -> list[str]:
    """Names of the files in a folder but hidden ones."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_what_the_run_wrote_is_not_overwritten(tmp_path: Path) -> None:
    # Neither when ids come again, nor when the writer is started again, nor by a reload.
    for name in ("1.npy", "2.npy"):
        np.save(tmp_path / name, GREY)
    next_tick(tmp_path / name)
    args = {
        "outputDirectory": str(tmp_path),
        "outputFileNameFormat": "{uniqueId}.npy",
        "overwrite": True,
    }
    first = run_processor(
        ImageFileWriter, [image_object(GREY + k, n) for n, k in ((1, 1), (2, 2), (1, 3))], args=args
    )
    assert first.errors == {"process: ProcessorError": 1}
    again = run_processor(ImageFileWriter, [image_object(GREY + 4, 2)], args=args)
    assert again.errors == {"process: ProcessorError": 1}
    assert [np.load(tmp_path / f"{n}.npy")[0, 0] for n in (1, 2)] == [1, 2]
    assert images(tmp_path) == ["1.npy", "2.npy"]


def test_links_and_folders_are_not_replaced(tmp_path: Path) -> None:
    folder, victim = tmp_path / "data", tmp_path / "victim.npy"
    folder.mkdir()
    np.save(victim, GREY)
    (folder / "42.npy").symlink_to(victim)
    for overwrite in (False, True):
        result = write(folder, GREY + 1, "{uniqueId}.npy", overwrite=overwrite)
        assert result.errors == {"process: ProcessorError": 1}
    assert np.array_equal(np.load(victim), GREY)
    assert (folder / "42.npy").is_symlink()


def test_a_file_that_appears_while_an_image_is_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = np.save

    def slow(file: Any, image: np.ndarray, **options: Any) -> None:
        real(file, image, **options)
        (tmp_path / "42.npy").write_bytes(b"theirs")

    monkeypatch.setattr(np, "save", slow)
    assert write(tmp_path, GREY, "{uniqueId}.npy").errors == {"process: ProcessorError": 1}
    assert (tmp_path / "42.npy").read_bytes() == b"theirs"
    assert images(tmp_path) == ["42.npy"]


def test_a_request_cannot_leave_the_directory_or_replace_a_file(tmp_path: Path) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    outside.mkdir()
    data.mkdir()
    (data / "link").symlink_to(outside)
    np.save(data / "2.npy", GREY)
    args = {
        "outputDirectory": str(data),
        "outputFileNameFormat": "{uniqueId}.npy",
        "overwrite": True,
    }
    run = ProcessorRun(ImageFileWriter, args=args)
    run.feed(image_object(GREY, 1))
    for bad in (
        {"outputDirectory": str(outside)},
        {"outputDirectory": str(data / ".." / "outside")},
        {"outputDirectory": str(data / "link")},
        {"outputFileNameFormat": "../outside/{uniqueId}.npy"},
        {"overwrite": True},
    ):
        with pytest.raises(SettingsError):
            run.processor.configure(bad)
    run.processor.configure({"outputFileNameFormat": "link/{uniqueId}.npy"})
    run.feed(image_object(GREY, 3))
    run.processor.configure({"outputFileNameFormat": "{uniqueId}.npy"})
    run.feed(image_object(GREY + 1, 2))
    result = run.finish()
    assert result.errors == {"process: FileError": 1, "process: ProcessorError": 1}
    assert list(outside.iterdir()) == []
    assert np.array_equal(np.load(data / "2.npy"), GREY)


def test_a_directory_that_cannot_be_written_is_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProcessorError, match="cannot write into outputDirectory"):
        write(tmp_path / "file" / "below", GREY, "{uniqueId}.npy")
    with pytest.raises(ProcessorError, match="cannot write into outputDirectory"):
        write(Path("/proc/nowhere"), GREY, "{uniqueId}.npy")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ProcessorError, match="Permission denied"):
        write(tmp_path, GREY, "{uniqueId}.npy")


def test_the_directory_may_change_while_running(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "a" / "b"
    args = {"outputDirectory": str(first), "outputFileNameFormat": "{uniqueId}.npy"}
    run = ProcessorRun(ImageFileWriter, args=args)
    run.feed(image_object(GREY, 1))
    run.processor.configure({"outputDirectory": str(second)})
    run.feed(image_object(GREY, 2))
    (first / "file").touch()
    with pytest.raises(ProcessorError):
        run.processor.configure({"outputDirectory": str(first / "file" / "below")})
    (first / "file").unlink()
    run.feed(image_object(GREY, 3))
    assert run.finish().ok
    assert sorted(p.name for p in first.iterdir()) == ["1.npy", "b"]
    assert sorted(p.name for p in second.iterdir()) == ["2.npy", "3.npy"]


def test_a_write_that_fails_leaves_nothing_and_is_told(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for ending in ("tiff", "png", "npy"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            noise = np.random.default_rng(1).integers(0, 255, (50, 50)).astype(np.uint8)
            result = write(tmp_path, noise, f"{{uniqueId}}.{ending}")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert result.errors == {"process: ProcessorError": 1}
        assert f"cannot write {tmp_path}/42.{ending}: File too large" in result.last_error
    assert list(tmp_path.iterdir()) == []
