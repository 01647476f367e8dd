from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from pvapy_stream.codecs import check_bslz4, decompress, strip_hdf5_header
from pvapy_stream.errors import CodecError, MissingExtraError

bitshuffle = pytest.importorskip("bitshuffle")
blosc = pytest.importorskip("blosc")
lz4_block = pytest.importorskip("lz4.block")

PIXELS = (np.arange(64 * 96) % 251).astype(np.uint16)
NOISE = np.random.default_rng(1).integers(0, 2**16, 64 * 96, np.uint16)


def as_bytes(data: Any) -> np.ndarray:
    return np.frombuffer(bytes(data), np.uint8)


def bare(codec: str, pixels: np.ndarray) -> np.ndarray:
    """A payload as area detector plugins make it."""
    if codec == "blosc":
        return as_bytes(blosc.compress(pixels.tobytes(), pixels.itemsize))
    if codec == "lz4":
        return as_bytes(lz4_block.compress(pixels.tobytes(), store_size=False))
    return as_bytes(bitshuffle.compress_lz4(pixels))


def hdf5_chunk(path: Path, pixels: np.ndarray, compression: Any) -> bytes:
    """A chunk as the HDF5 filter writes it, header and all."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "data", data=pixels.reshape(1, -1), chunks=(1, pixels.size), **compression
        )
        _, chunk = data.id.read_direct_chunk((0, 0))
    return bytes(chunk)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "float32", "float64"])
@pytest.mark.parametrize("codec", ["blosc", "lz4", "bslz4"])
def test_bare_payloads(codec: str, dtype: str) -> None:
    pixels = PIXELS.astype(dtype)
    decoded = decompress(codec, bare(codec, pixels), pixels.dtype, pixels.nbytes)
    assert decoded.dtype == pixels.dtype
    assert np.array_equal(decoded, pixels)


FILTERS = {
    "lz4 in one block": ("lz4", hdf5plugin.LZ4()),
    "lz4 in blocks": ("lz4", hdf5plugin.LZ4(nbytes=2048)),
    "bslz4": ("bslz4", hdf5plugin.Bitshuffle()),
    "bslz4 with its own block size": ("bslz4", hdf5plugin.Bitshuffle(nelems=256)),
}


@pytest.mark.parametrize("pixels", [PIXELS, NOISE], ids=["smooth", "noise"])
@pytest.mark.parametrize("name", FILTERS)
def test_hdf5_chunks_with_and_without_their_header(
    tmp_path: Path, name: str, pixels: np.ndarray
) -> None:
    codec, compression = FILTERS[name]
    chunk = hdf5_chunk(tmp_path / "a.h5", pixels, compression)
    assert int.from_bytes(chunk[:8], "big") == pixels.nbytes
    stripped = strip_hdf5_header(codec, chunk, pixels.nbytes)
    for payload in (chunk, stripped):
        assert np.array_equal(
            decompress(codec, as_bytes(payload), pixels.dtype, pixels.nbytes), pixels
        )


@pytest.mark.parametrize("codec", ["lz4", "bslz4"])
def test_the_stripped_chunk_is_what_plugins_send(tmp_path: Path, codec: str) -> None:
    compression = hdf5plugin.LZ4() if codec == "lz4" else hdf5plugin.Bitshuffle()
    stripped = strip_hdf5_header(
        codec, hdf5_chunk(tmp_path / "a.h5", PIXELS, compression), PIXELS.nbytes
    )
    if codec == "lz4":
        assert lz4_block.decompress(stripped, uncompressed_size=PIXELS.nbytes) == PIXELS.tobytes()
    else:
        plain = bitshuffle.decompress_lz4(as_bytes(stripped), (PIXELS.size,), PIXELS.dtype)
        assert np.array_equal(plain, PIXELS)


def test_what_has_no_header_is_not_stripped() -> None:
    payload = bare("lz4", PIXELS).tobytes()
    assert strip_hdf5_header("lz4", payload, PIXELS.nbytes) == payload
    assert strip_hdf5_header("blosc", b"abc", 100) == b"abc"


# Changes 4 bytes of a payload anywhere, many times: each must decode or be an error.
_FUZZ = """
import sys, blosc, bitshuffle, lz4.block, zstandard, numpy as np
from pvapy_stream.codecs import decompress
from pvapy_stream.errors import CodecError
rng = np.random.default_rng(int(sys.argv[1]))
pixels = rng.poisson(3, 30_000).astype("u4")
size = pixels.nbytes
blosc.set_blocksize(8192)
bare = bitshuffle.compress_lz4(pixels).tobytes()
lz4_bare = lz4.block.compress(pixels.tobytes(), store_size=False)
header = size.to_bytes(8, "big")
payloads = [
    ("bslz4", bare),
    ("bslz4", header + (8192).to_bytes(4, "big") + bare),
    ("lz4", lz4_bare),
    ("lz4", header + size.to_bytes(4, "big") + len(lz4_bare).to_bytes(4, "big") + lz4_bare),
    ("zstd", zstandard.ZstdCompressor().compress(pixels)),
    *(
        ("blosc", blosc.compress(pixels.tobytes(), 4, 5, shuffle, name))
        for name in blosc.compressor_list()
        for shuffle in (0, 1, 2)
    ),
]
n_refused = 0
for codec, payload in payloads:
    whole = np.frombuffer(payload, "u1")
    assert np.array_equal(decompress(codec, whole, pixels.dtype, size), pixels), codec
    for number in range(int(sys.argv[2])):
        bad = whole.copy()
        at = int(rng.integers(0, (40, len(bad))[number % 2] - 3))
        bad[at : at + 4] = [rng.integers(0, 256, 4), 0, 255, 127][number % 4]
        try:
            assert len(decompress(codec, bad, pixels.dtype, size)) == len(pixels)
        except CodecError:
            n_refused += 1
