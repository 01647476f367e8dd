"""Payloads that are written in place: into memory of the publisher's own pool."""

from __future__ import annotations

import errno
import gc
import threading
from collections.abc import Callable

import numpy as np
import pytest

from pvapy_stream.frame import new_image
from pvapy_stream.transport.shm import pool_file, pool_user, user_folder
from tests.support import wait_until
from tests.transport.in_place.ends import (
    MAX_RESERVED,
    N_SLOTS,
    SHAPE,
    Sink,
    all_are_free,
    holds_nothing,
    pool_of,
    reserved,
    send,
    started,
)
from tests.transport.shm_ends import connect
from tests.transport.test_shm_payloads import SIDE, Chain, frame, place


def test_what_is_written_in_place_is_not_copied(chain: Chain) -> None:
    publisher, sink = started(chain)
    places = {}
    for number in range(2, 8):
        pixels = reserved(publisher, number)
        places[number] = place(pixels)
        send(publisher, number, pixels)
        sink.wait_for(number)
    assert {number: place(sink.frames[number].payload) for number in places} == places
    assert all((one.image == number).all() for number, one in sink.frames.items())


def test_memory_that_is_not_published_is_given_back(chain: Chain) -> None:
    publisher, sink = started(chain)
    sink.frames.clear()
    kept = [reserved(publisher, 0) for _ in range(MAX_RESERVED)]
    # More than a quarter of the slots are not given out.
    assert publisher.reserve(kept[0].nbytes) is None
    ordinary = new_image(SHAPE, np.uint16, output=publisher)
    assert ordinary.flags.writeable
    assert place(ordinary) is None
    # A view keeps it, and nothing else.
    view = kept.pop()[10:20, 3]
    assert publisher.reserve(SIDE**2) is None
    del view
    for _ in range(10 * N_SLOTS):
        reserved(publisher, 0)
    cycle = [kept.pop()]
    cycle.append(cycle)  # type: ignore[arg-type]
    del cycle
    gc.collect()
    kept.clear()
    wait_until(lambda: holds_nothing(publisher))
    wait_until(lambda: all_are_free(publisher))


def test_a_published_array_is_read_only_and_stays_as_long_as_it_is_kept(chain: Chain) -> None:
    publisher, sink = started(chain)
    kept = {number: reserved(publisher, number) for number in range(2, 6)}
    for number, pixels in kept.items():
        send(publisher, number, pixels)
    with pytest.raises(ValueError, match="read-only"):
        kept[3][0, 0] = 7
    sink.wait_for(5)
    sink.frames.clear()
    for number in range(6, 6 + 4 * N_SLOTS):
        send(publisher, number, reserved(publisher, number))
        sink.wait_for(number)
        if number % 5:
            del sink.frames[number]
    assert all((pixels == number).all() for number, pixels in kept.items())
    # What the receiver keeps stays too, in the pool or as a copy.
    assert all((one.image == number).all() for number, one in sink.frames.items())
    assert len(sink.frames) > 20


def test_an_array_may_be_published_twice(chain: Chain) -> None:
    publisher, sink = started(chain)
    pixels = reserved(publisher, 77)
    where = place(pixels)
    for number in (2, 3):
        send(publisher, number, pixels)
    del pixels
    sink.wait_for(3)
    assert [place(sink.frames[number].payload) for number in (2, 3)] == [where] * 2
    del sink.frames[2]
    for number in range(4, 4 + 2 * N_SLOTS):
        send(publisher, number, reserved(publisher, number))
        sink.wait_for(number)
        del sink.frames[number]
    assert (sink.frames[3].image == 77).all()


@pytest.mark.parametrize(
    "part",
    [
        lambda pixels: pixels[:-1],
        lambda pixels: pixels[1:],
        lambda pixels: pixels[:, 5:290],
        lambda pixels: pixels.T[::-1],
        lambda pixels: np.array(pixels),
    ],
    ids=["first rows", "last rows", "columns", "turned", "copy"],
)
def test_a_part_is_copied_and_the_rest_may_still_be_written(
    chain: Chain, part: Callable[[np.ndarray], np.ndarray]
) -> None:
    publisher, sink = started(chain)
    pixels = reserved(publisher, 2)
    pixels[:, ::2] = 3
    expected = np.array(part(pixels))
    send(publisher, 2, part(pixels))
    pixels[...] = 4
    send(publisher, 3, pixels)
    sink.wait_for(3)
    assert (sink.frames[2].image == expected).all()
    assert place(sink.frames[2].payload) not in (None, place(pixels))
    assert (sink.frames[3].image == 4).all()
    assert place(sink.frames[3].payload) == place(pixels)


def test_there_is_no_memory_without_a_pool_a_reader_or_need(chain: Chain) -> None:
    publisher, nbytes = chain.publisher(0), 2 * SIDE**2
    assert publisher.reserve(nbytes) is None
    publisher.publish(frame(1))
    assert publisher.reserve(nbytes) is None
    share = chain.receiver(0, lambda obj: None)
    connect(publisher)
    publisher.publish(frame(2))
    assert publisher.reserve(nbytes) is not None
    assert publisher.reserve(2**16 - 1) is None
    assert publisher.reserve(2 * nbytes) is None
    assert new_image((4, 4), np.uint16, output=publisher).base is None
    share.stop()
    connect(publisher, 0)
    publisher.publish(frame(3))
    assert publisher.reserve(nbytes) is None
    publisher.stop()
    assert publisher.reserve(nbytes) is None


