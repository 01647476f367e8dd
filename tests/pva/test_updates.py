"""Objects of updates."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.frame import Frame
from pvapy_stream.pva.convert import value_of
from pvapy_stream.pva.encoder import ObjectEncoder
from pvapy_stream.pva.lazy import LazyObject, frame_of
from pvapy_stream.pva.net.encoded_updates import Selection, Update
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.pva.objects import LazyIds
from pvapy_stream.pva.put_objects import attributes_of_value, frame_of_value
from pvapy_stream.pva.updates import START, UpdateObject, UpdateReader
from pvapy_stream.pva.wire.buffers import Buffer, Writer
from pvapy_stream.pva.wire.changes import read_bits, read_changes, write_bits, write_changes
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.stream import Assembler
from pvapy_stream.pva.wire.types import AnyValue, Array, Kind, Scalar, Structure, Type, default
from tests.pva.net.test_bad_servers import KIND, payload_of
from tests.support import image


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("before", [0, 3], ids=["learnt", "recognised"])
def test_the_memory_of_an_image_is_free_as_soon_as_it_is_gone(before: int) -> None:
    """Its memory is used again for the next one: it must not wait for a collection of garbage."""
    known = Outgoing()
    first, *rest = [payload_of(number, known).joined() for number in range(8)]
    reader = UpdateReader(KIND, Incoming())
    for data in (first, *rest[:before]):
        reader.read((data,), False)
    memory = np.frombuffer(rest[before], np.uint8).copy()
    gone = weakref.ref(memory)
    obj: Any = reader.read((memory.data,), False)
    frame = frame_of(obj)
    assert dict(frame.attributes)["number"] == before + 1
    assert frame.origin["uniqueId"] == before + 1
    del memory, frame, obj
    # The newest one is kept, as the next may hold changes of it alone.
    for data in rest[before + 1 : before + 3]:
        reader.read((data,), False)
    assert gone() is None


def test_what_passes_through_is_sent_on_as_it_came() -> None:
    known = Outgoing()
    messages = [payload_of(number, known).joined() for number in range(4)]
    # As servers send large arrays: in a segment of their own.
    pixels = image(0, 20, 30).tobytes()
    at, end = (first := messages[0].index(pixels)), first + len(pixels)
    split = [[data[:at], data[at:end], data[end:]] for data in messages]
    for whole in (True, False):
        reader = UpdateReader(KIND, Incoming())
        encoder = ObjectEncoder(ObjectBuilder().build(Frame.of(0, image(0, 20, 30))))
        for number, data in enumerate(messages):
            obj = reader.read([data] if whole else split[number], False)
            made = encoder.update(obj)
            assert isinstance(obj, UpdateObject) is (number > 0)
            wanted = ObjectEncoder(ObjectBuilder().build(Frame.of(0, image(0, 20, 30)))).update(
                obj.pv_object()
            )
            for place, (name, _) in enumerate(KIND.fields):
                assert b"".join(made.chunk(place)) == b"".join(wanted.chunk(place)), name
            if number:
                assert obj.fields is not None


def test_numbers_of_types_are_not_sent_on() -> None:
    """They are those of one connection."""
    structure = Structure("x:1.0", (("a", Scalar(Kind.INT)),))
    known, reader = Outgoing(), UpdateReader(KIND, Incoming())
    objects = []
    for number in range(3):
        built = value_of(ObjectBuilder().build(Frame.of(number, image(number))), KIND)
        built["codec"] = {"name": "", "parameters": AnyValue(structure, {"a": 1})}
        writer = Writer()
        writer.number("I", 1)
        writer.byte(0)
        write_changes(KIND, 1, built, writer, known)
        write_bits(0, writer)
        objects.append(reader.read([writer.joined()], False))
    assert isinstance(objects[2], UpdateObject)
    assert objects[2].fields is None
    update = ObjectEncoder(ObjectBuilder().build(Frame.of(0, image(0)))).update(objects[2])
    assert update.value["codec"]["parameters"] == AnyValue(structure, {"a": 1})


@pytest.mark.parametrize("held", ["Grün", b"\xff\x00 of a cipher \xfe", b"caf\xe9"])
def test_bytes_in_a_string_are_those_that_came(held: str | bytes) -> None:
    """The encryption of PvaPy sends bytes as strings."""
    obj: Any = pva.PvObject({"uniqueId": pva.INT, "data": pva.STRING}, {"data": held})
    encoder = ObjectEncoder(obj)
    writer = Writer()
    writer.number("I", 1)
    writer.byte(0)
    write_changes(encoder.kind, 1, value_of(obj, encoder.kind), writer, Outgoing())
    write_bits(0, writer)
    reader = UpdateReader(encoder.kind, Incoming())
    made = reader.read([writer.joined()], False)
    assert made["data"] == held
    raw = held.encode() if isinstance(held, str) else held
    assert b"".join(encoder.update(made).chunk(1)) == bytes([len(raw)]) + raw


class _Client:
    """Holds what the updates say, as a client that asks for some fields does."""

    def __init__(self, *fields: str) -> None:
        part = Structure(
            KIND.id, tuple((n, k) for n, k in KIND.fields if not fields or n in fields)
        )
        self.selection = Selection(KIND, part if fields else KIND)
        self.held: Any = default(part)
        self._cuts = Assembler()

    def take(self, update: Update, missed: bool) -> list[Buffer]:
        """The payload of its message.

        Args:
            update: the update.
            missed: whether it has missed the one before, so that it is told of all.
        """
        bits = 1 if missed else self.selection.narrowed(update.bits)
        message = b"".join(update.encoded(self.selection, bits).message(7))
        (found,) = self._cuts.feed(message)
        reader = found.reader()
        reader.take(START)
        self.held = read_changes(self.selection.part, reader, Incoming(), self.held)[1]
        assert not read_bits(reader)
        reader.end()
        return list(found.payload)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("side", [8, 300])
def test_all_clients_see_what_a_chain_that_drops_and_changes_objects_passes_on(
    seed: int, side: int
) -> None:
    draw = random.Random(seed)
    builder, attributes = ObjectBuilder(), {"gain": 1.0, "name": "a", "ColorMode": 0}
    source = ObjectEncoder(builder.build(Frame.of(0, image(0, side, side))))
    first, whole, part = _Client(), _Client(), _Client("uniqueId", "attribute")
    stage = ObjectEncoder(builder.build(Frame.of(0, image(0, side, side))))
    reader, passed = UpdateReader(KIND, Incoming()), 0
    for number in range(1, 80):
        if draw.random() < 0.05:
            attributes = {**attributes, "gain": draw.random(), "name": "b" * draw.randrange(3)}
        pixels = image(number, side, side + draw.choice([0] * 29 + [2]))
        sent = source.update(
            LazyObject(Frame.of(number, pixels, attributes=attributes), builder.build)
        )
        obj = reader.read(first.take(sent, draw.random() < 0.03), False)
        if draw.random() < 0.2:
            continue
        if draw.random() < 0.1:
            pixels = pixels + 1
            obj = LazyObject(frame_of(obj).replace(pixels), builder.build)
        made = stage.update(obj)
        passed += isinstance(obj, UpdateObject)
        for client in (whole, part):
            client.take(made, draw.random() < 0.05)
        seen = frame_of_value(whole.held)
        assert (seen.id, dict(seen.attributes)) == (number, attributes)
        assert np.array_equal(seen.image, pixels)
        assert part.held["uniqueId"] == number
        assert attributes_of_value(part.held) == attributes
    assert passed > 10


def _with_field(name: str, kind: Type) -> Structure:
    """NTNDArray with a field of another type."""
    return Structure(
        KIND.id, tuple((other, kind if other == name else old) for other, old in KIND.fields)
    )


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("uniqueId", Scalar(Kind.ULONG), [2**31 + 5, 2**40, 7]),
        ("uniqueId", Scalar(Kind.SHORT), [-3, 1, 2]),
        ("uniqueId", Scalar(Kind.DOUBLE), [2.0, 3.0, 2.0**40]),
    ],
)
def test_ids_of_other_types_than_images_have(name: str, kind: Scalar, values: list[Any]) -> None:
    structure = _with_field(name, kind)
    reader, read = UpdateReader(structure, Incoming()), LazyIds(name)
    found = []
    for value in values:
        built = value_of(ObjectBuilder().build(Frame.of(1, image(1))), KIND)
        found.append(read(reader.read([_payload(structure, {**built, name: value})], False)))
    assert found == values


def test_what_has_the_names_of_an_image_and_is_none() -> None:
    structure = _with_field("dimension", Array(Kind.INT))
    reader, read = UpdateReader(structure, Incoming()), LazyIds("uniqueId")
    for number in range(3):
        built = value_of(ObjectBuilder().build(Frame.of(number, image(1))), KIND)
        payload = _payload(structure, {**built, "dimension": np.array([4, 6], np.int32)})
        assert read(reader.read([payload], False)) == number


def _payload(kind: Structure, value: dict[str, Any]) -> bytes:
    """The payload of an update with all fields."""
    writer = Writer()
    writer.number("I", 1)
    writer.byte(0)
    write_changes(kind, 1, value, writer, Outgoing())
    write_bits(0, writer)
    return writer.joined()


def test_an_image_whose_colour_mode_is_an_array_still_has_an_id() -> None:
    built = value_of(ObjectBuilder().build(Frame.of(5, np.zeros((2, 3, 3), np.uint8))), KIND)
    modes = AnyValue(Array(Kind.INT), np.array([2, 2], np.int32))
    built["attribute"] = [{**one, "value": modes} for one in cast("Any", built["attribute"])]
    reader = UpdateReader(KIND, Incoming())
    for _ in range(2):
        assert LazyIds("uniqueId")(reader.read([_payload(KIND, built)], False)) == 5
