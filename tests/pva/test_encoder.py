"""Objects of a stream as they are sent: all ways to make an update give the same bytes."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import Frame
from pvapy_stream.pva.convert import type_of, value_of
from pvapy_stream.pva.encoder import ObjectEncoder, same_form
from pvapy_stream.pva.image_encoder import image_kind
from pvapy_stream.pva.lazy import LazyObject, frame_of
from pvapy_stream.pva.ntndarray import ObjectBuilder, to_frame
from pvapy_stream.pva.put_objects import PutReader
from pvapy_stream.pva.steady import freeze, steady_payload
from pvapy_stream.pva.wire.types import ArrayOf, Kind, Scalar, Structure
from pvapy_stream.transport.shm.frames import read_header
from pvapy_stream.transport.shm.received_objects import SharedObject
from pvapy_stream.transport.shm.sample_encoder import SampleEncoder
from tests.support import image

BUILDER = ObjectBuilder()
ATTRIBUTES: dict[str, Any] = {
    "int": 1, "long": 2**40, "real": 1.5, "text": "Grüße", "flag": True, "reals": np.arange(3.0),
    "bytes": np.array([-1, 2], np.int8), "words": ["a", "b"], "none": None, "whole": np.int64(3),
}  # fmt: skip


def parts(encoder: ObjectEncoder, obj: Any) -> dict[str, bytes]:
    update = encoder.update(obj)
    return {
        name: b"".join(update.chunk(number)) for number, (name, _) in enumerate(encoder.kind.fields)
    }


def plain(obj: Any) -> dict[str, bytes]:
    """A PvObject, encoded for the first time."""
    return parts(ObjectEncoder(BUILDER.build(frame(0))), obj)


def frame(number: int, **more: Any) -> Frame:
    values = {"time_ns": 10**18 + number, "attributes": ATTRIBUTES, **more}
    return Frame.of(number, image(number), **values)


def detector_object() -> Any:
    """An object of a source that fills all fields."""
    obj = BUILDER.build(frame(3))
    obj["descriptor"] = "d"
    obj["alarm"] = {"severity": 1, "status": 2, "message": "hot"}
    obj["dimension"] = [pva.PvDimension(d["size"], 5, 99, 2, True) for d in obj["dimension"]]
    obj.setInt("timeStamp.userTag", 7)
    obj.setInt("timeStamp.nanoseconds", 11)
    return obj


def test_frames_are_encoded_as_the_objects_that_are_built_from_them() -> None:
    encoder = ObjectEncoder(BUILDER.build(frame(0)))
    for number in range(1, 6):
        # Attributes that change, and then a shape that does.
        attributes = {**ATTRIBUTES, "int": number // 2, "more": [number]}
        made = frame(number, attributes=attributes)
        if number == 4:
            made = Frame.of(4, image(4, 7, 9), time_ns=5, attributes=attributes)
        assert parts(encoder, LazyObject(made, BUILDER.build)) == plain(BUILDER.build(made))


def test_bits_say_what_has_changed() -> None:
    encoder = ObjectEncoder(BUILDER.build(frame(0)))
    names = [name for name, _ in encoder.kind.fields]

    def changes(obj: Any) -> set[str]:
        bits = encoder.update(obj).bits
        starts = encoder.kind.starts
        return (
            set(names)
            if bits & 1
            else {n for n, s in zip(names, starts, strict=True) if bits >> s & 1}
        )

    assert changes(LazyObject(frame(1), BUILDER.build)) == set(names)
    varying = {"value", "uniqueId", "dataTimeStamp", "timeStamp", "compressedSize"}
    assert changes(LazyObject(frame(2), BUILDER.build)) == varying
    other = frame(3, attributes={**ATTRIBUTES, "int": 9})
    assert changes(LazyObject(other, BUILDER.build)) == {*varying, "attribute"} - {"compressedSize"}
    assert changes(BUILDER.build(other)) == {"value"}
    assert changes(BUILDER.build(frame(3))) == {"attribute"}
    assert changes(LazyObject(frame(4), BUILDER.build)) >= {"uniqueId"}


@pytest.mark.parametrize("wire", [True, False])
def test_results_keep_what_their_origin_says(wire: bool) -> None:
    source = detector_object()
    kind = type_of(source)
    came = PutReader(kind).read(value_of(source, kind)) if wire else source
    builder = ObjectBuilder(source)
    first = frame_of(came)
    encoder = ObjectEncoder(builder.prototype)
    results = [
        first,
        first.replace(image(8)),
        first.replace(id=9, time_ns=10**18),
        first.replace(image(8, 3, 3).astype(np.float32)),
        first.replace(image(8, 3, 3), id=5),
        first.replace(attributes={"a": 1}),
        Frame(4, np.arange(9, dtype=np.uint8), (4, 4), dtype=np.dtype("uint16"), codec="blosc"),
    ]
    for made in results:
        # Built from the PvObject: the binding alone knows how.
        like = made if made.origin is None else to_frame(source)
        like = made if made.origin is None else _same_changes(like, made)
        assert parts(encoder, LazyObject(made, builder.build)) == plain(builder.build(like)) or (
            made.time_ns == 0
        )
    assert parts(encoder, came) == plain(source)


def _same_changes(like: Frame, made: Frame) -> Frame:
    """A frame from a PvObject, changed as another was."""
    copy = Frame(
        made.id, made.payload, made.stored_shape, time_ns=made.time_ns, dtype=made.dtype,
        codec=made.codec, color_mode=made.color_mode, attributes=made.attributes,
        origin=like.origin,
    )  # fmt: skip
    copy.attributes_changed, copy.layout_changed = made.attributes_changed, made.layout_changed
    copy.time_changed = made.time_changed
    return copy


def test_values_of_another_server_need_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    source = detector_object()
    kind = type_of(source)
    came = PutReader(kind).read(value_of(source, kind))
    encoder = ObjectEncoder(source)
    monkeypatch.setattr(type(came), "_make_object", None)
    assert parts(encoder, came)["uniqueId"] == b"\x03\0\0\0"
    assert parts(encoder, LazyObject(frame_of(came).replace(id=4)))["uniqueId"] == b"\x04\0\0\0"


def test_ids_of_types_make_no_difference() -> None:
    time = Structure("time_t", (("seconds", Scalar(Kind.LONG)),))
    other = Structure("", (("seconds", Scalar(Kind.LONG)),))
    assert same_form(
        Structure("", (("t", ArrayOf(time)),)), Structure("x", (("t", ArrayOf(other)),))
    )
    assert not same_form(time, Structure("time_t", (("seconds", Scalar(Kind.INT)),)))
    assert not same_form(time, Structure("time_t", (("second", Scalar(Kind.LONG)),)))
    assert not same_form(image_kind(), time)


def test_ids_and_pixels_that_an_image_cannot_have() -> None:
    encoder = ObjectEncoder(BUILDER.build(frame(0)))
    encoder.update(LazyObject(frame(1), BUILDER.build))
    with pytest.raises(ObjectError, match="32 bits"):
        encoder.update(LazyObject(frame(1).replace(id=2**31), BUILDER.build))
    with pytest.raises(ObjectError, match="complex64"):
        encoder.update(LazyObject(Frame.of(1, np.zeros((2, 2), np.complex64)), BUILDER.build))


def kept(made: Frame) -> bool:
    return steady_payload(made) is made.payload


def fresh() -> Frame:
    """A frame of an image that nobody else has."""
    return Frame.of(1, np.zeros((4, 4)))


def test_arrays_that_others_can_write_to_are_copied() -> None:
    results = [kept(fresh()), kept(fresh().replace(id=2))]
    assert results == [True, True]
    own = np.zeros((4, 4))
    results = [kept(Frame.of(1, own)), kept(Frame.of(1, own[1:3]))]
    view = own[1:3]
    del own
    # A view of it is enough to write to it.
    results.append(kept(Frame.of(1, view)))
    assert results == [False] * 3
    made = Frame.of(1, view)
    del view
    assert kept(made)
    # Two frames with one array: either may be written to.
    assert not kept(made.replace(id=2))
    assert kept(freeze(made))
    assert kept(made.replace(id=2))
    results = [
        kept(Frame.of(1, np.frombuffer(kind(16), np.uint8).reshape(4, 4)))
        for kind in (bytes, bytearray)
    ]
    assert results == [True, False]
    assert kept(to_frame(BUILDER.build(frame(1))))
    columns = np.zeros((4, 4)).T
    assert np.array_equal(steady_payload(Frame.of(1, columns)), columns.reshape(-1))


def test_what_comes_from_shared_memory_is_sent_without_an_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = detector_object()
    encoder = ObjectEncoder(source)
    builder = ObjectBuilder(source)
    for number in (4, 5):
        source.setInt("uniqueId", number)
        source.setInt("timeStamp.nanoseconds", number)
        written = SampleEncoder("uniqueId").parts(source)
        memory = (ctypes.c_uint8 * written.required_size)()
        written.write(memory, ctypes.addressof(memory), len(memory), 0)
        came = SharedObject(read_header(memory), bytes(memory), builder)
        assert parts(encoder, came) == plain(source)
        # The second is like the first.
        monkeypatch.setattr(SharedObject, "_make_object", None)
