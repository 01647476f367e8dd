"""Frames from random numbers and from real files of every format."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from pvapy_stream.errors import SettingsError, SourceError
from pvapy_stream.frame import ColorMode, Frame
from pvapy_stream.settings import SimulatorSettings
from pvapy_stream.sim import hdf
from pvapy_stream.sim.frame_sources import RandomSource, natural, open_sources

STACK = np.arange(5 * 6 * 8, dtype=np.uint16).reshape(5, 6, 8)


def frames(**settings: object) -> list[Frame]:
    return list(open_sources(SimulatorSettings.of(**settings)))


def images(path: Path, **settings: object) -> list[np.ndarray]:
    return [frame.image for frame in frames(input_file=str(path), **settings)]


def write_hdf(
    path: Path, data: np.ndarray = STACK, name: str = "entry/data/data", **options: object
) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=data, **options)
    return path


# Random frames


@pytest.mark.parametrize(
    "dtype",
    [
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float32",
        "float64",
    ],
)
def test_random_of_every_type(dtype: str) -> None:
    image = RandomSource(1, (30, 40), dtype=dtype).frame(0).image
    assert image.dtype == dtype
    assert image.shape == (30, 40)
    assert np.isfinite(image).all()
    assert len(np.unique(image)) > 100


def test_random_range_is_clipped_and_includes_the_maximum() -> None:
    image = RandomSource(1, (100, 100), dtype="uint8", minimum=253.5, maximum=1e9).frame(0).image
    assert set(np.unique(image)) == {254, 255}
    assert set(np.unique(RandomSource(1, (50, 50), minimum=7, maximum=7).frame(0).image)) == {7}
    image = RandomSource(1, (100, 100), dtype="float32", minimum=-1, maximum=2).frame(0).image
    assert -1 <= image.min() < -0.9
    assert 1.9 < image.max() <= 2
    assert (
        RandomSource(1, (9, 9), dtype="uint64", maximum=float("inf")).frame(0).image.max() > 2**60
    )


@pytest.mark.parametrize("limits", [(5, 4), (float("nan"), 4), (0.2, 0.8)])
def test_random_range_that_is_empty(limits: tuple[float, float]) -> None:
    with pytest.raises(SettingsError, match="--minimum"):
        RandomSource(1, (2, 2), minimum=limits[0], maximum=limits[1])


@pytest.mark.parametrize(
    ("mode", "stored"), [(0, (4, 6)), (2, (4, 6, 3)), (3, (4, 3, 6)), (4, (3, 4, 6))]
)
def test_random_colour(mode: int, stored: tuple[int, ...]) -> None:
    (frame,) = frames(color_mode=mode, n_x_pixels=6, n_y_pixels=4, n_frames=1)
    assert frame.stored_shape == stored
    assert frame.color_mode is ColorMode(mode)
    assert frame.attributes == {"ColorMode": mode}


def test_number_of_random_frames() -> None:
    assert len(frames(n_x_pixels=4, n_y_pixels=4, cache_size=7)) == 7
    assert len(frames(n_x_pixels=4, n_y_pixels=4, cache_size=7, n_frames=9)) == 9


# numpy


@pytest.mark.parametrize("mmap_mode", [False, True])
def test_npy(tmp_path: Path, mmap_mode: bool) -> None:
    np.save(tmp_path / "a.npy", STACK)
    found = frames(input_file=str(tmp_path / "a.npy"), mmap_mode=mmap_mode)
    np.testing.assert_array_equal([frame.image for frame in found], STACK)
    assert found[0].attributes == {"ColorMode": 0}


def test_npy_of_one_image_colour_and_foreign_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "a.NPY"
    for data in (STACK[0], STACK.astype(">f4"), np.zeros((2, 4, 5, 3), np.uint8), STACK[:2] > 5):
        with path.open("wb") as file:
            np.save(file, data)
        found = images(path)
        np.testing.assert_array_equal(found, data if data.ndim > 2 else [data])
        assert found[0].dtype.isnative


def test_npz_takes_all_arrays_in_the_order_of_their_names(tmp_path: Path) -> None:
    arrays = [np.full((2, 3, 4), number, np.uint8) for number in range(11)]
    np.savez(tmp_path / "a.npz", *arrays, one=np.full((5, 5), 99))
    found = images(tmp_path / "a.npz", mmap_mode=True)
    assert [image[0, 0] for image in found] == [
        number for number in range(11) for _ in range(2)
    ] + [99]
    assert found[-1].shape == (5, 5)
    assert sorted(["arr_10", "arr_2", "b"], key=natural) == ["arr_2", "arr_10", "b"]


# HDF5


def test_hdf_finds_its_only_stack(tmp_path: Path) -> None:
    path = write_hdf(tmp_path / "a.h5", compression="gzip")
    with h5py.File(path, "a") as file:
        file["entry/mask"] = np.zeros((6, 8))
        file["entry/times"] = np.zeros(5)
        file["entry/name"] = "text"
    np.testing.assert_array_equal(images(path), STACK)
    np.testing.assert_array_equal(images(path, hdf_dataset="/entry/mask"), np.zeros((1, 6, 8)))


def test_hdf_without_suffix_is_known_by_its_content(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        images(write_hdf(tmp_path / "scan_0001", STACK.astype(">i4"))), STACK
    )


CODECS = {
    "lz4": hdf5plugin.LZ4(nbytes=0),
    "lz4-blocks": hdf5plugin.LZ4(nbytes=4096),
    "bslz4": hdf5plugin.Bitshuffle(nelems=0, cname="lz4"),
    "bslz4-blocks": hdf5plugin.Bitshuffle(nelems=512, cname="lz4"),
    "blosc": hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.SHUFFLE),
    "blosc-zstd": hdf5plugin.Blosc(cname="zstd", shuffle=hdf5plugin.Blosc.BITSHUFFLE),
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("name", CODECS)
def test_hdf_chunks_pass_through_and_decode_to_the_same_pixels(
    tmp_path: Path, name: str, dtype: str
) -> None:
    data = np.random.default_rng(1).integers(0, 9, (3, 100, 120)).astype(dtype)
    path = write_hdf(tmp_path / "a.h5", data, chunks=(1, 100, 120), compression=CODECS[name])
    plain, packed = (
        frames(input_file=str(path)),
        frames(input_file=str(path), hdf_compression_mode=True),
    )
    for frame, expected in zip(packed, data, strict=True):
        assert frame.codec == name.partition("-")[0]
        assert frame.payload.nbytes < expected.nbytes
        assert frame.stored_shape == expected.shape
        np.testing.assert_array_equal(frame.image, expected)
    np.testing.assert_array_equal([frame.image for frame in plain], data)
    assert plain[0].codec == ""


def test_hdf_pass_through_of_colour_one_image_and_chunks_without_compression(
    tmp_path: Path,
) -> None:
    colour = np.arange(2 * 50 * 60 * 3, dtype=np.uint16).reshape(2, 50, 60, 3) // 100
    path = write_hdf(
        tmp_path / "rgb.h5", colour, chunks=(1, 50, 60, 3), compression=CODECS["bslz4"]
    )
    found = frames(input_file=str(path), hdf_compression_mode=True)
    assert (found[0].codec, found[0].color_mode) == ("bslz4", ColorMode.RGB1)
    np.testing.assert_array_equal([frame.image for frame in found], colour)
    path = write_hdf(
        tmp_path / "one.h5", colour[0, :, :, 0], chunks=(50, 60), compression=CODECS["lz4"]
    )
    (frame,) = frames(input_file=str(path), hdf_compression_mode=True)
    np.testing.assert_array_equal(frame.image, colour[0, :, :, 0])
    assert frame.codec == "lz4"
    assert [
        frame.codec
        for frame in frames(
            input_file=str(write_hdf(tmp_path / "raw.h5")), hdf_compression_mode=True
        )
    ] == [""] * 5


def test_hdf_chunk_whose_filter_was_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "d", (1, 6, 8), "u2", chunks=(1, 6, 8), compression=hdf5plugin.LZ4()
        )
        data.id.write_direct_chunk((0, 0, 0), STACK[0].tobytes(), filter_mask=1)
    (frame,) = frames(input_file=str(path), hdf_compression_mode=True)
    assert frame.codec == ""
    np.testing.assert_array_equal(frame.image, STACK[0])


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (STACK, {"chunks": (2, 6, 8), "compression": hdf5plugin.LZ4()}, "one frame for each chunk"),
        (STACK, {"chunks": (1, 6, 4), "compression": hdf5plugin.LZ4()}, "one frame for each chunk"),
        (STACK, {"chunks": (1, 6, 8), "compression": "gzip"}, "omit --hdf-compression-mode"),
        (
            STACK,
            {"chunks": (1, 6, 8), "compression": hdf5plugin.LZ4(), "shuffle": True},
            "exactly one of blosc",
        ),
        (STACK.astype(">u2"), {"chunks": (1, 6, 8), "compression": hdf5plugin.LZ4()}, "misread"),
    ],
)
def test_hdf_chunks_that_cannot_pass_through(
    tmp_path: Path, data: np.ndarray, options: dict, message: str
) -> None:
    path = write_hdf(tmp_path / "a.h5", data, **options)
    with pytest.raises(SourceError, match=message):
        images(path, hdf_compression_mode=True)
    np.testing.assert_array_equal(images(path), data)


def test_hdf_frame_that_was_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("d", (3, 6, 8), "u2", chunks=(1, 6, 8), compression=hdf5plugin.LZ4())[
            0
        ] = STACK[0]
    with pytest.raises(SourceError, match="frame 1 was not written"):
        images(path, hdf_compression_mode=True)


def test_hdf_with_several_or_no_stacks(tmp_path: Path) -> None:
    path = write_hdf(tmp_path / "a.h5", name="one")
    with h5py.File(path, "a") as file:
        file["two"] = STACK
    with pytest.raises(SourceError, match=r"--hdf-dataset: /one \(5, 6, 8\), /two"):
        images(path)
    with pytest.raises(SourceError, match=r"'three' does not exist.*/one, /two"):
        images(path, hdf_dataset="three")
    with pytest.raises(SourceError, match=r"is a group"):
        images(path, hdf_dataset="/")
    with pytest.raises(SourceError, match="no dataset of images"):
        images(write_hdf(tmp_path / "b.h5", np.zeros(3)))
    with pytest.raises(SourceError, match="has no frames"):
        images(write_hdf(tmp_path / "c.h5", np.zeros((2, 3, 4, 5))), hdf_dataset="entry/data/data")
    with pytest.raises(SourceError, match="complex64 cannot be published"):
        images(
            write_hdf(tmp_path / "d.h5", np.zeros((2, 3, 4), np.complex64)),
            hdf_dataset="entry/data/data",
        )


def test_hdf_by_suffix(tmp_path: Path) -> None:
    assert hdf.is_hdf5(tmp_path / "missing.H5")


# Image files


def test_tiff_pages_and_colour(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
    np.testing.assert_array_equal(images(tmp_path / "a.tif"), STACK)
    colour = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    tifffile.imwrite(tmp_path / "b.tiff", colour, photometric="rgb")
    (frame,) = frames(input_file=str(tmp_path / "b.tiff"))
    assert frame.color_mode is ColorMode.RGB1
    np.testing.assert_array_equal(frame.image, colour)
    tifffile.imwrite(
        tmp_path / "c.tif", colour.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"
    )
    np.testing.assert_array_equal(images(tmp_path / "c.tif"), [colour])


def test_tiff_that_only_fabio_knows(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    image.fromarray(pixels).save(tmp_path / "a.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(images(tmp_path / "a.tif"), [pixels])


@pytest.mark.parametrize("kind", ["edf", "cbf"])
def test_fabio(tmp_path: Path, kind: str) -> None:
    fabio = pytest.importorskip("fabio")
    writer = {"edf": fabio.edfimage.EdfImage, "cbf": fabio.cbfimage.CbfImage}[kind]
    writer(data=STACK[0].astype(np.int32)).write(str(tmp_path / f"a.{kind}"))
    np.testing.assert_array_equal(images(tmp_path / f"a.{kind}"), [STACK[0]])


def test_fabio_with_several_frames(tmp_path: Path) -> None:
    fabio = pytest.importorskip("fabio")
    file = fabio.edfimage.EdfImage(data=STACK[0])
    file.append_frame(data=STACK[1])
    file.write(str(tmp_path / "a.edf"))
    np.testing.assert_array_equal(images(tmp_path / "a.edf"), STACK[:2])


# Raw files


def write_raw(folder: Path, layout: str, dtype: str = "<u2") -> Path:
    (folder / "layout.yaml").write_text(
        "file_info:\n" + "".join(f"  {line}\n" for line in layout.split("; "))
    )
    blocks = [frame.astype(dtype).tobytes() for frame in STACK]
    (folder / "a.raw").write_bytes(b"H" * 10 + b"GAP".join(blocks))
    return folder / "a.raw"


LAYOUT = "header_offset: 10; between_frames: 3; width: 8; height: 6; datatype: uint16"


@pytest.mark.parametrize(
    ("extra", "dtype", "count"),
    [
        ("", "<u2", 5),
        ("; endian: big", ">u2", 5),
        ("; endian: '<'; n_images: 2; ordered_files:", "<u2", 2),
    ],
)
def test_raw(tmp_path: Path, extra: str, dtype: str, count: int) -> None:
    path = write_raw(tmp_path, LAYOUT + extra, dtype)
    np.testing.assert_array_equal(
        images(path, config_file=str(tmp_path / "layout.yaml")), STACK[:count]
    )


def test_raw_in_a_folder_leaves_out_the_description_and_takes_ordered_files(tmp_path: Path) -> None:
    path = write_raw(tmp_path, LAYOUT)
    (tmp_path / "b.raw").write_bytes(path.read_bytes())
    (tmp_path / ".hidden").write_text("no image")
    arguments = {"input_directory": str(tmp_path), "config_file": str(tmp_path / "layout.yaml")}
    assert len(frames(**arguments)) == 10
    write_raw(tmp_path, f"{LAYOUT}; ordered_files: [b.raw, {path}, b.raw]")
    assert len(frames(**arguments)) == 15


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (f"{LAYOUT}; n_images: 6", "hold 5 frames of 8x6 uint16 behind a header of 10, not 6"),
        (LAYOUT.replace("10", "9999"), "not one"),
        (LAYOUT.replace("uint16", "uint17"), "is not a pixel type"),
        (LAYOUT.replace("width: 8; ", ""), "width is required"),
        (LAYOUT.replace("width: 8", "width: 0"), "width"),
        (f"{LAYOUT}; colour: red", "unknown setting 'colour'"),
        (f"{LAYOUT}; endian: middle", "is not a byte order"),
        (f"{LAYOUT}; ordered_files: [nowhere.raw]", "nowhere.raw does not exist"),
        ("width: [", "give a YAML file"),
    ],
)
def test_raw_described_wrongly(tmp_path: Path, layout: str, message: str) -> None:
    path = write_raw(tmp_path, layout)
    with pytest.raises(SourceError, match=message):
        images(path, config_file=str(tmp_path / "layout.yaml"))


def test_raw_without_description_or_file(tmp_path: Path) -> None:
    path = write_raw(tmp_path, LAYOUT)
    with pytest.raises(SourceError, match="none is given"):
        frames(config_file=str(tmp_path / "layout.yaml"))
    with pytest.raises(SourceError, match=r"missing\.yaml"):
        images(path, config_file=str(tmp_path / "missing.yaml"))
    (tmp_path / "layout.yaml").write_text("width: 3")
    with pytest.raises(SourceError, match="has no file_info"):
        images(path, config_file=str(tmp_path / "layout.yaml"))


# Folders and bad files


def test_folder_in_the_order_of_names_with_a_limit(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", STACK[:2])
    write_hdf(tmp_path / "a.h5", STACK[2:])
    (tmp_path / "folder").mkdir()
    arguments = {"input_directory": str(tmp_path)}
    np.testing.assert_array_equal([f.image for f in frames(**arguments)], STACK[[2, 3, 4, 0, 1]])
    np.testing.assert_array_equal(
        [f.image for f in frames(**arguments, n_frames=4)], STACK[[2, 3, 4, 0]]
    )


def test_files_of_different_shapes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STACK)
    np.save(tmp_path / "b.npy", np.zeros((1, 3, 3)))
    assert [f.stored_shape for f in frames(input_directory=str(tmp_path))] == [(6, 8)] * 5 + [
        (3, 3)
    ]


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.tif", "a.edf", "a.txt"])
@pytest.mark.parametrize("content", [b"", b"this is no image at all" * 40])
def test_file_that_is_not_what_its_name_says(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=rf"{name}.*(give|check)"):
        images(tmp_path / name)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(4), "has no frames"),
        (np.zeros((2, 3, 4, 5)), "has no frames"),
        (np.zeros((0, 3, 4)), "has no frames"),
        (np.zeros((2, 3, 4), complex), "complex128 cannot be published"),
        (np.zeros((2, 3, 4), np.float16), "float16 cannot be published"),
        (np.array([["a", object()]]), "plain number arrays"),
    ],
)
def test_array_that_is_no_image(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(SourceError, match=message):
        images(tmp_path / "a.npy")


def test_missing_inputs(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.npy does not exist"):
        images(tmp_path / "nowhere.npy")
    with pytest.raises(SourceError, match="is not a folder"):
        frames(input_directory=str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match="has no files"):
        frames(input_directory=str(tmp_path))
