from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest

from pvapy_stream.codecs import decompress, strip_hdf5_header
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
    with pytest.raises(CodecError, match=f"gave {PIXELS.nbytes} bytes, 100 expected"):
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
