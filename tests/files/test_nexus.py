from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

import bitshuffle
import blosc
import h5py
import hdf5plugin
import lz4.block
import nexusformat.nexus as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.errors import FileError, MissingExtraError, ObjectError, SettingsError
from pvapy_stream.files.chunks import encode, filter_options
from pvapy_stream.files.completeness import verify
from pvapy_stream.frame import ColorMode, Frame
from pvapy_stream.settings import FileSettings
from tests.files.support import frame, pixels, start, write, writer

CODECS = ("none", "lz4", "bslz4", "zstd", "blosc")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f4", "f8", "?", ">u2"])
def test_images_come_back(tmp_path: Path, codec: str, dtype: str) -> None:
    with writer(tmp_path / "a.h5", compression=codec) as made:
        for number in range(1, 20):
            made.write(frame(number, dtype=dtype))
    with h5py.File(tmp_path / "a.h5") as file:
        data = file["entry/data/data"]
        assert data.shape == (19, 8, 6)
        for number in range(1, 20):
            assert np.array_equal(data[number - 1], pixels(number, dtype=dtype))
        assert file["entry/data/id"][()].tolist() == list(range(1, 20))
        assert file["entry/data/time"][()].tolist() == [n * 1000 for n in range(1, 20)]
        assert file["entry/attributes/exposure"][()].tolist() == [n / 2 for n in range(1, 20)]
    assert verify(tmp_path / "a.h5").ok
    assert not (tmp_path / "a.h5.part").exists()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (37, 211), (600, 500), (5, 4, 3)])
def test_our_chunks_are_what_the_filters_expect(codec: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    for image in (
        rng.integers(0, 60000, shape).astype("u2"),  # does not shrink
        rng.poisson(3, shape).astype("u4"),
        np.zeros(shape, "f8"),
    ):
        with h5py.File("x.h5", "w", driver="core", backing_store=False) as file:
            data = file.create_dataset(
                "d", (1, *shape), image.dtype, chunks=(1, *shape), **filter_options(codec)
            )
            data.id.write_direct_chunk((0,) * (len(shape) + 1), encode(codec, image))
            assert np.array_equal(data[0], image)


def compressed(codec: str, image: np.ndarray, header: bool) -> np.ndarray:
    size = image.nbytes.to_bytes(8, "big")
    if codec == "blosc":
        data = blosc.compress(image.tobytes(), typesize=2, cname="zlib")
    elif codec == "lz4":
        data = lz4.block.compress(image, store_size=False)
        if header:
            data = size + image.nbytes.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data
    else:
        data = bitshuffle.compress_lz4(image.reshape(-1)).tobytes()
        data = size + (8192).to_bytes(4, "big") + data if header else data
    return np.frombuffer(data, np.uint8)


@pytest.mark.parametrize("codec", ["lz4", "bslz4", "blosc"])
@pytest.mark.parametrize("header", [False, True])
def test_compressed_frames_are_stored_as_they_came(
    tmp_path: Path, codec: str, header: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [np.repeat(np.arange(600, dtype="u2"), 20).reshape(100, 120) + n for n in range(5)]
    frames = [
        Frame(n, compressed(codec, image, header), image.shape, dtype=image.dtype, codec=codec)
        for n, image in enumerate(images)
    ]
    monkeypatch.setattr("pvapy_stream.frame.decompress", None)
    with writer(tmp_path / "a.h5", compression="zstd") as made:
        for one in frames:
            made.write(one)
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["entry/data/data"][()], images)
        _, chunk = file["entry/data/data"].id.read_direct_chunk((2, 0, 0))
        assert chunk.endswith(frames[2].payload.tobytes())
    assert verify(tmp_path / "a.h5").ok


def test_frames_of_other_codecs_in_one_file(tmp_path: Path) -> None:
    image = pixels(1, (32, 32))
    kinds = ["bslz4", "", "lz4", "blosc", "bslz4"]
    with writer(tmp_path / "a.h5") as made:
        for number, codec in enumerate(kinds):
            payload = compressed(codec, image, False) if codec else image.reshape(-1)
            made.write(Frame(number, payload, image.shape, dtype=image.dtype, codec=codec))
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["entry/data/data"][()], [image] * 5)
    assert len(made.files) == 1


@pytest.mark.parametrize("mode", [ColorMode.RGB1, ColorMode.RGB2, ColorMode.RGB3])
def test_colour(tmp_path: Path, mode: ColorMode) -> None:
    image = pixels(1, (5, 4, 3), "u1")
    with writer(tmp_path / "a.h5", compression="bslz4") as made:
        raw = Frame.of(1, image, color_mode=mode)
        made.write(raw)
        packed = compressed("bslz4", raw.payload.reshape(raw.stored_shape), False)
        made.write(
            Frame(2, packed, raw.stored_shape, dtype=raw.dtype, codec="bslz4", color_mode=mode)
        )
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["entry/data/data"][()], [image, image])
        assert file["entry/data/data"].attrs["interpretation"] == "rgb-image"


