"""bsread messages there and back, from other implementations' bytes, and damaged."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import bitshuffle
import h5py
import hdf5plugin  # noqa: F401 - registers the filters
import lz4.block
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pvapy_stream.bsread.codec import (
    ChannelHeader,
    ChannelValue,
    ControlMessage,
    Decoder,
    Encoder,
    Message,
    MessageLimits,
)
from pvapy_stream.bsread.header import COMPRESSIONS, ELEMENT_TYPES
from pvapy_stream.errors import BsreadError
from tests.support import rounds

TIME = 1_700_000_000_123_456_789


def decoded(parts: Any, limits: MessageLimits | None = None) -> Message:
    message = Decoder(limits).decode(parts)
    assert isinstance(message, Message)
    return message


def message_of(channels: list[dict[str, Any]], *parts: bytes, **main: Any) -> list[bytes]:
    """A message made by hand."""
    head = {"htype": "bsr_m-1.1", "pulse_id": 7, "hash": "h", **main}
    data = {"htype": "bsr_d-1.1", "channels": channels}
    return [json.dumps(head).encode(), json.dumps(data).encode(), *parts]


def stamp(encoding: str = "<") -> bytes:
    return struct.pack(f"{encoding}qq", 1_700_000_000, 123_456_789)


headers = st.builds(
    ChannelHeader,
    name=st.text(min_size=1, max_size=12),
    type=st.sampled_from([*ELEMENT_TYPES, "string"]),
    shape=st.lists(st.integers(0, 6), min_size=1, max_size=3).map(tuple),
    encoding=st.sampled_from(["little", "big"]),
    compression=st.sampled_from(COMPRESSIONS),
    modulo=st.integers(1, 100),
    offset=st.integers(0, 99),
)
times = st.integers(0, 2**62)


def values_of(header: ChannelHeader) -> st.SearchStrategy[Any]:
    if header.dtype is None:
        return st.text(max_size=50).map(lambda text: text.rstrip("\0"))
    return hnp.arrays(header.dtype, header.array_shape)


@given(data=st.data())
@settings(max_examples=rounds(50), deadline=None)
def test_there_and_back(data: st.DataObject) -> None:
    channels = data.draw(st.lists(headers, max_size=5, unique_by=lambda header: header.name))
    values = {c.name: data.draw(values_of(c)) for c in channels if data.draw(st.booleans())}
    stamps = {name: data.draw(times) for name in values}
    encoder = Encoder(
        channels,
        data.draw(st.sampled_from(COMPRESSIONS)),
        data.draw(st.sampled_from(["little", "big"])),
    )
    pulse, time = data.draw(st.integers(-(2**63), 2**63 - 1)), data.draw(st.none() | times)
    parts = encoder.encode(pulse, time, values, stamps)
    message = decoded(parts)
    assert (message.pulse_id, message.timestamp_ns, message.hash) == (pulse, time, encoder.hash)
    assert [value.header for value in message.channels] == channels
    for value in message.channels:
        sent, got = values.get(value.header.name), value.decode()
        assert value.present == (sent is not None)
        if isinstance(sent, np.ndarray):
            assert isinstance(got, np.ndarray)
            assert (got.dtype, got.shape, got.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())
        else:
            assert got == sent
        if sent is not None:
            assert value.timestamp_ns == stamps[value.header.name]


def test_defaults_of_what_is_not_said() -> None:
    parts = message_of([{"name": "x"}], struct.pack("<d", 1.5), stamp())
    value = decoded(parts).channels[0]
    assert value.header == ChannelHeader("x", "float64", (1,), "little", "none", 1, 0)
    assert value.decode() == np.array([1.5])
    assert value.timestamp_ns == TIME


@pytest.mark.parametrize(
    ("main", "expected"),
    [
        ({"global_timestamp": {"sec": 3, "ns": 4}}, 3_000_000_004),
        ({"global_timestamp": {"epoch": 3, "ns": 4}}, 3_000_000_004),
        ({"global_timestamp": None}, None),
        ({"htype": "bsr_m-1.0"}, None),
    ],
)
def test_main_headers_of_other_senders(main: dict[str, Any], expected: int | None) -> None:
    message = decoded(message_of([], **main))
    assert (message.pulse_id, message.timestamp_ns, message.channels) == (7, expected, [])


def test_missing_pulse_id_means_0() -> None:
    assert decoded(message_of([], pulse_id=None)).pulse_id == 0


@pytest.mark.parametrize("htype", ["bsr_stop-1.0", ["bsr_stop-1.0"]])
def test_commands(htype: Any) -> None:
    assert Decoder().decode([json.dumps({"htype": htype}).encode()]) == ControlMessage("stop")
    again = {"htype": "bsr_reconnect-1.0", "address": "tcp://x:1"}
    assert Decoder().decode([json.dumps(again).encode()]) == ControlMessage(
        "reconnect", "tcp://x:1"
    )


def test_shape_is_fastest_first_and_type_in_any_case() -> None:
    image = np.arange(12, dtype=">u2").reshape(3, 4)
    channel = {"name": "i", "type": "UInt16", "shape": [4, 3], "encoding": "big"}
    parts = message_of([channel], image.tobytes(), stamp(">"))
    value = decoded(parts).channels[0]
    assert (value.header.array_shape, value.timestamp_ns) == ((3, 4), TIME)
    assert np.array_equal(value.decode(), image)


def test_timestamp_that_is_little_endian_in_a_big_endian_channel() -> None:
    parts = message_of([{"name": "x", "encoding": "big"}], struct.pack(">d", 1), stamp("<"))
    assert decoded(parts).channels[0].timestamp_ns == TIME


def test_text_padded_with_nul_empty_text_and_missing_text() -> None:
    names = [{"name": name, "type": "string"} for name in "abc"]
    parts = message_of(names, "µ\0\0".encode(), stamp(), b"", stamp(), b"", b"")
    values = decoded(parts).channels
    assert [value.decode() for value in values] == ["µ", "", None]
    assert [value.present for value in values] == [True, True, False]


def test_number_that_is_only_a_time_is_missing() -> None:
    value = decoded(message_of([{"name": "x"}], b"", stamp())).channels[0]
    assert (value.present, value.decode()) == (False, None)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("encoding", ["little", "big"])
def test_lz4_with_both_prefixes(order: str, encoding: str) -> None:
    array = np.arange(300, dtype="<i4" if encoding == "little" else ">i4")
    packed = struct.pack(f"{order}I", array.nbytes) + lz4.block.compress(
        array.tobytes(), store_size=False
    )
    header = ChannelHeader("x", "int32", (300,), encoding, "lz4")
    value = ChannelValue(header, packed, None, True)
    assert np.array_equal(value.decode(), array)


@pytest.mark.parametrize("n", [1, 7, 20, 2049, 20_000])
@pytest.mark.parametrize(("said", "block"), [(0, 0), (8192, 2048), (1024, 256)])
def test_bitshuffle_of_other_block_sizes(n: int, said: int, block: int) -> None:
    array = np.arange(n, dtype="<u4")
    packed = (
        struct.pack(">qi", array.nbytes, said) + bitshuffle.compress_lz4(array, block).tobytes()
    )
    header = ChannelHeader("x", "uint32", (n,), "little", "bitshuffle_lz4")
    assert np.array_equal(ChannelValue(header, packed, None, True).decode(), array)


@pytest.mark.parametrize("encoding", ["little", "big"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("fill", [np.zeros, lambda n: np.random.default_rng(1).integers(0, 99, n)])
def test_value_goes_into_a_file_as_it_is(
    tmp_path: Any, encoding: str, compression: str, fill: Any
) -> None:
    header = ChannelHeader("x", "int16", (40, 101), encoding, compression)
    array = fill(4040).astype(header.dtype).reshape(101, 40)
    value = decoded(Encoder([header]).encode(1, TIME, {"x": array})).channels[0]
    chunk = value.hdf5_chunk()
    assert chunk is not None
    filters = (
        {"compression": chunk.filter_id, "compression_opts": chunk.options}
        if chunk.filter_id
        else {}
    )
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset(
            "x", (1, 101, 40), header.dtype, chunks=(1, 101, 40), **filters
        )
        dataset.id.write_direct_chunk((0, 0, 0), chunk.data)
        assert np.array_equal(dataset[0], array)


def test_data_header_is_read_by_its_bytes_not_by_its_hash() -> None:
    decoder = Decoder()
    first = decoder.decode(message_of([{"name": "a"}], b"", b""))
    second = decoder.decode(message_of([{"name": "b"}], b"", b""))
    again = decoder.decode(message_of([{"name": "a"}], b"", b""))
    assert [m.channels[0].header.name for m in (first, second, again)] == ["a", "b", "a"]
    assert first.channels[0].header is again.channels[0].header


DOUBLE = [{"name": "x"}]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([], "without parts"),
        ([b"{"], "not readable"),
        ([b"\xff\xfe"], "not readable"),
        ([b"[" * 100_000], "are allowed"),
        ([b'{"htype":' + b"[" * 10_000], "not readable"),
        ([b'{"htype":"bsr_d-1.1"}'], "'bsr_m-1.1' expected"),
        (message_of([])[:1], "without a data header"),
        (message_of([], pulse_id=2**63), "64 bits"),
        (message_of([], pulse_id="x"), "pulse_id"),
        (message_of(DOUBLE, b"12345678"), "3 parts; 1 channels need 4"),
        (message_of(DOUBLE, b"12345678", b"123"), "a timestamp of 3 bytes"),
        (message_of([{"name": "x"}, {"name": "x"}], *[b""] * 4), "names channel 'x' twice"),
        (message_of([{"name": ""}], b"", b""), "without a name"),
        (message_of([{"name": "x", "type": "complex"}], b"", b""), "type 'complex' is unknown"),
        (message_of([{"name": "x", "shape": [-1]}], b"", b""), "impossible"),
        (message_of([{"name": "x", "shape": [1] * 33}], b"", b""), "impossible"),
        (message_of([{"name": "x", "encoding": "mixed"}], b"", b""), "neither little nor big"),
        (message_of([{"name": "x", "compression": "zip"}], b"", b""), "'zip' is unknown"),
        (message_of([{"shape": [1]}], b"", b""), "name"),
        (message_of([], dh_compression="zip"), "'zip' of the data header"),
        (message_of([], dh_compression="lz4"), "cannot be unpacked"),
        (message_of([], dh_compression="bitshuffle_lz4"), "cannot be unpacked"),
    ],
)
def test_malformed_messages(parts: list[bytes], expected: str) -> None:
    with pytest.raises(BsreadError, match=expected):
        Decoder().decode(parts)


def damaged(compression: str, data: bytes, shape: tuple[int, ...] = (100,)) -> ChannelValue:
    return ChannelValue(ChannelHeader("x", "int32", shape, "little", compression), data, None, True)


GOOD = bitshuffle.compress_lz4(np.zeros(100, "i4"), 0).tobytes()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (damaged("none", b"1234"), "4 bytes where shape and type ask for 400"),
        (damaged("lz4", b"1"), "not an lz4 value"),
        (damaged("lz4", struct.pack("<I", 401) + b"x"), "401 bytes, 400 expected"),
        (damaged("lz4", struct.pack("<I", 400) + b"\xf0\x01xy"), "damaged"),
        (damaged("lz4", struct.pack("<I", 400) + b""), "cannot unpack to 400"),
        (damaged("bitshuffle_lz4", b"1234"), "not a bitshuffle_lz4 value"),
        (damaged("bitshuffle_lz4", struct.pack(">qi", 401, 0) + GOOD), "401 bytes, 400 expected"),
        (damaged("bitshuffle_lz4", struct.pack(">qi", 400, -8) + GOOD), "blocks of -8 bytes"),
        (damaged("bitshuffle_lz4", struct.pack(">qi", 400, 20) + GOOD), "blocks of 20 bytes"),
        (damaged("bitshuffle_lz4", struct.pack(">qi", 400, 0) + GOOD[:-20]), "end at byte"),
        (damaged("bitshuffle_lz4", struct.pack(">qiI", 400, 0, 2**31) + GOOD), "end at byte"),
        (damaged("none", b"", (2**40, 2**40)), "are allowed"),
        (damaged("lz4", struct.pack("<I", 4 * 2**28) + b"x" * 99, (2**28,)), "cannot unpack"),
        (
            damaged("bitshuffle_lz4", struct.pack(">qi", 4 * 2**27, 0) + b"x" * 99, (2**27,)),
            "cannot unpack",
        ),
    ],
)
def test_damaged_values_and_bombs(value: ChannelValue, expected: str) -> None:
    with pytest.raises(BsreadError, match=f"channel 'x': .*{expected}"):
        value.decode()
    if value.header.compression != "lz4":  # whose damage a file takes as it is
        with pytest.raises(BsreadError, match=f"channel 'x'.*({expected}|blocks|allowed)"):
            value.hdf5_chunk()


def test_text_and_header_bombs() -> None:
    bomb = lz4.block.compress(bytes(10_000_000), store_size=False)
    small = MessageLimits(data_header=1_000_000, value=1_000_000)
    header = ChannelHeader("x", "string", (1,), "little", "lz4")
    text = ChannelValue(header, struct.pack("<I", 10_000_000) + bomb, None, True, small)
    with pytest.raises(BsreadError, match="1000000 are allowed"):
        text.decode()
    parts = message_of([], dh_compression="lz4")
    parts[1] = struct.pack("<I", 10_000_000) + bomb
    with pytest.raises(BsreadError, match="1000000 are allowed"):
        Decoder(small).decode(parts)


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        (ChannelHeader("x", "string"), 1, "takes text"),
        (ChannelHeader("x", "int16"), 1.5, "does not fit into int16"),
        (ChannelHeader("x", "int8"), 300, "does not fit into int8"),
        (ChannelHeader("x", "int16"), np.float64(1.5), "cast"),
        (ChannelHeader("x", "int16", (3,)), [1, 2], r"shape \(3,\), the value \(2,\)"),
        (ChannelHeader("x", "int16", (2, 3)), np.zeros((2, 3), "i2"), r"shape \(3, 2\)"),
    ],
)
def test_values_that_do_not_fit_are_not_sent(header: Any, value: Any, expected: str) -> None:
    with pytest.raises(BsreadError, match=expected):
        Encoder([header]).encode(1, 1, {"x": value})
    with pytest.raises(BsreadError, match="no channel 'y'"):
        Encoder([header]).encode(1, 1, {"y": value})


def mutate(rng: random.Random, parts: list[bytes]) -> list[bytes]:
    """The parts with one to four kinds of damage."""
    made = list(parts)
    for _ in range(rng.randint(1, 4)):
        index = rng.randrange(len(made)) if made else 0
        kind = rng.randrange(6)
        if kind == 0 and made:
            del made[index]
        elif kind == 1:
            made.insert(index, rng.randbytes(rng.randrange(40)))
        elif made and made[index]:
            part, at = bytearray(made[index]), rng.randrange(len(made[index]))
            if kind == 2:
                part[at] ^= 1 << rng.randrange(8)
            elif kind == 3:
                del part[at:]
            elif kind == 4:
                part[at : at + 4] = rng.randbytes(4)
            else:
                part[at:at] = rng.randbytes(rng.randrange(1, 9))
            made[index] = bytes(part)
    return made


@pytest.mark.parametrize("dh_compression", COMPRESSIONS)
def test_mutated_messages_give_messages_or_our_error(dh_compression: str) -> None:
    rng = random.Random(dh_compression)
    channels = [
        ChannelHeader(
            f"{kind}-{packed}", kind, (1,) if kind == "string" else (33, 9), "big", packed
        )
        for kind in ("uint16", "float64", "string")
        for packed in COMPRESSIONS
    ]
    values = {c.name: "text" if c.dtype is None else np.ones((9, 33), c.dtype) for c in channels}
    good = [bytes(part) for part in Encoder(channels, dh_compression).encode(1, TIME, values)]
    decoder, refused = Decoder(MessageLimits(value=2**24)), 0
    for _ in range(1000):
        try:
            message = decoder.decode(mutate(rng, good))
        except BsreadError:
            refused += 1
            continue
        for value in message.channels if isinstance(message, Message) else ():
            try:
                value.decode()
                value.hdf5_chunk()
            except BsreadError:
                refused += 1
    assert refused > 300
    assert decoded(good).channels[0].decode() is not None