def test_without_free_slots_or_memory_arrays_are_ordinary(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool_user.PoolUser, "keeps_many", False)
    publisher, sink = started(chain, queue_size=4)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pool_file.os, "posix_fallocate", full)
        # The slot of frame 1 is held. That of frame 0 may be free, if it is another one.
        first = new_image(SHAPE, np.uint16, output=publisher)
        pixels = new_image(SHAPE, np.uint16, output=publisher) if place(first) else first
    assert place(pixels) is None
    del first
    assert "No space left" in caplog.text
    n_in_pool, number = 0, 1
    while n_in_pool < N_SLOTS - 1:
        number += 1
        pixels = new_image(SHAPE, np.uint16, output=publisher)
        pixels[...] = number
        n_in_pool += place(pixels) is not None
        send(publisher, number, pixels)
        sink.wait_for(number)
        assert number < 4 * N_SLOTS
    # The receiver holds all slots.
    del pixels
    for _ in range(3):
        number += 1
        pixels = new_image(SHAPE, np.uint16, output=publisher)
        assert place(pixels) is None
        pixels[...] = number
        send(publisher, number, pixels)
        sink.wait_for(number)
    assert all((one.image == number).all() for number, one in sink.frames.items())
    # Those that were held are given back, and then arrays are in the pool again.
    sink.frames.clear()
    publisher.publish(frame(number + 1))
    sink.wait_for(number + 1)
    reserved(publisher, 0)


def test_several_threads_reserve_while_another_publishes(chain: Chain) -> None:
    publisher, sink = started(chain)
    ready: list[np.ndarray] = []
    ended = threading.Event()

    def write(number: int) -> None:
        while not ended.is_set():
            pixels = new_image(SHAPE, np.uint16, output=publisher)
            pixels[...] = number
            if number % 2:
                ready.append(pixels)
                if len(ready) > 3:
                    del ready[0]

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        sent, n_in_pool = {}, 0
        for number in range(2, 100):
            pixels = _last(ready)
            sent[number] = int(pixels[0, 0])
            n_in_pool += place(pixels) is not None
            send(publisher, number, pixels)
            del pixels
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    sink.wait_for(99)
    assert all((sink.frames[number].image == value).all() for number, value in sent.items())
    assert n_in_pool
    ready.clear()
    # The publisher shows the last one to those who come.
    publisher.publish(frame(100))
    sink.wait_for(100)
    wait_until(lambda: holds_nothing(publisher))


def _last(ready: list[np.ndarray]) -> np.ndarray:
    while True:
        try:
            return ready[-1]
        except IndexError:
            continue


def test_another_publisher_of_the_program_publishes_it_too(chain: Chain) -> None:
    publisher, sink = started(chain)
    other, others = chain.publisher(1), Sink(chain, 1)
    connect(other)
    other.publish(frame(0))
    for number in range(2, 5):
        pixels = reserved(publisher, number)
        where = place(pixels)
        send(other, number, pixels)
        send(publisher, number, pixels)
        del pixels
        sink.wait_for(number)
        others.wait_for(number)
        assert place(others.frames[number].payload) == where
    sink.frames.clear()
    # It is the other subscriber alone that holds them.
    for number in range(5, 5 + 2 * N_SLOTS):
        send(publisher, number, reserved(publisher, number))
        sink.wait_for(number)
        sink.frames.clear()
    assert all((one.image == number).all() for number, one in others.frames.items())


def test_several_groups_get_the_same_memory(chain: Chain) -> None:
    publisher, sink = started(chain)
    grouped = Sink(chain, group="a")
    connect(publisher, 2)
    pixels = reserved(publisher, 2)
    send(publisher, 2, pixels)
    sink.wait_for(2)
    grouped.wait_for(2)
    assert place(sink.frames[2].payload) == place(grouped.frames[2].payload) == place(pixels)


def test_memory_of_a_pool_that_became_too_small_is_published(chain: Chain) -> None:
    publisher, sink = started(chain)
    pixels, unused = reserved(publisher, 3), reserved(publisher, 0)
    where = place(pixels)
    assert where is not None
    publisher.publish(frame(2, 2 * SIDE))
    send(publisher, 3, pixels)
    sink.wait_for(3)
    assert place(sink.frames[3].payload) == where
    assert (sink.frames[3].image == 3).all()
    path = user_folder.path() / "pools" / where[0].hex()
    del pixels
    sink.frames.clear()
    publisher.publish(frame(4))
    assert path.exists()
    unused[...] = 1
    del unused
    wait_until(lambda: not path.exists())


@pytest.mark.parametrize("read", [True, False], ids=["read", "removed"])
def test_memory_outlives_its_publisher(chain: Chain, read: bool) -> None:
    publisher, sink = started(chain)
    pixels, other = reserved(publisher, 5), chain.publisher(1)
    path = user_folder.path() / "pools" / pool_of(publisher).key.hex()
    others = Sink(chain, 1)
    connect(other)
    sink.frames.clear()
    publisher.stop()
    if not read:
        # The file of the pool has gone with the last who read it: others get a copy.
        sink.receiver.stop()
    assert path.exists() == read
    pixels += 1
    assert (pixels == 6).all()
    other.publish(frame(0))
    send(other, 1, pixels)
    others.wait_for(1)
    assert (others.frames[1].image == 6).all()
    others.frames.clear()
    chain.stop()
    del pixels
    gc.collect()
    assert not path.exists()