def test_nexus_readers_find_the_images(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", range(1, 6), dataset_name="images")
    root = nx.nxload(tmp_path / "a.h5")
    assert root.nxclass == "NXroot"
    plot = root.plottable_data
    assert plot.nxpath == "/entry/data"
    assert plot.nxsignal.shape == (5, 8, 6)
    assert plot.nxaxes[0].nxvalue.tolist() == [1, 2, 3, 4, 5]
    assert root["entry/data/time"].attrs["units"] == "ns"
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["default"] == "entry"
        assert file["images"] == file["entry/data/data"]


# -- attributes ------------------------------------------------------------------------------

VALUES = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.booleans(),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200),
    st.lists(st.integers(-9, 9), min_size=2, max_size=2).map(np.array),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@example([{"a": np.array([0, 0])}, {"a": 2**63}])
@given(rows=st.lists(st.dictionaries(st.sampled_from("ab/"), VALUES, max_size=3), min_size=1))
def test_any_attributes_make_whole_columns(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("columns") / "a.h5"
    with writer(path) as made:
        for number, values in enumerate(rows):
            made.write(frame(number, **values))
    assert verify(path).ok
    with h5py.File(path) as file:
        group = file["entry/attributes"]
        for name in {name for values in rows for name in values}:
            data = group[name.replace("/", "%2F")]
            text = h5py.check_string_dtype(data.dtype)
            found = data.asstr()[()] if text else data[()]
            present = [name in values for values in rows]
            assert len(found) == len(rows)
            assert data.attrs.get("n_absent", 0) == present.count(False)
            for row, values in enumerate(rows):
                if name in values:
                    expected = values[name]
                    if text:
                        expected = str(getattr(expected, "tolist", lambda e=expected: e)())
                    if found.dtype.kind == "f":
                        expected = np.array(expected, float)
                    assert np.array_equal(found[row], expected)


def test_a_late_column_is_filled_from_the_start(tmp_path: Path) -> None:
    with writer(tmp_path / "a.h5") as made:
        for number in range(4):
            late = {"t": 1.5, "n": 7, "s": "x" * 300} if number > 1 else {}
            made.write(frame(number, **late))
    with h5py.File(tmp_path / "a.h5") as file:
        group = file["entry/attributes"]
        assert np.array_equal(group["t"][()], [np.nan, np.nan, 1.5, 1.5], equal_nan=True)
        assert group["n"][()].tolist() == [0, 0, 7, 7]
        assert group["s"].asstr()[()].tolist() == ["", "", "x" * 300, "x" * 300]
        assert group["t"].attrs["absent_rows"].tolist() == [[0, 1]]
        assert "log" not in group


# -- files -----------------------------------------------------------------------------------


def test_rotation_has_exact_lengths_and_records(tmp_path: Path) -> None:
    ledger = Ledger("consumer", 1)
    made = writer(
        tmp_path / "{fileId:03d}_{uniqueId}.h5", account=lambda: ledger, images_per_file=4
    )
    ledger.missed.add(3)
    ledger.fail("process: ValueError", 12)
    for number in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11):
        ledger.received.add(number)
        made.write(frame(number))
    ledger.received.add(12)
    ledger.missed.add(13)
    made.close(ledger)
    names = [path.name for path in made.files]
    assert names == ["001_1.h5", "002_6.h5", "003_10.h5"]
    reports = [verify(path) for path in made.files]
    assert [report.n_images for report in reports] == [4, 4, 2]
    assert [{k: str(v) for k, v in r.lost.items()} for r in reports] == [
        {"missed": "3"},
        {},
        {"missed": "13", "failed, process: ValueError": "12"},
    ]
    with h5py.File(made.files[1]) as file:
        assert "001_1.h5" in file["entry/continues/description"].asstr()[()]


