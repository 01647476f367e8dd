"""Objects of updates."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.frame import Frame
from pvapy_stream.pva.convert import value_of
from pvapy_stream.pva.encoder import ObjectEncoder
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.pva.updates import UpdateObject, UpdateReader
from pvapy_stream.pva.wire.buffers import Writer
from pvapy_stream.pva.wire.changes import write_bits, write_changes
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.types import AnyValue, Kind, Scalar, Structure
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
