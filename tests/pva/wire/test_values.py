"""Types and values: what is written is read back, in either byte order and in any chunks."""

from __future__ import annotations

import gc
import tracemalloc
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvapy_stream.errors import WireError
from pvapy_stream.pva.wire import changes, values
from pvapy_stream.pva.wire.buffers import NULL, Reader, Writer
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.limits import Limits
from pvapy_stream.pva.wire.types import (
    AnyValue,
    Array,
    ArrayOf,
    Extent,
    Kind,
    Scalar,
    Structure,
    Variant,
    default,
)
from tests.pva.wire.support import decoded, encoded, patient, same, structures, typed
from tests.pva.wire.support import values as values_of

# Types in types have long descriptions.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

INT = Scalar(Kind.INT)


@patient
@given(typed, st.booleans())
def test_what_is_written_is_read(value: AnyValue, big: bool) -> None:
    assert same(decoded(encoded(value, big), big), value)


@patient
@given(typed, st.booleans(), st.lists(st.integers(0, 300), max_size=6))
def test_chunks_make_no_difference(value: AnyValue, big: bool, cuts: list[int]) -> None:
    data = encoded(value, big)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[a:b] for a, b in pairwise(places)]
    assert same(decoded(chunks, big), value)


@patient
@given(typed)
def test_a_type_is_sent_once(value: AnyValue) -> None:
    writer, sent, known = Writer(), Outgoing(), Incoming()
    for _ in range(3):
        values.write_any(value, writer, sent)
    reader = Reader(writer.joined())
    for _ in range(3):
        assert same(values.read_any(reader, known), value)
    assert reader.rest == 0
    again = Writer()
    sent.write(again, value.type)
    assert len(again) == 3


@patient
@given(st.data(), structures, st.booleans())
def test_only_what_changed_is_sent(data: st.DataObject, kind: Structure, big: bool) -> None:
    before, after = data.draw(values_of(kind)), data.draw(values_of(kind))
    bits = data.draw(st.integers(0, 2**kind.count - 1))
    writer = Writer(big)
    changes.write_changes(kind, bits, after, writer, Outgoing())
    reader = Reader(writer.joined(), big)
    found, value = changes.read_changes(kind, reader, Incoming(), before)
    assert found == bits
    assert reader.rest == 0
    if bits & 1:
        assert same(value, after)
        return
    for (name, inner), start in zip(kind.fields, kind.starts, strict=True):
        if bits >> start & 1:
            assert same(value[name], after[name])
        elif not bits >> start & ((1 << inner.count) - 1):
            assert same(value[name], before[name])


@patient
@given(st.integers(0, 2**200), st.booleans())
def test_bit_sets(bits: int, big: bool) -> None:
    writer = Writer(big)
    changes.write_bits(bits, writer)
    assert changes.read_bits(Reader(writer.joined(), big)) == bits


@pytest.mark.parametrize(
    ("size", "data"),
    [
        (0, "00"), (253, "fd"), (254, "fe fe000000"), (2**31 - 2, "fe feffff7f"),
        (2**31 - 1, "fe ffffff7f ffffff7f00000000"), (2**40, "fe ffffff7f 0000000000010000"),
        (NULL, "ff"),
    ],
)  # fmt: skip
def test_sizes(size: int, data: str) -> None:
    writer = Writer()
    writer.size(size)
    assert writer.joined() == bytes.fromhex(data)
    assert Reader(writer.joined()).size() == size


def test_arrays_look_into_the_message_and_into_what_was_given() -> None:
    kind, array = Array(Kind.USHORT), np.arange(10_000, dtype=np.uint16)
    writer = Writer()
    values.write(kind, array, writer, Outgoing())
    assert any(np.shares_memory(array, np.frombuffer(p, np.uint8)) for p in writer.parts())
    data = writer.joined()
    found = cast("np.ndarray[Any, Any]", values.read(kind, Reader(data), Incoming()))
    assert np.shares_memory(found, np.frombuffer(data, np.uint8))
    assert not found.flags.writeable
    # An array that is a chunk by itself is not copied either.
    chunks = [data[:5], data[5:]]
    found = cast("np.ndarray[Any, Any]", values.read(kind, Reader(chunks), Incoming()))
    assert np.shares_memory(found, np.frombuffer(chunks[1], np.uint8))