@pytest.mark.parametrize("change", [{"shape": (4, 4)}, {"dtype": "f4"}, {"shape": (8, 6, 3)}])
def test_other_images_begin_a_new_file(tmp_path: Path, change: dict[str, Any]) -> None:
    with writer(tmp_path / "a.h5") as made:
        made.write(frame(1))
        made.write(frame(2, **change))
        made.write(frame(3, **change))
    assert [path.name for path in made.files] == ["a.h5", "a.2.h5"]
    assert [verify(path).n_images for path in made.files] == [1, 2]
    with h5py.File(made.files[0]) as one, h5py.File(made.files[1]) as two:
        assert "a.2.h5 continues this file" in one["entry/continued/description"].asstr()[()]
        assert "changed at id 2" in two["entry/continues/description"].asstr()[()]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.h5", {"images_per_file": 2}, "overwrite each other"),
        ("{processorId}.h5", {"images_per_file": 2}, "overwrite each other"),
        ("{nonsense}.h5", {}, "unknown key {nonsense}"),
        ("{fileId:q}.h5", {}, "cannot be formatted"),
        ("{fileId.h5", {}, "cannot be formatted"),
        ("{}.h5", {}, "file name"),
    ],
)
def test_bad_names(tmp_path: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        writer(tmp_path / name, **options)


def test_nothing_is_overwritten_unless_told(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", [1])
    with pytest.raises(FileError, match=r"a\.h5 exists"):
        writer(tmp_path / "a.h5")
    write(tmp_path / "a.h5", [1, 2], overwrite=True)
    assert verify(tmp_path / "a.h5").n_images == 2
    made = writer(tmp_path / "b{id}.h5", images_per_file=1)
    made.write(frame(1))
    with pytest.raises(FileError, match=r"b1\.h5 exists"):
        made.write(frame(1))
    made.write(frame(2))
    made.close()
    assert len(made.files) == 2


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    with writer(tmp_path / "a.h5") as made:
        made.write(frame(1))
        with pytest.raises(FileError, match=r"another writer uses it.*--repair"):
            writer(tmp_path / "a.h5")


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot make the folder"):
        writer(tmp_path / "file" / "a.h5")
    write(tmp_path / "new" / "{processorId}" / "a.h5", [1])
    assert (tmp_path / "new" / "1" / "a.h5").exists()


def test_frames_that_cannot_be_written_leave_the_file_whole(tmp_path: Path) -> None:
    with writer(tmp_path / "a.h5") as made:
        made.write(frame(1))
        with pytest.raises(ObjectError, match="no image"):
            made.write(Frame(2, np.empty(0, "u2"), ()))
        with pytest.raises(ObjectError, match="numbers"):
            made.write(Frame(3, np.zeros(48, "c16"), (8, 6)))
        made.write(frame(4))
    assert str(verify(tmp_path / "a.h5").ids) == "1,4"


def test_a_codec_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str) -> Any:
        if name == "zstandard":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingExtraError, match=r"pvapy-stream\[codecs\]"):
        writer(tmp_path / "a.h5", compression="zstd")


def test_settings_are_checked() -> None:
    with pytest.raises(SettingsError, match="--compression"):
        FileSettings.of(output="a.h5", compression="gzip")


# -- while it is written ---------------------------------------------------------------------


_READ_ALONG = """
import sys, time, h5py, numpy as np
from pathlib import Path
from tests.files.support import pixels
with h5py.File(sys.argv[1], "r", swmr=True) as file:
    ids, data = file["entry/data/id"], file["entry/data/data"]
    print("open", flush=True)
    while ids.shape[0] < 10:
        time.sleep(0.01)
        ids.refresh()
    print(time.time(), flush=True)
    data.refresh()
    assert np.array_equal(data[9], pixels(10))
    sys.stdin.readline()
"""


@pytest.mark.parametrize("codec", ["none", "bslz4"])
def test_readers_see_images_while_it_is_open(tmp_path: Path, codec: str) -> None:
    part = tmp_path / "a.h5.part"
    with writer(tmp_path / "a.h5", compression=codec) as made:
        made.write(frame(1, t="text"))
        reader = start(_READ_ALONG, part)
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        for number in range(2, 11):
            made.write(frame(number, t="text"))
        written = time.time()
        # Nothing more is written that could bring them there.
        seen = float(reader.stdout.readline())
        assert seen - written < 60
        # One who reads along does not keep the file from being closed.
        made.write(frame(11))
    out, err = reader.communicate("go on", timeout=60)
    assert (out, err, reader.returncode) == ("", "", 0)
    assert verify(tmp_path / "a.h5").n_images == 11


def test_the_order_is_that_of_write_whichever_thread_is_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(codec: str, image: np.ndarray) -> Any:
        time.sleep(0.01 * (int(image[0, 0]) % 3))
        return encode(codec, image)

    monkeypatch.setattr("pvapy_stream.files.rows.encode", slow)
    write(tmp_path / "a.h5", range(40), compression="lz4", n_threads=4)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["entry/data/data"][:, 0, 0].tolist() == list(range(40))


def test_few_frames_are_on_their_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with writer(tmp_path / "a.h5", compression="lz4", n_threads=2) as made:
        most = 0
        for number in range(60):
            made.write(frame(number))
            most = max(most, len(made._rows._pending))
    assert most <= 5


def test_hdf5plugin_reads_what_is_written_elsewhere() -> None:
    # The filters this file's tests rely on are the registered ones, not ours.
    assert {hdf5plugin.LZ4.filter_id, hdf5plugin.Bitshuffle.filter_id} == {32004, 32008}
