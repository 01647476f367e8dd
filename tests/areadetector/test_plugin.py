"""What belongs to a capture, where images wait in the queue; without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pvapy_stream import AdWriterSettings, Frame
from pvapy_stream.areadetector.plugin import Plugin
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.pva.net.server import Server
from pvapy_stream.transport.ports import Return
from tests.areadetector.clients import ids_in
from tests.support import image


class Waiting:
    """A plugin whose thread does not run, so that images wait."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.path = folder / "scan.h5"
        self.server = Server()
        self.server.start()
        self.plugin = Plugin(
            AdWriterSettings.of(
                prefix="t:HDF1", input_channel="t:image", folder=str(folder), queue_size=8,
                **settings,
            ),
            self.server, "1", lambda user, host: True, lambda line: None,
        )  # fmt: skip
        self.put(FileTemplate="%s%s.h5", FileName="scan", LazyOpen=1)

    def put(self, **values: object) -> None:
        for name, value in values.items():
            assert self.plugin._apply(name, value, False)

    def arrive(self, *ids: int) -> None:
        queue = self.plugin._follower.queue
        queue._patience = 0.01  # s
        for number in ids:
            queue.put(LazyObject(Frame.of(number, image(number))))

    def get(self, name: str) -> object:
        return self.plugin.records[name]


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Waiting]:
    made = Waiting(tmp_path)
    yield made
    made.plugin._finish(drain=False)
    made.server.stop()


def test_what_arrived_before_the_start_is_not_captured(waiting: Waiting) -> None:
    waiting.arrive(1, 2, 3)
    waiting.put(Capture=1)
    waiting.arrive(4, 5)
    waiting.put(Capture=0)
    assert ids_in(waiting.path) == [4, 5]
    assert waiting.get("NumCaptured_RBV") == 2
    assert waiting.get("WriteStatus") == 0


def test_what_was_received_before_the_end_is_written(waiting: Waiting) -> None:
    waiting.put(Capture=1)
    waiting.arrive(*range(1, 9))
    waiting.put(Capture=0)
    assert ids_in(waiting.path) == list(range(1, 9))
    assert waiting.get("Capture") == 0


def test_flush_now_counts_what_was_received(waiting: Waiting) -> None:
    waiting.put(Capture=1)
    waiting.arrive(1, 2, 3)
    assert waiting.get("NumCaptured_RBV") == 0
    waiting.put(FlushNow=1)
    assert waiting.get("NumCaptured_RBV") == 3


def test_an_image_that_is_not_flushed_is_not_counted(waiting: Waiting) -> None:
    waiting.put(Capture=1)
    waiting.arrive(1, 2, 3)
    for _ in range(3):
        waiting.plugin._take_image()
    capture = waiting.plugin._capture
    assert capture is not None
    assert capture.taken == 3
    assert waiting.get("NumCaptured_RBV") == capture.count == capture.saved == 0
    capture.flush()
    assert waiting.get("NumCaptured_RBV") == capture.saved == 3


def test_a_full_queue_is_a_loss_also_when_nothing_follows(waiting: Waiting) -> None:
    waiting.put(Capture=1)
    waiting.arrive(*range(1, 11))
    waiting.put(Capture=0)
    assert waiting.get("WriteStatus") == 1
    assert "2 images were dropped" in str(waiting.get("WriteMessage"))
    assert ids_in(waiting.path) == list(range(1, 9))
    assert waiting.plugin.problems


def test_an_image_after_a_gap_is_not_counted(waiting: Waiting) -> None:
    waiting.put(Capture=1)
    waiting.arrive(1, 2, 4, 5)
    waiting.put(Capture=0)
    assert waiting.get("NumCaptured_RBV") == 2
    assert ids_in(waiting.path) == [1, 2, 4, 5]


def test_a_source_that_comes_back_shows_its_new_form_before_an_image(waiting: Waiting) -> None:
    follower = waiting.plugin._follower

    def shows(nx: int) -> bool:
        waiting.plugin._looked_at = 0.0
        waiting.plugin._look()
        return waiting.get("ArraySizeX_RBV") == nx

    follower._take(LazyObject(Frame.of(0, image(0, 4, 6))))
    assert shows(6)
    follower._take(LazyObject(Frame.of(1, image(1, 4, 8))))
    assert waiting.plugin._take_image()
    assert shows(8)
    opening = LazyObject(Frame.of(0, image(0, 4, 10)))
    opening.mark()
    follower._take(opening, Return(anew=True, shown=True))
    assert shows(10)
    # An image is newer than what was shown before it.
    opening = LazyObject(Frame.of(0, image(0, 4, 12)))
    opening.mark()
    follower._take(opening, Return(anew=True, shown=True))
    follower._take(LazyObject(Frame.of(1, image(1, 4, 14))))
    assert waiting.plugin._take_image()
    assert shows(14)


def test_disabled_callbacks_take_no_images(waiting: Waiting) -> None:
    waiting.put(Capture=1, EnableCallbacks=0)
    waiting.arrive(1, 2)
    waiting.put(FlushNow=1, EnableCallbacks=1)
    waiting.arrive(3)
    waiting.put(Capture=0)
    assert ids_in(waiting.path) == [3]
    assert waiting.get("WriteStatus") == 0
