"""Messages cut out of a stream of bytes, in whatever pieces it arrives."""

from __future__ import annotations

import resource
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvapy_stream.errors import WireError
from pvapy_stream.pva.wire.buffers import Writer
from pvapy_stream.pva.wire.limits import Limits
from pvapy_stream.pva.wire.stream import (
    Assembler,
    Command,
    StreamMessage,
    control,
    message,
    segments,
)
from tests.pva.wire.support import patient

# Types in types have long descriptions.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

Sent = tuple[int, list[bytes]]


def bytes_of(sent: Sent, big: bool) -> bytes:
    """A message in as many segments as it has payloads; without any, a control message."""
    command, payloads = sent
    if not payloads:
        return control(2, command, big)
    if len(payloads) > 1:
        return b"".join(segments(command, payloads, big))
    writer = Writer(big)
    writer.raw(payloads[0])
    return b"".join(message(command, writer))


def told(found: StreamMessage) -> tuple[int, bytes]:
    if found.control:
        return found.value, b""
    return found.command, b"".join(found.payload)


payloads = st.one_of(st.binary(max_size=20), st.sampled_from([4095, 4096, 65_528, 65_529, 200_000]))
some = st.lists(payloads.map(lambda p: p if isinstance(p, bytes) else bytes(p)), max_size=4)
sent = st.lists(st.tuples(st.integers(0, 30), some), max_size=5)


@patient
@given(sent, st.booleans(), st.integers(1, 100_000))
def test_messages_arrive_whole_in_whatever_pieces(
    messages: list[Sent], big: bool, piece: int
) -> None:
    data = b"".join(bytes_of(one, big) for one in messages)
    assembler = Assembler()
    found: list[StreamMessage] = []
    for start in range(0, len(data), piece if len(data) < 10_000 else max(piece, 1000)):
        size = piece if len(data) < 10_000 else max(piece, 1000)
        found += assembler.feed(data[start : start + size])
    assert [told(one) for one in found] == [(c, b"".join(p)) for c, p in messages]
    assert all(one.big is big for one in found)
    assert assembler.idle


def test_a_large_payload_is_received_where_it_stays() -> None:
    pixels = np.arange(200_000, dtype=np.uint8)
    data = b"".join(segments(Command.MONITOR, [b"head", pixels.data, b"tail"]))
    assembler, found, places = Assembler(), [], []
    rest = memoryview(data)
    while rest:
        space = assembler.space()
        count = min(len(space), len(rest), 70_000)
        space[:count] = rest[:count]
        places.append(space.obj)
        found += assembler.received(count)
        rest = rest[count:]
    head, middle, tail = found[0].payload
    assert (bytes(head), bytes(tail)) == (b"head", b"tail")
    stays = np.frombuffer(middle, np.uint8)
    assert sum(np.shares_memory(stays, place) for place in places) >= 2
    assert np.array_equal(np.frombuffer(middle, np.uint8), pixels)


@pytest.mark.parametrize("pixels", [16_384, 65_536, 262_144, 400_000])
def test_messages_of_one_length_are_received_whole(pixels: int) -> None:
    """However much comes at once, none has to be copied to be continued elsewhere."""
    parts = [b"head", bytes(pixels), b"tail"]
    one = b"".join(segments(Command.MONITOR, parts))
    assembler = Assembler()
    stream = b"".join(message(Command.ECHO, Writer())) + one * 100
    ends: list[int] = []
    at = messages = 0
    while at < len(stream):
        space = assembler.space()
        count = min(len(space), len(stream) - at)
        space[:count] = stream[at : at + count]
        at += count
        messages += len(assembler.received(count))
        if assembler.idle:
            ends.append(messages)
    assert messages == 101
    # The first fills what was there before its length was known.
    assert len(ends) >= (100 - 2**19 // len(one)) // max(1, round(2**19 / len(one))) - 1
    assert all(later - before <= 2**20 // len(one) for before, later in pairwise(ends))


def header(flags: int, command: int, size: int, magic: int = 0xCA, version: int = 2) -> bytes:
    return bytes([magic, version, flags, command]) + size.to_bytes(4, "little")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GET / HTTP/1.1\r\n", "begins with 0x47"),
        (header(0, 1, 0, version=0), "version 0"),
        (header(0, 1, 2**32 - 1), "is announced"),
        (header(0, 1, 1001), "1001 bytes is announced"),
        (header(0x20, 1, 0), "belongs to no message"),
        (header(0x30, 1, 0), "belongs to no message"),
        (header(0x10, 1, 0) + header(0x20, 2, 0), "belongs to no message"),
        (header(0x10, 1, 0) + header(0, 1, 0), "before the segments"),
        (header(0x10, 1, 600) + bytes(600) + header(0x20, 1, 600), "1200 bytes is announced"),
    ],
)
def test_what_is_no_message(data: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        Assembler(Limits(message=1000)).feed(data)


def test_an_announcement_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept = [Assembler() for _ in range(20)]
    for assembler in kept:
        assert assembler.feed(header(0, 1, 200 * 2**20)) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 2**10


def test_many_small_segments_are_joined() -> None:
    data = segments(1, [b"x"] * 20_000)
    (found,) = Assembler().feed(b"".join(data))
    assert len(found.payload) < 10
    assert b"".join(found.payload) == b"x" * 20_000
