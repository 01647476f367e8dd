from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pvapy_stream.errors import SettingsError
from pvapy_stream.processors import AverageFrames, Binning, Region, SumFrames, ThresholdCount
from pvapy_stream.processors.images import binned, sum_dtype
from pvapy_stream.testing import ProcessorRun, image_object, run_processor

IMAGE = np.arange(24, dtype=np.uint8).reshape(4, 6)
COLOUR = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32"]


def test_a_region() -> None:
    args = {"x": 2, "y": 1, "width": 3, "height": 2}
    result = run_processor(Region, [image_object(IMAGE, 9, gain=1)], args=args)
    assert result.errors == {}
    (frame,) = result.frames
    assert frame.image.tolist() == [[8, 9, 10], [14, 15, 16]]
    assert frame.id == 9
    assert frame.attributes["gain"] == 1
    colour = run_processor(Region, [image_object(COLOUR)], args=args).frames[0]
    assert np.array_equal(colour.image, COLOUR[1:3, 2:5])


def test_a_region_up_to_the_end_and_changed_while_running() -> None:
    run = ProcessorRun(Region, args={"x": 4, "processorId": 1, "inputChannel": "x"})
    run.feed(image_object(IMAGE))
    run.processor.configure({"y": 3, "receiverQueueSize": 5})
    run.feed(image_object(IMAGE))
    frames = run.finish().frames
    assert frames[0].image.tolist() == IMAGE[:, 4:].tolist()
    assert frames[1].image.tolist() == [[22, 23]]


def test_a_region_beyond_the_image_fails_and_says_the_limits() -> None:
    result = run_processor(Region, [image_object(IMAGE)], args={"x": 2, "width": 5})
    assert "width=5" in result.last_error
    assert "at most 6" in result.last_error
    assert not result.published