DEEP: Structure = Structure("", (("x", INT),))
for _ in range(40):
    DEEP = Structure("", (("x", DEEP),))
WIDE = Structure("", tuple((f"f{n}", INT) for n in range(20_000)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too early"),
        (b"\x99", "code of no type"),
        (b"\xfe\x01\x00", "not described"),
        (b"\xfd\x01\x00\xff", "without a type"),
        (b"\x80\x00\x01\x01x\xff", "without a type"),
        (b"\x80\x00\x02\x01x\x22\x01x\x22", "two fields of one name"),
        (b"\x88\x22", "elements of another type"),
        (b"\x68\xfe\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x7f", "does not fit"),
        (b"\x2b\xfe\x00\x00\x00\x10", "does not fit"),
        (b"\x2b\xfe\x00\x00\x00\x80", "a size is"),
        (b"\x60\xfe\xff\xff\xff\x70", "longer than"),
        (b"\x38\xff\x00", "no size"),
        (b"\x34\x02\x03\x01\x02\x03", "at most 2"),
        (b"\x81\x00\x01\x01x\x22\x05", "no choice 5"),
        (b"\xfd\x01\x00" * 100, "levels"),
        (b"\x82" * 100, "nested"),
    ],
)
def test_malformed_values(data: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        values.read_any(Reader(data), Incoming())


@pytest.mark.parametrize(("kind", "words"), [(DEEP, "levels"), (WIDE, "fields")])
def test_types_beyond_the_limits(kind: Structure, words: str) -> None:
    writer = Writer()
    Outgoing().write(writer, kind)
    with pytest.raises(WireError, match=words):
        Incoming().read(Reader(writer.joined()))


def test_registered_types_do_not_grow_without_limit() -> None:
    known, limits = Incoming(), Limits(registry=1000)

    def register(number: int) -> None:
        writer = Writer()
        Outgoing(0).write(writer, Structure(f"t{number}", (("x", INT), ("y", INT))))
        data = b"\xfd" + number.to_bytes(2, "little") + writer.joined()
        known.read(Reader(data, limits=limits))

    for number in range(333):
        register(number)
    with pytest.raises(WireError, match="more than 1000 fields"):
        register(333)
    register(0)


def test_short_messages_do_not_become_many_values() -> None:
    nothing = tuple((f"f{n}", Array(Kind.INT, Extent.FIXED, 0)) for n in range(5000))
    writer = Writer()
    Outgoing().write(writer, ArrayOf(Structure("", nothing)))
    writer.size(100_000)
    writer.raw(b"\x01" * 100_000)
    data = writer.joined()
    gc.collect()
    tracemalloc.start()
    with pytest.raises(WireError, match="values"):
        values.read_any(Reader(data, limits=Limits(values=50_000)), Incoming())
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (INT, "x"), (INT, 2**40), (Scalar(Kind.STRING), 5), (Array(Kind.INT), "abc"),
        (Array(Kind.INT), np.zeros((2, 2))), (Array(Kind.INT, Extent.FIXED, 3), [1, 2]),
        (Structure("", (("x", INT),)), 5), (Variant(), 5), (ArrayOf(Variant()), 5),
    ],
)  # fmt: skip
def test_what_is_no_value_of_its_type_is_not_written(kind: Any, value: Any) -> None:
    with pytest.raises(WireError):
        values.write(kind, value, Writer(), Outgoing())


@patient
@given(structures)
def test_defaults_are_values(kind: Structure) -> None:
    value = AnyValue(kind, default(kind))
    assert same(decoded(encoded(value)), value)
