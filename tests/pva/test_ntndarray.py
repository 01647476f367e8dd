from __future__ import annotations

from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream import ColorMode, Frame
from pvapy_stream.errors import ObjectError
from pvapy_stream.pva.ntndarray import ObjectBuilder, read_attributes, to_frame
from tests.support import Source

DTYPES = [
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64",
]  # fmt: skip
TIME = 1_700_000_000_123_456_789


def pixels(dtype: str) -> np.ndarray:
    """Both ends of the type's range are among them."""
    image = np.arange(12).reshape(3, 4).astype(dtype)
    info = np.iinfo(dtype) if image.dtype.kind in "iu" else np.finfo(dtype)
    image[0, 0], image[2, 3] = info.min, info.max
    return image


def attribute_types(obj: Any) -> dict[str, Any]:
    return {a["name"]: a["value"][1]["value"] for a in obj["attribute"]}


def extended(**values: Any) -> Any:
    """An NTNDArray with a field of its own, as some detectors publish."""
    structure = {**pva.NtNdArray().getStructureDict(), "bunch": pva.LONG}
    obj = pva.PvObject(structure, "epics:nt/NTNDArray:1.0")
    plain = ObjectBuilder().build(Frame.of(1, np.zeros((2, 3), np.uint8), time_ns=TIME))
    for field in ("dimension", "uniqueId", "uncompressedSize", "compressedSize"):
        obj[field] = plain[field]
    obj["value"] = {"ubyteValue": np.zeros(6, np.uint8)}
    for field, value in values.items():
        obj[field] = value
    return obj


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pixel_type_there_and_back(dtype: str) -> None:
    image = pixels(dtype)
    obj = ObjectBuilder().build(Frame.of(9, image, time_ns=TIME, attributes={"x": 1.5}))
    assert [d["size"] for d in obj["dimension"]] == [4, 3]
    assert (obj["uncompressedSize"], obj["compressedSize"]) == (image.nbytes, image.nbytes)
    frame = to_frame(obj)
    assert frame.dtype == image.dtype
    assert np.array_equal(frame.image, image)
    assert (frame.id, frame.time_ns, frame.codec) == (9, TIME, "")
    assert frame.attributes == {"x": 1.5, "ColorMode": 0}


def test_pixels_that_ntndarray_has_no_type_for() -> None:
    with pytest.raises(ObjectError, match="float16 cannot be published; NTNDArray has uint8"):
        ObjectBuilder().build(Frame.of(1, np.zeros((2, 2), np.float16)))


@pytest.mark.parametrize(
    ("mode", "sizes"),
    [(ColorMode.RGB1, [3, 5, 4]), (ColorMode.RGB2, [5, 3, 4]), (ColorMode.RGB3, [5, 4, 3])],
)
def test_colour_there_and_back(mode: ColorMode, sizes: list[int]) -> None:
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    obj = ObjectBuilder().build(Frame.of(1, image, color_mode=mode))
    assert [d["size"] for d in obj["dimension"]] == sizes
    frame = to_frame(obj)
    assert frame.color_mode is mode
    assert np.array_equal(frame.image, image)


def test_colour_without_the_attribute_goes_by_the_one_dimension_of_three() -> None:
    obj = ObjectBuilder().build(
        Frame.of(1, np.zeros((4, 5, 3), np.uint8), color_mode=ColorMode.RGB2)
    )
    obj["attribute"] = []
    assert to_frame(obj).color_mode is ColorMode.RGB2


def test_colour_that_cannot_be_told_is_an_error() -> None:
    obj = ObjectBuilder().build(Frame.of(1, np.zeros((3, 3, 3), np.uint8)))
    obj["attribute"] = []
    with pytest.raises(ObjectError, match=r"\(3, 3, 3\).*do not make an image"):
        to_frame(obj)


def test_compressed_frames_stay_compressed() -> None:
    blosc = pytest.importorskip("blosc")
    image = np.arange(400, dtype=np.uint16).reshape(20, 20)
    payload = np.frombuffer(blosc.compress(image.tobytes(), 2), np.uint8)
    frame = Frame(3, payload, image.shape, dtype=image.dtype, codec="blosc")
    builder = ObjectBuilder()
    obj = builder.build(frame)
    assert obj["codec.name"] == "blosc"
    assert (obj["compressedSize"], obj["uncompressedSize"]) == (payload.size, image.nbytes)
    back = to_frame(obj)
    assert (back.codec, back.dtype) == ("blosc", np.uint16)
    assert np.array_equal(back.image, image)
    # Passed on with the object as a template, and changed to plain pixels.
    on = ObjectBuilder(obj)
    assert np.array_equal(to_frame(on.build(back.replace(id=4))).image, image)
    plain = on.build(back.replace(image + 1))
    assert (plain["codec.name"], plain["compressedSize"]) == ("", image.nbytes)
    assert np.array_equal(to_frame(plain).image, image + 1)


def test_a_template_with_a_codec_takes_another_pixel_type() -> None:
    like = ObjectBuilder().build(
        Frame(1, np.zeros(3, np.uint8), (2, 2), dtype=np.dtype("uint8"), codec="lz4")
    )
    obj = ObjectBuilder(like).build(
        Frame(2, np.zeros(5, np.uint8), (2, 2), dtype=np.dtype("float64"), codec="lz4")
    )
    assert to_frame(obj).dtype == np.float64


