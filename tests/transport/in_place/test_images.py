"""Images and frames that are written in place."""

from __future__ import annotations

import copy
import gc
import os
import pickle
from typing import Any

import numpy as np

from pvapy_stream.frame import ColorMode, Frame, new_image
from pvapy_stream.hpc.frame_batch import FrameBatch
from pvapy_stream.hpc.output import Output
from pvapy_stream.pva.lazy import LazyObject, frame_of
from pvapy_stream.transport.both import BothPublisher
from pvapy_stream.transport.memory_mode import MemoryPublisher
from pvapy_stream.transport.shm.slot_memory import held_memory_of
from tests.transport.in_place.ends import (
    N_SLOTS,
    SHAPE,
    reserved,
    send,
    started,
)
from tests.transport.test_shm_payloads import SIDE, Chain, place


def test_colour_is_written_in_place_in_the_order_of_its_mode(chain: Chain) -> None:
    publisher, sink = started(chain)
    value = np.arange(100 * 200 * 3, dtype=np.uint16).reshape(100, 200, 3)
    number = 1
    for mode in (ColorMode.RGB1, ColorMode.RGB2, ColorMode.RGB3):
        source = Frame.of(number, value, color_mode=mode)
        source.output = publisher
        pixels = source.like()
        # The first has another size.
        for _ in range(2):
            number += 1
            pixels = source.like()
            np.multiply(source.image, 3, out=pixels)
            send_frame = source.replace(pixels, id=number)
            publisher.publish(LazyObject(send_frame))
        sink.wait_for(number)
        got = sink.frames[number]
        assert (got.color_mode, got.dtype) == (mode, np.uint16)
        assert (got.image == value * 3).all()
        assert place(got.payload) == place(pixels) is not None
        assert not pixels.flags.writeable


def test_copies_that_a_new_image_needs_are_made_in_place(chain: Chain) -> None:
    publisher, sink = started(chain)
    source = sink.frames[1]
    source.output = publisher
    turned = np.arange(SIDE**2, dtype=np.uint16).reshape(SHAPE).T
    for number, image in ((2, turned), (3, np.tile(turned, (2, 2))[::2, ::-2])):
        made = source.replace(image, id=number)
        assert place(made.payload)
        publisher.publish(LazyObject(made))
        sink.wait_for(number)
        assert place(sink.frames[number].payload) == place(made.payload)
        assert (sink.frames[number].image == image).all()


def test_of_several_outputs_the_one_with_memory_gives_it(chain: Chain) -> None:
    publisher, sink = started(chain)
    memory = MemoryPublisher()
    both = BothPublisher([memory, publisher])
    pixels = new_image(SHAPE, np.uint16, output=both)
    pixels[...] = 2
    assert place(pixels)
    both.publish(LazyObject(Frame.of(2, pixels)))
    sink.wait_for(2)
    assert place(sink.frames[2].payload) == place(pixels)
    assert (frame_of(memory.objects[0]).image == 2).all()
    assert BothPublisher([memory]).reserve(10**6) is None


def test_a_frame_that_goes_elsewhere_has_no_output_there(chain: Chain) -> None:
    publisher, sink = started(chain)
    ledger: Any = None
    one = sink.frames[1]
    one.output = Output(publisher, ledger, "uniqueId")
    pixels = one.like()
    assert held_memory_of(pixels) is not None
    assert pixels.shape == SHAPE
    assert pixels.dtype == np.uint16
    sent = pickle.loads(pickle.dumps(one))
    assert sent.output is None
    assert (sent.image == 1).all()
    assert place(sent.like()) is None
    assert copy.deepcopy(one).output is None
    # What is made of it, and what is in a batch, has it.
    assert one.replace(id=3).output is one.output
    batch = FrameBatch([one.replace(id=4)])
    assert batch[0].output is one.output
    batch.output = publisher
    assert [frame.output for frame in (batch[0], *batch, *batch[:])] == [publisher] * 3


def test_a_forked_process_gives_nothing_back(chain: Chain) -> None:
    publisher, sink = started(chain)
    pixels = reserved(publisher, 2)
    pid = os.fork()
    if not pid:
        try:
            del pixels
            gc.collect()
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    for number in range(3, 3 + 2 * N_SLOTS):
        send(publisher, number, reserved(publisher, number))
        sink.wait_for(number)
        sink.frames.clear()
    assert (pixels == 2).all()
