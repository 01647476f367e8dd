"""Messages of Stream V2: what is read, and what is refused."""

from __future__ import annotations

import struct
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvapy_stream.codecs import decompress
from pvapy_stream.dectris.arrays import read_picture, written
from pvapy_stream.dectris.cbor import decode, encode, tagged
from pvapy_stream.dectris.messages import End, Image, SeriesName, Start, date_ns, read_message
from pvapy_stream.errors import DectrisError
from pvapy_stream.files import chunks

PIXELS = (np.arange(40 * 50) % 100).astype(np.uint32).reshape(40, 50)


def packed(codec: str) -> bytes:
    return bytes(chunks.encode(codec, PIXELS))


def image(**changes: Any) -> dict[str, Any]:
    return {
        "type": "image",
        "series_id": 3,
        "series_unique_id": "u",
        "image_id": 7,
        "series_date": tagged(0, "2026-01-02T03:04:05.25+01:00"),
        "start_time": [1, 2],
        "stop_time": [3, 2],
        "real_time": [1, 1],
        "user_data": {"any": [1, None, "x"]},
        "data": {"threshold_1": written(PIXELS, "bslz4", packed("bslz4"))},
        **changes,
    }


def test_an_image_has_its_times_and_attributes() -> None:
    message = read_message(encode(image()))
    assert isinstance(message, Image)
    assert (message.series, message.number) == (SeriesName(3, "u"), 7)
    assert message.time_ns == date_ns("2026-01-02T02:04:05.75Z") > 1.7e18
    assert message.attributes == {
        "SeriesId": 3, "ImageId": 7, "SeriesUniqueId": "u",
        "StartTime": 0.5, "StopTime": 1.5, "RealTime": 1.0,
    }  # fmt: skip


def test_a_start_has_its_scalars_and_an_end_its_series() -> None:
    start = read_message(
        encode(
            {
                "type": "start", "series_id": 3, "number_of_images": 10, "channels": ["a", "b"],
                "incident_energy": 12400.0, "saturation_value": 9,
                "detector_translation": [0.0, 0.0, 0.2],
                "threshold_energy": {"a": 6000.0}, "image_size_x": 50, "image_size_y": 40,
                "image_dtype": "uint32", "flatfield": {"a": written(PIXELS)},
                "count_time": "x" * 5000,
            }
        )
    )  # fmt: skip
    assert isinstance(start, Start)
    assert (start.series, start.n_images, start.channels) == (SeriesName(3), 10, ("a", "b"))
    assert (start.shape, start.dtype, start.energies) == ((40, 50), "uint32", {"a": 6000.0})
    assert start.attributes["IncidentEnergy"] == 12400.0
    assert start.attributes["DetectorDistance"] == 0.2
    assert len(str(start.attributes["CountTime"])) == 1000
    assert read_message(encode({"type": "end", "series_id": 3})) == End(SeriesName(3))


