from __future__ import annotations

import numpy as np
import pytest

from pvapy_stream import ColorMode, Frame
from pvapy_stream.errors import CodecError, ObjectError
from pvapy_stream.frame import to_stored

RGB = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
STORED = {ColorMode.RGB1: (2, 4, 3), ColorMode.RGB2: (2, 3, 4), ColorMode.RGB3: (3, 2, 4)}


def test_a_mono_frame_is_its_image() -> None:
    image = np.arange(6, dtype=np.int16).reshape(2, 3)
    frame = Frame.of(5, image, time_ns=7, attributes={"a": 1})
    assert (frame.id, frame.time_ns, frame.stored_shape, frame.dtype) == (5, 7, (2, 3), np.int16)
    assert frame.color_mode is ColorMode.MONO
    assert frame.nbytes == 12
    assert frame.has_image
    assert np.array_equal(frame.image, image)
    assert frame.attributes == {"a": 1}
    assert repr(frame) == "Frame(5, 2x3 int16)"


def test_the_image_is_read_only() -> None:
    frame = Frame.of(1, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="read-only"):
        frame.image[0, 0] = 1


@pytest.mark.parametrize(("mode", "shape"), STORED.items())
def test_colour_comes_back_whatever_the_order(mode: ColorMode, shape: tuple[int, ...]) -> None:
    frame = Frame.of(1, RGB, color_mode=mode)
    assert frame.stored_shape == shape
    assert np.array_equal(frame.image, RGB)


def test_colour_planes_lie_as_the_mode_says() -> None:
    # RGB3: three whole planes, red first.
    assert np.array_equal(to_stored(RGB, ColorMode.RGB3)[0], RGB[:, :, 0])
    assert np.array_equal(to_stored(RGB, ColorMode.RGB2)[1, 2], RGB[1, :, 2])


def test_a_view_that_is_not_contiguous_is_stored_right() -> None:
    image = np.arange(12).reshape(3, 4)
    assert np.array_equal(Frame.of(1, np.rot90(image)).image, np.rot90(image))


def test_replace_changes_what_is_given_and_keeps_the_rest() -> None:
    origin = object()
    frame = Frame(1, np.zeros(4, np.uint8), (2, 2), time_ns=3, attributes={"a": 1}, origin=origin)
    changed = frame.replace(np.ones((3, 1), np.float32), id=2)
    assert (changed.id, changed.time_ns, changed.stored_shape, changed.dtype) == (
        2,
        3,
        (3, 1),
        np.float32,
    )
    assert changed.attributes == {"a": 1}
    assert changed.origin is origin
    assert not changed.attributes_changed
    assert frame.image.tolist() == [[0, 0], [0, 0]]


def test_replaced_attributes_stay_known_as_changed() -> None:
    frame = Frame.of(1, np.zeros((2, 2))).replace(attributes={"b": 2}).replace(np.ones((2, 2)))
    assert frame.attributes == {"b": 2}
    assert frame.attributes_changed


def test_replace_keeps_the_order_of_colours_and_changes_to_mono_and_back() -> None:
    frame = Frame.of(1, RGB, color_mode=ColorMode.RGB3)
    assert frame.replace(RGB + 1).color_mode is ColorMode.RGB3
    mono = frame.replace(RGB[:, :, 0])
    assert mono.color_mode is ColorMode.MONO
    assert mono.attributes_changed
    assert mono.replace(RGB).color_mode is ColorMode.RGB1


def test_a_new_image_is_not_compressed() -> None:
    frame = Frame(1, np.zeros(3, np.uint8), (2, 2), dtype=np.dtype("uint16"), codec="lz4")
    changed = frame.replace(np.ones((2, 2), np.uint8))
    assert (changed.codec, changed.dtype) == ("", np.uint8)
    assert frame.replace(id=9).codec == "lz4"


def test_attributes_are_read_once_and_only_when_asked_for() -> None:
    calls = []

    def read() -> dict[str, int]:
        calls.append(1)
        return {"a": 1}

    frame = Frame(1, np.zeros(4), (2, 2), attributes=read)
    assert calls == []
    assert frame.attributes == frame.attributes == {"a": 1}
    assert calls == [1]


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4, 3), (2, 3, 4)])
def test_other_shapes_are_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ObjectError, match="image is"):
        Frame.of(1, np.zeros(shape))


def test_an_empty_frame_says_so() -> None:
    frame = Frame(4, np.zeros(0, np.uint8), ())
    assert not frame.has_image
    assert frame.nbytes == 0
    assert repr(frame) == "Frame(4, empty uint8)"
    with pytest.raises(ObjectError, match="frame 4 has no image"):
        _ = frame.image


def test_dimensions_that_do_not_fit_are_named() -> None:
    with pytest.raises(ObjectError, match=r"10 bytes where its dimensions \(3, 4\) need 12"):
        _ = Frame(1, np.zeros(10, np.uint8), (3, 4)).image


def test_an_unknown_codec_is_named() -> None:
    frame = Frame(1, np.zeros(10, np.uint8), (3, 4), codec="jpeg")
    with pytest.raises(
        CodecError, match="'jpeg' is not supported; supported are blosc, bslz4, lz4, zstd"
    ):
        _ = frame.image
