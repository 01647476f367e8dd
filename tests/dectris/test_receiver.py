"""The receiver, with real sockets and the simulator."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zmq

from pvapy_stream.dectris.arrays import written
from pvapy_stream.dectris.cbor import encode
from pvapy_stream.errors import SettingsError, TransportError
from pvapy_stream.files import chunks
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.series import PIXEL_MASK
from pvapy_stream.settings import ConsumerSettings, DectrisSimSettings
from pvapy_stream.sim.dectris_detector import DectrisSimulator, mask_of, pixels_of
from pvapy_stream.transport import registry
from pvapy_stream.transport.dectris import REFUSED, DectrisReceiver
from pvapy_stream.transport.dectris_settings import DectrisInputSettings
from tests.support import wait_until


class Got:
    """A receiver, with what it delivered."""

    def __init__(self, channel: str | DectrisReceiver, **args: Any) -> None:
        self.objects: list[LazyObject] = []
        self.anew: list[int] = []
        if isinstance(channel, str):
            channel = DectrisReceiver(channel, DectrisInputSettings.of(**args))
        self.receiver = channel
        self.receiver.start(self.objects.append, self._again)

    def _again(self, obj: Any, how: Any) -> None:
        assert (how.shown, how.anew) == (False, True)
        self.anew.append(obj.id)
        self.objects.append(obj)

    @property
    def frames(self) -> list[Any]:
        return [obj.frame for obj in self.objects if not obj.marked]

    @property
    def ids(self) -> list[int]:
        return [frame.id for frame in self.frames]


@pytest.fixture
def pair() -> Iterator[Any]:
    """Makes a simulator that has sent all, and a receiver that has it."""
    ends: list[Any] = []

    def make(args: dict[str, object] | None = None, query: str = "", **settings: Any) -> Got:
        simulator = DectrisSimulator(
            DectrisSimSettings.of(
                **{"address": "tcp://127.0.0.1:0", "nx": 40, "ny": 24, "rate": 0, **settings}
            )
        )
        got = Got(simulator.address + query, **(args or {}))
        ends.append(got)
        thread = threading.Thread(target=simulator.run, args=(threading.Event(),))
        thread.start()
        thread.join(60)
        # The simulator's socket is closed when all is sent.
        wait_until(lambda: got.receiver.was_connected and not got.receiver.connected)
        got.receiver.stop(30)
        return got

    yield make
    for got in ends:
        got.receiver.stop()


@pytest.mark.parametrize("compression", ["none", "lz4", "bslz4"])
@pytest.mark.parametrize("pixel_type", ["uint8", "uint16", "uint32"])
def test_every_pixel_arrives_compressed_as_it_was_sent(
    pair: Any, compression: str, pixel_type: str
) -> None:
    got = pair(compression=compression, pixel_type=pixel_type, n_images=20, n_series=2)
    opening = got.objects[0]
    assert opening.marked
    assert (opening.id, opening.frame.stored_shape) == (0, (24, 40))
    assert got.ids == list(range(1, 41))
    for frame in got.frames:
        series, image = frame.attributes["SeriesId"], frame.attributes["ImageId"]
        assert frame.id == 20 * (series - 1) + image + 1
        assert frame.codec == ("" if compression == "none" else compression)
        sent = pixels_of(series, image, 1, np.zeros((24, 40), pixel_type))
        assert np.array_equal(frame.image, sent)
        assert frame.time_ns > 1.7e18
    assert frame.attributes["IncidentEnergy"] == 12400.0
    assert frame.attributes["Threshold"] == "threshold_1"
    assert frame.attributes["ThresholdEnergy"] == 6200.0
    counts = got.receiver.counts()
    assert (counts.received, counts.errors, counts.rejected) == (41, 0, 0)
    assert (got.receiver.problem, got.anew) == ("", [])


@pytest.mark.parametrize("by", ["args", "query"])
def test_a_threshold_is_chosen(pair: Any, by: str) -> None:
    chosen = {"threshold": "threshold_2"} if by == "args" else {}
    query = "" if chosen else "?threshold=threshold_2"
    got = pair(chosen, query, thresholds=2, n_images=5)
    assert [frame.image.flat[2] for frame in got.frames] == [2] * 5
    assert got.frames[0].attributes["ThresholdEnergy"] == 7200.0


def test_a_threshold_that_there_is_not_is_an_error_with_those_there_are(
    pair: Any, caplog: pytest.LogCaptureFixture
) -> None:
    got = pair({"threshold": "low"}, thresholds=2, n_images=5)
    assert got.ids == []
    # Not what follows from it: that all images are missing.
    assert "no threshold 'low'; it has threshold_1, threshold_2; choose" in got.receiver.problem
    assert "5 of 5 images did not come" in caplog.text
    assert got.receiver.counts().drops == {REFUSED: 5}


def test_trouble_is_named_and_whole_images_arrive(
    pair: Any, caplog: pytest.LogCaptureFixture
) -> None:
    got = pair(n_images=300, drop=0.05, reorder=0.05, duplicate=0.05, malformed=0.05, omit_last=3)
    assert len(set(got.ids)) == len(got.ids)
    missing = set(range(1, 301)) - set(got.ids)
    assert {298, 299, 300} < missing
    assert f"series 1: {len(missing)} of 300 images did not come" in caplog.text
    counts = got.receiver.counts()
    assert counts.drops[REFUSED] > 3
    assert counts.drops["duplicate image"] > 3
    assert got.receiver.newest(1).id == 300  # type: ignore[union-attr]
    for frame in got.frames:
        assert frame.image.flat[1] == (frame.id - 1) % 2**32


def test_a_missing_end_is_named(pair: Any) -> None:
    got = pair(n_images=10, omit_last=2, no_end=True)
    assert got.ids == list(range(1, 9))
    assert "2 of 10 images did not come: image ids 8-9; its end message" in got.receiver.problem


def test_images_without_a_start_arrive_and_are_named_once(pair: Any) -> None:
    got = pair(n_images=10, no_start=True)
    assert got.ids == list(range(1, 11))
    # Not 0: what was sent before the first one is not known.
    assert [obj.id for obj in got.objects if obj.marked] == [1]
    assert got.receiver.counts().errors == 1
    assert "its start message did not" in got.receiver.problem


def test_a_detector_that_ends_within_a_series_and_comes_back() -> None:
    settings = {"nx": 16, "ny": 16, "rate": 0, "n_images": 5}
    first = DectrisSimulator(
        DectrisSimSettings.of(address="tcp://127.0.0.1:0", omit_last=2, no_end=True, **settings)
    )
    got = Got(first.address)
    try:
        first.run(threading.Event())
        wait_until(lambda: got.ids == [1, 2, 3])
        wait_until(lambda: not got.receiver.connected)
        # Not before the connection is lost: images may still come.
        assert got.receiver.newest(1).id == 5  # type: ignore[union-attr]
        again = DectrisSimulator(DectrisSimSettings.of(address=first.address, **settings))
        again.run(threading.Event())
        wait_until(lambda: got.ids == [1, 2, 3, 6, 7, 8, 9, 10])
        assert "2 of 5 images did not come: image ids 3-4" in got.receiver.problem
        assert got.receiver.was_connected
    finally:
        got.receiver.stop()


def test_silence_within_a_series_shows_what_is_missing_until_it_comes() -> None:
    socket = zmq.Context.instance().socket(zmq.PUSH)
    socket.linger = 0
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    got = Got(f"tcp://127.0.0.1:{port}", silence=0.2)
    try:
        socket.send(
            encode(
                {
                    "type": "start", "series_id": 1, "number_of_images": 4, "channels": ["a"],
                    "image_size_x": 8, "image_size_y": 8, "image_dtype": "uint8",
                }
            )
        )  # fmt: skip
        wait_until(lambda: got.objects)
        wait_until(lambda: got.receiver.newest(1).id == 4)  # type: ignore[union-attr]
        socket.send_multipart([b"a", b"b"])
        wait_until(lambda: "Stream V1" in got.receiver.problem)
        assert got.receiver.counts().drops == {REFUSED: 1}
    finally:
        got.receiver.stop()
        socket.close()


def test_messages_that_wait_at_the_end_are_given_back() -> None:
    simulator = DectrisSimulator(
        DectrisSimSettings.of(address="tcp://127.0.0.1:0", nx=16, ny=16, rate=0, n_images=20)
    )
    held, arrived = threading.Event(), threading.Event()

    def deliver(_: Any) -> None:
        arrived.set()
        held.wait(60)

    receiver = DectrisReceiver(simulator.address, DectrisInputSettings.of())
    receiver.start(deliver)
    sender = threading.Thread(target=simulator.run, args=(threading.Event(),))
    sender.start()
    assert arrived.wait(60)
    sender.join(60)
    threading.Timer(0.3, held.set).start()
    left = receiver.stop(0)
    # The first two are the opening object and what may have been taken with it.
    ids = [obj.id for obj in left]
    assert ids
    assert ids == list(range(ids[0], 21))


def test_a_second_receiver_of_a_detector_is_refused() -> None:
    receiver = DectrisReceiver("tcp://127.0.0.1:1", DectrisInputSettings.of())
    try:
        with pytest.raises(TransportError, match="already receives from tcp"):
            DectrisReceiver("tcp://127.0.0.1:1?threshold=b", DectrisInputSettings.of())
    finally:
        receiver.stop()
    DectrisReceiver("tcp://127.0.0.1:1", DectrisInputSettings.of()).stop()


@pytest.mark.parametrize(
    "channel", ["image", "host:31001", "tcp://a:1?x=1", "tcp://a:1?threshold="]
)
def test_other_channels_are_refused(channel: str) -> None:
    with pytest.raises(SettingsError, match="write tcp://HOST:31001"):
        DectrisReceiver(channel, DectrisInputSettings.of())


def test_an_address_that_cannot_be_used_is_an_error() -> None:
    with pytest.raises(TransportError, match="no usable address"):
        DectrisReceiver("tcp://a:b:c", DectrisInputSettings.of())


def test_several_consumers_are_refused_with_the_cure() -> None:
    with pytest.raises(SettingsError, match="start pvapy-stream mirror"):
        ConsumerSettings.of(input_channel="tcp://h:1", input_mode="dectris", n_consumers=2)


def test_it_is_a_stream_of_images() -> None:
    assert registry.image_stream("dectris://tcp://host:31001") == ("dectris", "tcp://host:31001")
    assert "dectris" in registry.providers()


def _damaged(image: np.ndarray) -> Any:
    """An image whose compressed blocks have their length, and cannot be decompressed."""
    chunks.prepare("bslz4")
    chunk = bytearray(chunks.encode("bslz4", image))
    chunk[16:] = b"\xff" * (len(chunk) - 16)
    return written(image, "bslz4", chunk)


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (lambda: b"\0\0\0\0", "no array of two dimensions"),
        (lambda: written(np.zeros((24, 41), np.uint32)), r"shape \(24, 41\)"),
        (lambda: written(np.zeros((24, 40), np.uint32), "bslz4", b"\0" * 40), "their size"),
        (lambda: _damaged(np.zeros((24, 40), np.uint32)), ""),
    ],
    ids=["no array", "of other images", "without size", "damaged"],
)
def test_a_mask_that_cannot_be_read_is_named_and_images_arrive(
    mask: Any, why: str, monkeypatch: pytest.MonkeyPatch, pair: Any, caplog: Any
) -> None:
    # The simulator sends another mask; all else is as it is.
    start = DectrisSimulator._start

    def other(self: DectrisSimulator, began: str) -> Any:
        return {**start(self, began), "pixel_mask": {"threshold_1": mask()}}

    monkeypatch.setattr(DectrisSimulator, "_start", other)
    got = pair(n_images=5)
    assert got.ids == [1, 2, 3, 4, 5]
    assert (got.receiver.counts().errors, got.receiver.problem) == (0, "")
    assert re.search(f"series 1: its pixel mask cannot be read: .*{why}", caplog.text)
    series = got.frames[0].series
    assert PIXEL_MASK not in series.fields
    assert series.fields["detector/distance"].value == 0.2


def test_all_images_of_a_series_share_its_mask(pair: Any) -> None:
    got = pair({"threshold": "threshold_2"}, thresholds=2, n_images=5, n_series=2)
    all_series = [frame.series for frame in got.frames]
    assert len({id(series) for series in all_series}) == 2
    for series in all_series:
        assert np.array_equal(series.fields[PIXEL_MASK].value, mask_of(2, (24, 40)))
