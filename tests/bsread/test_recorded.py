"""Messages recorded from a psi-bsread sender; see data/README.md."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pvapy_stream.bsread.codec import Decoder, Encoder, Message
from pvapy_stream.bsread.header import ELEMENT_TYPES

DATA = Path(__file__).parent / "data"


def recorded(name: str) -> Iterator[list[bytes]]:
    raw = (DATA / name).read_bytes()
    at = 0

    def number() -> int:
        nonlocal at
        at += 4
        return struct.unpack_from("<I", raw, at - 4)[0]

    while at < len(raw):
        parts = []
        for _ in range(number()):
            size = number()
            parts.append(raw[at : at + size])
            at += size
        yield parts


def array(kind: str, order: str, shape: tuple[int, ...], pulse: int) -> np.ndarray:
    count = np.arange(int(np.prod(shape))) + pulse
    dtype = np.dtype(kind).newbyteorder("<" if order == "little" else ">")
    return (count % (2 if kind == "bool" else 100)).astype(dtype).reshape(shape)


def expected(pulse: int, long: bool) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for kind in ELEMENT_TYPES:
        for order in ("little", "big"):
            values[f"{kind}-{order}"] = array(kind, order, (3, 4), pulse)
            values[f"{kind}-{order}-1"] = array(kind, order, (1,), pulse)
    if long:
        values["long"] = array("uint32", "little", (20_000,), pulse)
    values["short"] = array("uint32", "little", (20,), pulse)
    values["float"] = np.array([pulse + 0.5])
    values["int"] = np.array([pulse])
    values["flag"] = np.array([pulse % 2 == 1])
    values["text"] = f"pulse {pulse} µ"
    values["missing"] = None if pulse == 3 else np.array([float(pulse)])
    return values


FILES = ["plain", "lz4", "bitshuffle"]


def messages(name: str) -> list[Message]:
    decoder = Decoder()
    decoded = [decoder.decode(parts) for parts in recorded(f"psi_bsread_{name}.bin")]
    assert len(decoded) == 3
    return [message for message in decoded if isinstance(message, Message)]


@pytest.mark.parametrize("name", FILES)
def test_every_value_is_what_was_sent(name: str) -> None:
    for pulse, message in enumerate(messages(name), 1):
        time = (1_700_000_000 + pulse) * 10**9 + 123_456_789
        assert (message.pulse_id, message.timestamp_ns) == (pulse, time)
        values = {value.header.name: value for value in message.channels}
        sent = expected(pulse, name != "plain")
        assert values.keys() == sent.keys()
        for channel, value in values.items():
            got, want = value.decode(), sent[channel]
            if isinstance(want, np.ndarray):
                assert isinstance(got, np.ndarray)
                assert got.shape == want.shape
                # The sender names the byte order of one-byte types too.
                assert got.dtype == want.dtype
                assert np.array_equal(got, want)
            else:
                assert got == want
            assert value.present == (want is not None)
            assert value.timestamp_ns == (time if value.present else None)


@pytest.mark.parametrize("name", FILES)
def test_our_encoder_makes_values_of_the_same_bytes(name: str) -> None:
    message = messages(name)[0]
    encoder = Encoder([value.header for value in message.channels])
    values = {value.header.name: value.decode() for value in message.channels}
    parts = encoder.encode(1, message.timestamp_ns, values)
    theirs = [bytes(part) for part in message.parts[2:]]
    assert [bytes(part) for part in parts[2:]] == theirs
