"""What is gathered from shared memory: copied once, complete, and no burden for its source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lz4.block
import numpy as np
import pytest

from pvapy_stream.errors import ObjectError
from pvapy_stream.frame import ColorMode, Frame
from pvapy_stream.hpc.frame_batch import BatchBuilder, FrameBatch
from pvapy_stream.pva.lazy import LazyObject, pv_object
from pvapy_stream.pva.ntndarray import to_frame
from tests.support import wait_until
from tests.transport.shm_ends import Ends, connect, detector_object

N = 40  # more than a receiver may hold


@pytest.fixture
def make_ends(prefix: str) -> Iterator[Callable[[str], Ends]]:
    made: list[Ends] = []

    def make(name: str) -> Ends:
        made.append(Ends(f"{prefix}{name}"))
        return made[-1]

    yield make
    for ends in made:
        ends.stop()


def gathered(ends: Ends, objects: list[Any]) -> tuple[Any, FrameBatch, list[Any]]:
    """The receiver, the batch of objects that it delivered, and what was kept of each."""
    builder, kept = BatchBuilder(len(objects)), []

    def deliver(obj: Any) -> None:
        if not obj.marked:
            kept.append(builder.add(obj))

    publisher = ends.publisher(objects[0], queue_size=4)
    receiver = ends.receiver(deliver)
    connect(publisher)
    for obj in objects:
        publisher.publish(obj)
    wait_until(lambda: len(kept) == len(objects))
    return receiver, builder.take(), kept


@pytest.mark.parametrize("mode", [ColorMode.MONO, ColorMode.RGB1, ColorMode.RGB3])
def test_images_lie_in_one_array_and_hold_no_sample(
    make_ends: Callable[[str], Ends], mode: ColorMode
) -> None:
    shape = (4, 6) if mode is ColorMode.MONO else (4, 6, 3)
    images = np.random.default_rng(1).integers(0, 99, (N, *shape)).astype(np.int16)
    frames = [
        Frame.of(number, one, color_mode=mode, attributes={"n": number})
        for number, one in enumerate(images, 1)
    ]
    receiver, batch, _ = gathered(make_ends("in"), [*map(LazyObject, frames)])
    assert not receiver._borrowed
    assert np.array_equal(batch.images, images)
    assert batch.images.dtype == np.int16
    assert not batch.images.flags.writeable
    for number, frame in enumerate(batch):
        assert np.shares_memory(frame.image, batch.images[number])
        assert not frame.payload.flags.writeable
        assert not frame.image.flags.writeable
        assert (frame.id, frame.attributes["n"]) == (number + 1, number + 1)


def test_what_is_passed_on_is_as_it_came(make_ends: Callable[[str], Ends]) -> None:
    sent = detector_object()
    _, _, kept = gathered(make_ends("in"), [sent] * N)
    assert str(pv_object(kept[7])) == str(sent)
    got: list[Any] = []
    behind = make_ends("out")
    publisher = behind.publisher()
    behind.receiver(got.append)
    connect(publisher)
    publisher.publish(kept[8])
    wait_until(lambda: len(got) == 2)
    assert str(pv_object(got[1])) == str(sent)


def test_compressed_frames_are_kept_compressed(make_ends: Callable[[str], Ends]) -> None:
    images = np.random.default_rng(2).integers(0, 9, (N, 16, 16)).astype(np.uint16)
    frames = [
        Frame(
            number,
            np.frombuffer(lz4.block.compress(one.tobytes(), store_size=False), np.uint8),
            one.shape,
            dtype=one.dtype,
            codec="lz4",
        )
        for number, one in enumerate(images, 1)
    ]
    receiver, batch, _ = gathered(make_ends("in"), [*map(LazyObject, frames)])
    assert not receiver._borrowed
    assert batch[3].codec == "lz4"
    assert np.array_equal(batch.images, images)


def test_what_lies_in_memory_of_this_process_cannot_be_moved() -> None:
    obj = LazyObject(to_frame(detector_object()))
    obj.detach()
    assert not obj.movable
    with pytest.raises(ObjectError, match="memory of this process"):
        obj.move_to(np.empty((1, 24), np.uint8), 0, 0)
