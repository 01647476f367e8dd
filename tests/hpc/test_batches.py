"""Batches: processors get many frames at a time, and each frame has a fate of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pvapy_stream import FrameBatch, FrameProcessor
from pvapy_stream.errors import ObjectError, TransportError
from pvapy_stream.frame import Frame
from pvapy_stream.hpc.frame_batch import BatchBuilder, _Blocks
from pvapy_stream.testing import Result, frame, image_object, run_processor
from pvapy_stream.transport.memory_mode import MemoryPublisher
from tests.hpc.bench import frame as numbered


class Doubles(FrameProcessor):
    """Doubles images, and notes the sizes of its batches."""

    fails: frozenset[int] = frozenset()
    drops: frozenset[int] = frozenset()

    def __init__(self, configDict: Any = None) -> None:
        super().__init__(configDict)
        self.sizes: list[int] = []

    def process_batch(self, frames: FrameBatch) -> Any:
        self.sizes.append(len(frames))
        if bad := [one.id for one in frames if one.id in self.fails]:
            raise ValueError(f"no {bad}")
        images = frames.images * 2
        return [None if one.id in self.drops else images[n] for n, one in enumerate(frames)]


def run(processor: Any, n: int = 10, size: int = 4, **options: Any) -> Result:
    frames = [frame(id=number) for number in range(1, n + 1)]
    return run_processor(processor, frames, batch_size=size, **options)


def failed(result: Result) -> dict[str, list[int]]:
    return {kind: list(ids) for kind, ids in result.ledger.failed.items()}


def test_each_frame_has_its_result_in_order() -> None:
    processor = Doubles()
    processor.drops = frozenset({3, 8})
    result = run(processor)
    assert result.ok
    assert processor.sizes == [4, 4, 2]
    assert [one.id for one in result.frames] == [1, 2, 4, 5, 6, 7, 9, 10]
    assert all((one.image == 2 * frame(id=one.id).image).all() for one in result.frames)
    assert list(result.ledger.filtered) == [3, 8]
    assert list(result.ledger.processed) == list(result.ledger.published)
    assert (result.batches.batches, result.batches.frames) == (3, 10)


@pytest.mark.parametrize("size", [1, 4])
def test_frames_that_are_returned_unchanged_are_passed_on(size: int) -> None:
    class Passes(FrameProcessor):
        def process_batch(self, frames: FrameBatch) -> Any:
            return list(frames)

    result = run_processor(
        Passes, [image_object(id=number, exposure=0.5) for number in (1, 2, 3)], batch_size=size
    )
    assert [(one.id, one.attributes["exposure"]) for one in result.frames] == [
        (1, 0.5), (2, 0.5), (3, 0.5)
    ]  # fmt: skip


def test_without_a_batch_size_a_class_with_process_batch_alone_gets_one_frame_at_a_time() -> None:
    processor = Doubles()
    processor.fails = frozenset({2})
    result = run(processor, 3, 1)
    assert processor.sizes == [1, 1, 1]
    assert [one.id for one in result.frames] == [1, 3]
    assert failed(result) == {"process: ValueError": [2]}
    assert result.batches.batches == 0


def test_a_class_with_both_methods_is_asked_by_the_batch_size() -> None:
    class Both(Doubles):
        def process_frame(self, frame: Frame) -> Frame:
            return frame

    assert [one.image[0, 0] for one in run(Both(), 2, 1).frames] == [1, 2]
    assert [one.image[0, 0] for one in run(Both(), 2, 2).frames] == [2, 4]


def test_only_the_frames_fail_that_fail_alone() -> None:
    processor = Doubles()
    processor.fails = frozenset({2, 7})
    result = run(processor)
    assert failed(result) == {"process: ValueError": [2, 7]}
    assert result.errors == {"process: ValueError": 2}
    assert [one.id for one in result.frames] == [1, 3, 4, 5, 6, 8, 9, 10]
    assert processor.sizes == [4, 1, 1, 1, 1, 4, 1, 1, 1, 1, 2]
    assert result.batches.retried == 2
    assert not result.ledger.without_fate()


def test_a_class_that_must_not_see_a_frame_twice_loses_the_whole_batch() -> None:
    processor = Doubles()
    processor.fails = frozenset({2})
    processor.retries_frames = False
    result = run(processor)
    assert failed(result) == {"process: ValueError": [1, 2, 3, 4]}
    assert processor.sizes == [4, 4, 2]
    assert result.batches.retried == 0


def test_an_exception_as_a_result_fails_its_frame_alone() -> None:
    class Names(FrameProcessor):
        def process_batch(self, frames: FrameBatch) -> Any:
            return [KeyError("no peak") if one.id == 2 else one for one in frames]

    for size in (1, 4):
        result = run(Names, 4, size)
        assert failed(result) == {"process: KeyError": [2]}
        assert [one.id for one in result.frames] == [1, 3, 4]


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda frames: [*frames][:-1], "3 results for 4 frames"),
        (lambda frames: frames[0], "a Frame for 4 frames"),
        (lambda frames: 7, "a int for 4 frames"),
        (lambda frames: frames.images.mean(axis=0), "returned 4 results"),
    ],
)
def test_a_batch_with_other_than_one_result_for_each_frame_has_failed(
    returned: Any, told: str
) -> None:
    calls = []

    class Wrong(FrameProcessor):
        def process_batch(self, frames: FrameBatch) -> Any:
            calls.append(len(frames))
            return returned(frames)

    result = run(Wrong, 4)
    assert calls == [4]
    assert not result.ledger.processed
    assert sum(map(len, result.ledger.failed.values())) == 4
    if "mean" not in told and "4 results" not in told:
        assert told in result.last_error


def test_several_results_of_a_frame_and_an_array_of_results() -> None:
    class Splits(FrameProcessor):
        def process_batch(self, frames: FrameBatch) -> Any:
            return [[one, one.replace(id=one.id + 100)] for one in frames]

    class Arrays(FrameProcessor):
        def process_batch(self, frames: FrameBatch) -> Any:
            return frames.images.transpose(0, 2, 1)

    assert [one.id for one in run(Splits, 2).frames] == [1, 101, 2, 102]
    assert [one.image.shape for one in run(Arrays, 3).frames] == [(6, 4)] * 3


def test_what_publishes_itself_is_processed_and_what_cannot_be_published_failed() -> None:
    class Own(FrameProcessor):
        def process_batch(self, frames: FrameBatch) -> Any:
            for one in frames:
                self._publish(one)

    result = run(Own, 4)
    assert list(result.ledger.processed) == list(result.ledger.published) == [1, 2, 3, 4]

    class Broken(MemoryPublisher):
        def publish(self, obj: Any) -> None:
            if obj["uniqueId"] == 3:
                raise TransportError("the cable is out")
            super().publish(obj)

    result = run(Doubles, 4, publisher=Broken())
    assert failed(result) == {"publishing": [3]}
    assert list(result.ledger.processed) == [1, 2, 4]


def test_a_class_that_gathers_makes_one_result_of_a_batch() -> None:
    class Sums(FrameProcessor):
        gathers = True

        def process_batch(self, frames: FrameBatch) -> Any:
            total = frames.images.sum(axis=0, dtype=np.uint32)
            return [None] * (len(frames) - 1) + [total]

    result = run(Sums, 8)
    assert [one.id for one in result.frames] == [4, 8]
    assert len(result.ledger.processed) == 8


def test_frames_of_another_shape_or_pixel_type_begin_a_batch_and_this_is_counted() -> None:
    shapes: list[tuple[int, ...]] = []

    class Notes(FrameProcessor):
        def process_batch(self, frames: FrameBatch) -> Any:
            shapes.append(frames.images.shape)

    small, large = np.zeros((2, 3), np.uint8), np.zeros((4, 4), np.uint8)
    images = [small, small, large, large.astype(np.uint16), small, small]
    result = run_processor(Notes, [frame(one, n) for n, one in enumerate(images, 1)], batch_size=4)
    assert shapes == [(2, 2, 3), (1, 4, 4), (1, 4, 4), (2, 2, 3)]
    assert result.batches.split == 3
    assert len(result.ledger.filtered) == 6


def test_what_is_no_image_fails_and_ends_no_batch() -> None:
    processor = Doubles()
    objects = [image_object(id=1), image_object(id=2), image_object(id=3)]
    objects[1]["value"] = {}
    result = run_processor(processor, objects, batch_size=4)
    assert result.ledger.without_fate() == type(result.ledger.received)()
    assert list(result.ledger.processed) == [1, 3]
    assert [*map(list, result.ledger.failed.values())] == [[2]]


def test_colour_images_and_compressed_ones_are_stacked() -> None:
    colour = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    batch = FrameBatch([frame(colour, n, color_mode=2) for n in (1, 2)])  # type: ignore[arg-type]
    assert batch.images.shape == (2, 2, 4, 3)
    assert not batch.images.flags.writeable
    assert (batch.images[1] == colour).all()
    assert [one.id for one in batch[:1]] == [1]
    with pytest.raises(ObjectError, match="different shapes or pixel types"):
        _ = FrameBatch([frame(colour), frame()]).images


def test_a_block_is_used_again_when_no_array_is_left_of_it() -> None:
    blocks = _Blocks()
    first = blocks.block(4, 16)
    address = first.__array_interface__["data"][0]
    kept = first[1].view(np.uint16).reshape(2, 4)
    del first
    assert blocks.block(4, 16).__array_interface__["data"][0] != address
    del kept
    assert address in {blocks.block(4, 16).__array_interface__["data"][0] for _ in range(2)}


def test_a_batch_of_large_images_is_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pvapy_stream.hpc.frame_batch.MOST_BYTES", 100)
    builder = BatchBuilder(64)
    builder.add(numbered(1))
    assert builder.room == 2
    processor = Doubles()
    run(processor, 5, 64)
    assert processor.sizes == [2, 2, 1]
