"""What tests of payloads that are written in place have in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from pvapy_stream.frame import Frame, new_image
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.transport.shm import ShmPublisher
from tests.support import wait_until
from tests.transport.shm_ends import connect
from tests.transport.test_shm_payloads import SIDE, Chain, frame, place

SHAPE = (SIDE, SIDE)
N_SLOTS, MAX_RESERVED = 32, 8


class Sink:
    """What a receiver got: frames by their ids; their pixels are looked at."""

    def __init__(self, chain: Chain, number: int = 0, keep: bool = True, **share: Any) -> None:
        self.frames: dict[int, Frame] = {}
        self.last = 0
        self._keep = keep
        self.receiver = chain.receiver(number, self._deliver, **share)

    def _deliver(self, obj: Any) -> None:
        if not obj.id:
            return
        if self._keep:
            self.frames[obj.id] = obj.frame
        self.last = obj.id

    def wait_for(self, number: int) -> None:
        wait_until(lambda: self.last == number)


def reserved(publisher: ShmPublisher, number: int, shape: Any = SHAPE) -> np.ndarray:
    """An array in the publisher's pool, whose pixels are a number."""
    pixels = new_image(shape, np.uint16, output=publisher)
    pixels[...] = number
    assert place(pixels), number
    return pixels


def send(publisher: ShmPublisher, number: int, pixels: np.ndarray) -> None:
    publisher.publish(LazyObject(Frame.of(number, pixels)))


def started(chain: Chain, **settings: Any) -> tuple[ShmPublisher, Sink]:
    """A publisher whose pool is there, as the first frame was sent, and a receiver."""
    publisher = chain.publisher(0, **settings)
    sink = Sink(chain)
    connect(publisher)
    # The first object is sent twice, also as the current one: frame 1 shall come once.
    for number in (0, 1):
        publisher.publish(frame(number))
    sink.wait_for(1)
    return publisher, sink


def pool_of(publisher: ShmPublisher) -> Any:
    own = publisher._payloads._own
    assert own is not None
    return own


def holds_nothing(publisher: ShmPublisher) -> bool:
    with publisher._lock:
        return not pool_of(publisher).n_held


def all_are_free(publisher: ShmPublisher) -> bool:
    with publisher._lock:
        return pool_of(publisher).unused
