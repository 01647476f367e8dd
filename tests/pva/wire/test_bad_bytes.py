"""Mutated, cut and random bytes: `WireError`, or a value; never anything else, never for long."""

from __future__ import annotations

import contextlib
import random
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pvapy_stream.errors import WireError
from pvapy_stream.pva.wire import changes, connecting, operations, request, searching, values
from pvapy_stream.pva.wire.buffers import Reader, Writer
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.limits import Limits
from pvapy_stream.pva.wire.stream import Assembler, Command, message, segments
from pvapy_stream.pva.wire.types import (
    AnyValue,
    Array,
    ArrayOf,
    Kind,
    Scalar,
    Selected,
    Structure,
    Union,
    Variant,
)
from tests.support import rounds

N = rounds(5000)  # for each of the seeds
LIMITS = Limits(message=2**20, string=2**16, values=20_000)

NAMED = Structure("attribute", (("name", Scalar(Kind.STRING)), ("value", Variant())))
KIND = Structure(
    "top",
    (
        ("value", Union("", (("a", Array(Kind.UBYTE)), ("b", Array(Kind.DOUBLE))))),
        ("attribute", ArrayOf(NAMED)),
        ("time", Structure("time_t", (("s", Scalar(Kind.LONG)), ("ns", Scalar(Kind.INT))))),
        ("texts", Array(Kind.STRING)),
    ),
)
VALUE: dict[str, object] = {
    "value": Selected("a", np.arange(50, dtype=np.uint8)),
    "attribute": [{"name": "x", "value": AnyValue(Scalar(Kind.INT), 5)}, None],
    "time": {"s": 5, "ns": 6},
    "texts": ["a", "bc" * 100],
}


def written(write: Callable[[Writer], object], big: bool) -> bytes:
    writer = Writer(big)
    write(writer)
    return writer.joined()


def typed(writer: Writer) -> None:
    values.write_any(AnyValue(KIND, VALUE), writer, Outgoing())


def changed(writer: Writer) -> None:
    changes.write_changes(KIND, 0b110010, VALUE, writer, Outgoing())


def choice(writer: Writer) -> None:
    connecting.Choice(method="ca", user="u", host="h").write(writer, Outgoing())


def asked(writer: Writer) -> None:
    values.write_any(request.parse("record[a=b]field(x,time.s)"), writer, Outgoing())


def searched(writer: Writer) -> None:
    channels = tuple((n, f"channel{n}") for n in range(5))
    searching.Search(1, 1, "127.0.0.1", 5, channels=channels).write(writer)


def read_request(reader: Reader) -> object:
    found = values.read_any(reader, Incoming())
    request.options(found)
    return request.selected(KIND, found)


CASES: list[tuple[Callable[[Writer], object], Callable[[Reader], object]]] = [
    (typed, lambda r: values.read_any(r, Incoming())),
    (changed, lambda r: changes.read_changes(KIND, r, Incoming(), VALUE)),
    (choice, lambda r: connecting.Choice.read(r, Incoming())),
    (asked, read_request),
    (searched, searching.Search.read),
    (connecting.ChannelRequest(((1, "a"),)).write, connecting.ChannelRequest.read),
    (operations.Reply(1, 2).write, operations.Reply.read),
]


def mutated(chance: random.Random, data: bytes) -> bytes:
    """The bytes with some of them changed, cut off, doubled or put elsewhere."""
    made = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(made) + 1)
        match chance.randrange(6):
            case 0:
                del made[at:]
            case 1:
                del made[at : at + chance.randint(1, 8)]
            case 2:
                made[at:at] = chance.randbytes(chance.randint(1, 8))
            case 3:
                made[at:at] = made[at // 2 : at]
            case 4:
                made[at : at + 5] = chance.choice(
                    [b"\xfe\xff\xff\xff\x7f", b"\xff" * 5, b"\xfd\x01\x00\x80\x00", b"\x88" * 5]
                )
            case _:
                if at < len(made):
                    made[at] = chance.choice([0, 1, 0x7F, 0x80, 0x82, 0xFD, 0xFE, 0xFF, at % 256])
    return bytes(made)


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_messages(seed: int) -> None:
    chance = random.Random(seed)
    plain = [[(written(w, big), r, big) for w, r in CASES] for big in (False, True)]
    ends = time.monotonic() + 200
    read = 0
    tracemalloc.start()
    for _ in range(N):
        data, reader, big = chance.choice(chance.choice(plain))
        with contextlib.suppress(WireError):
            reader(Reader(mutated(chance, data), big, LIMITS))
            read += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() < ends
    assert peak < 100 * 2**20
    assert 0 < read < N


@pytest.mark.parametrize("seed", [3, 4])
def test_mutated_streams(seed: int) -> None:
    chance = random.Random(seed)
    writer = Writer()
    typed(writer)
    data = b"".join(message(Command.RPC, writer))
    data += b"".join(segments(Command.PUT, [writer.joined(), bytes(300), b"end"])) + data
    found: list[Any] = []
    for _ in range(N):
        assembler = Assembler(LIMITS)
        with contextlib.suppress(WireError):
            for message_ in assembler.feed(mutated(chance, data)):
                found.append(message_.command)
                values.read_any(message_.reader(LIMITS), Incoming())
    assert Command.PUT in found


def test_random_datagrams() -> None:
    chance = random.Random(5)
    start = b"\xca\x02\x00\x03"
    for _ in range(N):
        size = chance.randrange(60)
        data = start + size.to_bytes(4, "little") + chance.randbytes(size)
        with contextlib.suppress(WireError):
            for found in searching.datagram(data):
                searching.Search.read(searching.read_datagram(found))