@pytest.mark.parametrize(
    ("made", "args", "words"),
    [
        (Region, {"x": -1}, ["x", "greater than or equal to 0"]),
        (Region, {"w": 1}, ["unknown key 'w'", "width"]),
        (Binning, {"bx": 0}, ["bx", "greater than or equal to 1"]),
        (Binning, {"mode": "median"}, ["mode", "'sum' or 'mean'"]),
        (SumFrames, {"nFrames": "many"}, ["nFrames", "integer"]),
        (AverageFrames, {"idOf": "middle"}, ["idOf", "'first' or 'last'"]),
        (ThresholdCount, {"threshold": "x"}, ["threshold", "number"]),
        (ThresholdCount, {"above": "N", "below": "N"}, ["above and below"]),
    ],
)
def test_wrong_options_are_named_and_change_nothing(
    made: type, args: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(SettingsError) as raised:
        made(args)
    assert all(word in str(raised.value) for word in words), str(raised.value)
    processor = made({})
    before = processor.options
    with pytest.raises(SettingsError):
        processor.configure(args)
    assert processor.options == before
    with pytest.raises(SettingsError, match="JSON object"):
        processor.configure([1])


@given(st.sampled_from(INTEGERS), st.integers(1, 5000))
def test_the_type_of_a_sum_holds_the_largest_and_is_the_smallest(dtype: str, count: int) -> None:
    limits = np.iinfo(dtype)
    found = np.iinfo(sum_dtype(np.dtype(dtype), count))
    assert found.min <= limits.min * count
    assert found.max >= limits.max * count
    assert found.kind == limits.kind
    if found.bits > 8:
        half = np.iinfo(f"{'u' if found.kind == 'u' else ''}int{found.bits // 2}")
        assert half.max < limits.max * count or half.min > limits.min * count


def test_types_without_a_larger_integer_become_floats() -> None:
    assert sum_dtype(np.dtype(np.uint64), 2) == np.float64
    assert sum_dtype(np.dtype(np.uint64), 1) == np.uint64
    assert sum_dtype(np.dtype(np.float32), 2) == np.float64
    assert sum_dtype(np.dtype(bool), 256) == np.uint16


@given(
    hnp.arrays(
        st.sampled_from([*INTEGERS, "float64"]),
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements={"allow_nan": False, "allow_infinity": False, "min_value": 0, "max_value": 120},
    ),
    st.data(),
)
def test_binning_is_the_sum_of_each_block(image: np.ndarray, data: st.DataObject) -> None:
    by = data.draw(st.integers(1, image.shape[0]))
    bx = data.draw(st.integers(1, image.shape[1]))
    ny, nx = image.shape[0] // by, image.shape[1] // bx
    blocks = image[: ny * by, : nx * bx].reshape(ny, by, nx, bx).astype(np.float64)
    np.testing.assert_allclose(binned(image, bx, by), blocks.sum(axis=(1, 3)), rtol=1e-12)
    means = binned(image, bx, by, mean=True)
    assert means.dtype == (np.float64 if image.itemsize > 2 else np.float32)
    np.testing.assert_allclose(means, blocks.mean(axis=(1, 3)), rtol=1e-6)


def test_binning_does_not_overflow() -> None:
    result = run_processor(
        Binning, [image_object(np.full((4, 5), 255, np.uint8), 3)], args={"bx": 2, "by": 4}
    )
    (frame,) = result.frames
    assert frame.image.tolist() == [[2040, 2040]]
    assert frame.image.dtype == np.uint16
    assert frame.id == 3
    mean = run_processor(Binning, [image_object(COLOUR)], args={"mode": "mean"}).frames[0]
    assert mean.image.tolist() == COLOUR.reshape(2, 2, 3, 2, 3).mean(axis=(1, 3)).tolist()
    assert mean.image.dtype == np.float32


def test_bins_larger_than_the_image_fail() -> None:
    result = run_processor(Binning, [image_object(IMAGE)], args={"bx": 7})
    assert "7x2" in result.last_error
    assert "6x4" in result.last_error


def test_sums_of_frames_have_the_last_id_and_do_not_overflow() -> None:
    objects = [image_object(np.full((2, 3), 250, np.uint8), k, time=k + 0.5) for k in range(1, 8)]
    run = ProcessorRun(SumFrames, args={"nFrames": 3})
    for obj in objects:
        run.feed(obj)
    result = run.finish()
    assert result.errors == {}
    assert [f.id for f in result.frames] == [3, 6]
    for frame in result.frames:
        assert frame.image.tolist() == [[750] * 3] * 2
        assert frame.image.dtype == np.uint16
    assert result.frames[1].attributes["FirstId"] == 4
    assert result.frames[1].attributes["LastId"] == 6
    assert result.frames[1].attributes["NFrames"] == 3
    assert result.frames[1].time_ns == 6_500_000_000
    assert result.processor.getStats() == {"nFrames": 7, "nPublished": 2, "nLeft": 1}


def test_averages_and_the_first_id() -> None:
    objects = [image_object(IMAGE + k, k) for k in range(1, 5)]
    result = run_processor(AverageFrames, objects, args={"nFrames": 2, "idOf": "first"})
    assert [f.id for f in result.frames] == [1, 3]
    assert result.frames[0].image.tolist() == (IMAGE + 1.5).tolist()
    assert result.frames[0].image.dtype == np.float32


def test_a_change_of_shape_begins_a_new_sum() -> None:
    shapes = [(2, 2), (3, 2), (3, 2)]
    objects = [image_object(np.ones(s, np.uint8), k) for k, s in enumerate(shapes)]
    result = run_processor(SumFrames, objects)
    assert [f.image.tolist() for f in result.frames] == [[[2, 2]] * 3]
    assert result.stats["nLeft"] == 1
    assert list(result.ledger.failed["image changes"]) == [0]


def test_a_new_number_of_frames_counts_from_the_next_sum() -> None:
    run = ProcessorRun(SumFrames, args={"nFrames": 2})
    run.feed(image_object(IMAGE, 1))
    run.processor.configure({"nFrames": 3})
    for k in range(2, 6):
        run.feed(image_object(IMAGE, k))
    assert [f.id for f in run.finish().frames] == [2, 5]


def test_pixels_are_counted_and_frames_passed() -> None:
    objects = [image_object(IMAGE, 1), image_object(IMAGE, 2, NAbove=7)]
    result = run_processor(ThresholdCount, objects, args={"threshold": 20})
    for frame in result.frames:
        assert (frame.attributes["NAbove"], frame.attributes["NBelow"]) == (4, 20)
        assert np.array_equal(frame.image, IMAGE)
    assert result.stats == {"nAbove": 8, "nBelow": 40, "lastAbove": 4, "lastBelow": 20}


def test_what_is_no_number_is_neither_above_nor_below() -> None:
    image = np.array([[np.nan, 1.0, 2.0]])
    args = {"threshold": 2, "above": "Hot", "below": "Cold"}
    (frame,) = run_processor(ThresholdCount, [image_object(image)], args=args).frames
    assert (frame.attributes["Hot"], frame.attributes["Cold"]) == (1, 1)
    (frame,) = run_processor(ThresholdCount, [image_object(COLOUR)], args=args).frames
    assert (frame.attributes["Hot"], frame.attributes["Cold"]) == (70, 2)