@pytest.mark.parametrize("codec", ["", "lz4", "bslz4"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float32", "int64"])
def test_pixels_are_those_that_were_sent(codec: str, dtype: str) -> None:
    pixels = PIXELS.astype(dtype)
    chunk = bytes(chunks.encode(codec, pixels)) if codec else b""
    picture = read_picture(decode(encode(written(pixels, codec, chunk))))
    assert (picture.shape, picture.dtype, picture.codec) == ((40, 50), np.dtype(dtype), codec)
    found = picture.payload
    if codec:
        # Without the header, as area detector plugins send it.
        assert picture.payload.tobytes() in chunk
        assert picture.payload.nbytes < len(chunk)
        found = decompress(codec, picture.payload, picture.dtype, pixels.nbytes)
    assert np.array_equal(found.reshape(40, 50), pixels)


def test_big_endian_pixels_are_turned() -> None:
    value = tagged(40, [[40, 50], tagged(66, PIXELS.astype(">u4").tobytes())])
    picture = read_picture(decode(encode(value)))
    assert picture.dtype == np.dtype("uint32")
    assert np.array_equal(picture.payload.reshape(40, 50), PIXELS)


def test_lz4_of_several_blocks_keeps_its_header() -> None:
    import lz4.block

    plain, block = PIXELS.tobytes(), 1000
    parts = [struct.pack(">QI", len(plain), block)]
    for at in range(0, len(plain), block):
        one = lz4.block.compress(plain[at : at + block], store_size=False)
        parts += [struct.pack(">I", len(one)), one]
    chunk = b"".join(parts)
    picture = read_picture(decode(encode(written(PIXELS, "lz4", chunk))))
    assert picture.payload.tobytes() == chunk
    found = decompress("lz4", picture.payload, picture.dtype, PIXELS.nbytes)
    assert found.tobytes() == plain


def _matrix(dims: Any = (40, 50), tag: int = 70, data: Any = None) -> Any:
    return tagged(40, [list(dims), tagged(tag, PIXELS.tobytes() if data is None else data)])


def _packed(codec: Any = "bslz4", element: Any = 4, data: Any = None) -> Any:
    chunk = packed("bslz4") if data is None else data
    return _matrix(data=tagged(56500, [codec, element, chunk]))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (5, "no array of two dimensions"),
        (_matrix(dims=(40, 51)), "8000 bytes, not 8160"),
        (_matrix(dims=(2000,)), "not two"),
        (_matrix(dims=(0, 50)), "the dimensions"),
        (_matrix(dims=(2**40, 2**40)), "the dimensions"),
        (_matrix(dims=(2**20, 2**20)), "larger than the allowed"),
        (_matrix(dims=("a", 50)), "the dimensions"),
        (_matrix(tag=83), "tag 83 are not supported"),
        (_matrix(data="text"), "are no bytes"),
        (_packed("zstd"), "'zstd' is not supported"),
        (_packed(["bslz4"]), "is not supported"),
        (_packed(element=2), "elements of 2 bytes, and pixels have 4"),
        (_packed(data=b""), "do not begin with their size"),
        (_packed(data=packed("bslz4")[:-3]), "end within its blocks|blocks end at"),
        (_packed(data=packed("bslz4") + b"12"), "blocks end at"),
        (_packed(data=struct.pack(">QI", 8001, 8192) + packed("bslz4")[12:]), "their size"),
        (_packed(data=struct.pack(">QI", 8000, 7) + packed("bslz4")[12:]), "blocks of 7 bytes"),
        (_packed("lz4", 0, struct.pack(">QI", 8000, 0)), "cannot give|blocks of 0 bytes"),
        (_matrix(tag=66, data=tagged(56500, ["lz4", 0, packed("lz4")])), "big-endian"),
        (tagged(1040, [[40, 50], tagged(70, PIXELS.tobytes())]), "no array of two dimensions"),
    ],
)  # fmt: skip
def test_pixels_that_do_not_fit_are_refused(value: Any, why: str) -> None:
    with pytest.raises(DectrisError, match=why):
        read_picture(decode(encode(value)))


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "no CBOR"),
        (encode(image()) + b"\0", "bytes follow"),
        (encode([1]), "no map"),
        (encode({"type": "pause"}), "unknown type 'pause'"),
        (encode({"type": ["image"]}), "unknown type"),
        (encode(image(image_id=-1)), "image_id is -1"),
        (encode(image(image_id=True)), "image_id is True"),
        (encode(image(series_id=2**70)), "series_id is"),
        (encode(image(series_unique_id=4)), "no text"),
        (encode(image(data=[1])), "no data by channel"),
        (encode(image(data={1: 2})), "no data by channel"),
        (encode({"type": "start", "series_id": 1, "channels": 7}), "no list of channels"),
        (encode({"type": "start", "series_id": 1, "number_of_images": "9"}), "number_of_images"),
        (b"\x81" * 20 + b"\0", "depth"),
        (b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "no CBOR"),
        (b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff\0", "no CBOR"),
        (b"\xbf\x61a\x01\xff", "indefinite"),
        (b"\xa2\x61a\x01\x61a\x02", "Duplicate"),
    ],
)
def test_messages_that_do_not_fit_are_refused(message: bytes, why: str) -> None:
    with pytest.raises(DectrisError, match=why):
        read_message(message)


def test_no_tag_is_executed() -> None:
    for tag in range(1200):
        # What the library itself would make of it: a date, a pattern, a mail …
        for value in (1, "x: y", [1, 2]):
            message = encode([cbor2.CBORTag(tag, value)])
            assert isinstance(decode(message)[0], cbor2.CBORTag), (tag, value)


def _read(message: bytes) -> None:
    """Read as the receiver does: all that is wrong is a `DectrisError`."""
    try:
        content = read_message(message)
        if isinstance(content, Image):
            for value in content.data.values():
                picture = read_picture(value)
                assert picture.payload.size > 0
    except DectrisError:
        pass


WHOLE = [encode(image()), encode(image(data={"a": written(PIXELS)}))]


@given(st.sampled_from(WHOLE), st.data())
def test_damaged_messages_never_raise_anything_else(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        # Most often where the structure is, and not the pixels.
        limit = data.draw(st.sampled_from([300, len(damaged)]))
        damaged[data.draw(st.integers(0, min(limit, len(damaged)) - 1))] = data.draw(
            st.integers(0, 255)
        )
    _read(bytes(damaged))
    _read(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


@given(st.binary(max_size=200))
def test_noise_never_raises_anything_else(noise: bytes) -> None:
    _read(noise)
    _read(b"\xa2\x64type\x65image" + noise)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T00:00:01.000000002Z", 1_000_000_002),
        ("1970-01-02T00:00:00-01:00", 90_000_000_000_000),
        ("1970-13-01T00:00:00Z", 0),
        ("yesterday", 0),
    ],
)
def test_dates(text: str, value: int) -> None:
    assert date_ns(text) == value