def test_a_codec_without_the_pixel_type_is_an_error() -> None:
    obj = ObjectBuilder().build(Frame.of(1, np.zeros((2, 2), np.uint8)))
    obj["codec"] = {"name": "lz4"}
    with pytest.raises(ObjectError, match="'lz4' does not say the type"):
        to_frame(obj)


def test_an_empty_object_is_an_empty_frame() -> None:
    frame = to_frame(pva.NtNdArray())
    assert (frame.id, frame.stored_shape, frame.has_image, frame.time_ns) == (0, (), False, 0)
    assert frame.attributes == {}


def test_other_structures_are_no_image() -> None:
    obj = pva.PvObject({"value": pva.INT, "uniqueId": pva.INT})
    with pytest.raises(ObjectError, match="it lacks dimension; ask for them with --field-request"):
        to_frame(obj)


def test_objects_of_a_partial_request(source: Source) -> None:
    source.publish([4])
    channel = pva.Channel(source.channel)
    frame = to_frame(channel.get("field(uniqueId,value,dimension)"))
    assert frame.id == 4
    assert frame.image[0].tolist() == [4, 5, 6, 7, 8, 9]
    assert (frame.time_ns, frame.attributes) == (0, {})
    with pytest.raises(ObjectError, match="lacks dimension"):
        to_frame(channel.get("field(uniqueId,value)"))
    # What is published then is whole, with a structure of its own.
    builder = ObjectBuilder(frame.origin)
    assert not builder.keeps_structure
    assert to_frame(builder.build(frame)).image[0].tolist() == [4, 5, 6, 7, 8, 9]


def test_the_image_outlives_its_object() -> None:
    obj = ObjectBuilder().build(Frame.of(1, np.arange(6, dtype=np.int32).reshape(2, 3)))
    frame = to_frame(obj)
    obj["value"] = {"intValue": np.zeros(6, np.int32)}
    assert frame.image.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_changed_frame_keeps_all_else_of_its_object() -> None:
    obj = extended(
        bunch=77, descriptor="from the beamline", attribute=[pva.NtAttribute("a", pva.PvShort(3))]
    )
    builder = ObjectBuilder(extended())
    made = builder.build(to_frame(obj).replace(np.ones((4, 5), np.float32), id=8))
    assert (made["bunch"], made["descriptor"], made["uniqueId"]) == (77, "from the beamline", 8)
    assert [d["size"] for d in made["dimension"]] == [5, 4]
    assert attribute_types(made) == {"a": pva.SHORT}
    assert to_frame(made).image.tolist() == [[1.0] * 5] * 4


def test_added_attributes_join_those_that_are_there() -> None:
    old = pva.NtAttribute("a", pva.PvShort(3))
    obj = extended(bunch=77, attribute=[old, pva.NtAttribute("b", pva.PvString("x"))])
    frame = to_frame(obj)
    made = ObjectBuilder(extended()).build(
        frame.replace(attributes={**frame.attributes, "b": "y", "c": 2.5})
    )
    assert made["bunch"] == 77
    assert read_attributes(made) == {"a": 3, "b": "y", "c": 2.5}
    assert attribute_types(made)["a"] == pva.SHORT
    assert read_attributes(obj) == {"a": 3, "b": "x"}


def test_a_frame_that_changed_to_colour_says_so() -> None:
    obj = ObjectBuilder().build(Frame.of(1, np.zeros((3, 3), np.uint8)))
    image = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    made = to_frame(ObjectBuilder(obj).build(to_frame(obj).replace(image)))
    assert made.color_mode is ColorMode.RGB1
    assert np.array_equal(made.image, image)


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (3, 3),
        (-(2**40), -(2**40)),
        (2.5, 2.5),
        (True, True),
        ("text", "text"),
        (np.uint16(7), 7),
        (np.float32(0.5), 0.5),
        ([1, 2], [1, 2]),
        ([0.5, 1.5], [0.5, 1.5]),
        (np.array([1, 2], np.uint8), [1, 2]),
        (np.array([-1, 2], np.int8), [-1, 2]),
        ([True, False], [1, 0]),
        (["a", "b"], ["a", "b"]),
        (np.array([[1, 2], [3, 4]]), [1, 2, 3, 4]),
    ],
)
def test_attribute_values(value: Any, back: Any) -> None:
    image = np.zeros((2, 2), np.uint8)
    builder = ObjectBuilder()
    # Twice: the second one compares with the template of the first.
    for number in (1, 2):
        obj = builder.build(Frame.of(number, image, attributes={"a": value}))
        found = read_attributes(obj)["a"]
        assert (list(found) if isinstance(back, list) else found) == back


def test_attributes_of_equal_value_and_other_type_are_told_apart() -> None:
    builder, image = ObjectBuilder(), np.zeros((2, 2), np.uint8)
    made = [
        attribute_types(builder.build(Frame.of(1, image, attributes={"a": v})))["a"]
        for v in (1, 1.0, True)
    ]
    assert made == [pva.INT, pva.DOUBLE, pva.BOOLEAN]


def test_a_frame_without_a_time_is_stamped_when_it_is_built() -> None:
    builder = ObjectBuilder()
    first = to_frame(builder.build(Frame.of(1, np.zeros((2, 2)))))
    second = to_frame(builder.build(Frame.of(2, np.zeros((2, 2)))))
    assert 0 < first.time_ns <= second.time_ns


def test_the_time_of_the_record_serves_when_the_data_have_none() -> None:
    obj = ObjectBuilder().build(Frame.of(1, np.zeros((2, 2)), time_ns=TIME))
    obj.setLong("dataTimeStamp.secondsPastEpoch", 0)
    assert to_frame(obj).time_ns == TIME