print(n_refused)
"""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_four_bytes_end_the_process(seed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FUZZ, str(seed), "60"],
        capture_output=True,
        text=True,
        timeout=80,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


@pytest.mark.parametrize("header", [False, True])
def test_blocks_that_end_outside_of_the_payload(header: bool) -> None:
    payload = bare("bslz4", NOISE).copy()
    size = NOISE.nbytes
    if header:
        payload = as_bytes(size.to_bytes(8, "big") + (8192).to_bytes(4, "big") + payload.tobytes())
    start = check_bslz4(payload, size, 2).start
    assert start == 12 * header
    damaged = payload.copy()
    damaged[start : start + 4] = 255
    for wrong in (damaged, payload[:-1], as_bytes(payload.tobytes() + b"x"), payload[:0]):
        with pytest.raises(CodecError):
            check_bslz4(wrong, size, 2)
    for size_and_item in ((size + 2, 2), (size, 0), (size + 1, 2)):
        with pytest.raises(CodecError):
            check_bslz4(payload, *size_and_item)


@pytest.mark.parametrize("codec", ["blosc", "lz4", "bslz4", "zstd"])
def test_a_small_payload_does_not_fill_the_memory(codec: str) -> None:
    pixels = np.zeros(10_000_000, np.uint8)
    payload = (
        as_bytes(pytest.importorskip("zstandard").ZstdCompressor().compress(pixels))
        if codec == "zstd"
        else bare(codec, pixels)
    )
    huge = payload[: payload.size // 4] if codec in ("lz4", "bslz4") else payload
    expected = pixels.nbytes if codec in ("lz4", "bslz4") else 1000
    tracemalloc.start()
    try:
        with pytest.raises(CodecError):
            decompress(codec, huge, pixels.dtype, expected)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_blocks_of_no_bytes_have_an_end() -> None:
    payload = as_bytes(PIXELS.nbytes.to_bytes(8, "big") + bytes(500))
    for codec in ("lz4", "bslz4"):
        with pytest.raises(CodecError):
            decompress(codec, payload, PIXELS.dtype, PIXELS.nbytes)
    with pytest.raises(CodecError, match="blocks of 0 bytes"):
        strip_hdf5_header("lz4", payload.tobytes(), PIXELS.nbytes)


@pytest.mark.parametrize("codec", ["blosc", "lz4", "bslz4"])
@pytest.mark.parametrize("damage", ["cut", "empty", "garbage"])
def test_damaged_payloads_are_codec_errors(codec: str, damage: str) -> None:
    payload = bare(codec, NOISE)
    payload = {
        "cut": payload[: payload.size // 3],
        "empty": payload[:0],
        "garbage": as_bytes(b"\xff" * 400),
    }[damage]
    with pytest.raises(CodecError):
        decompress(codec, payload, NOISE.dtype, NOISE.nbytes)


def test_a_payload_of_another_size_is_a_codec_error() -> None:
    with pytest.raises(CodecError, match=f"gives {PIXELS.nbytes} bytes, 100 expected"):
        decompress("blosc", bare("blosc", PIXELS), PIXELS.dtype, 100)


def test_bytes_around_the_payload_can_be_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVAPY_COMPRESSED_PAYLOAD_START", "3")
    monkeypatch.setenv("PVAPY_COMPRESSED_PAYLOAD_END", "-2")
    payload = as_bytes(b"abc" + bare("lz4", PIXELS).tobytes() + b"de")
    assert np.array_equal(decompress("lz4", payload, PIXELS.dtype, PIXELS.nbytes), PIXELS)


def test_a_wrong_offset_is_a_codec_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVAPY_COMPRESSED_PAYLOAD_START", "twelve")
    with pytest.raises(CodecError, match="twelve"):
        decompress("lz4", bare("lz4", PIXELS), PIXELS.dtype, PIXELS.nbytes)


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "blosc", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pvapy-stream\[codecs\]'"):
        decompress("blosc", as_bytes(b"abc"), PIXELS.dtype, 100)
