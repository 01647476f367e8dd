"""Several thresholds of a detector, received by one program over one connection."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hdf5plugin  # noqa: F401 - reads the chunks
import numpy as np
import pytest

import pvapy_stream
from pvapy_stream.errors import TransportError
from pvapy_stream.series import PIXEL_MASK
from pvapy_stream.settings import DectrisSimSettings
from pvapy_stream.sim.dectris_detector import DectrisSimulator, mask_of, pixels_of
from pvapy_stream.streams.subscription import Subscription
from pvapy_stream.transport import dectris_connection
from pvapy_stream.transport.dectris import REFUSED, DectrisReceiver
from pvapy_stream.transport.dectris_settings import DectrisInputSettings
from tests.dectris.test_receiver import Got
from tests.support import wait_until

SMALL = {"address": "tcp://127.0.0.1:0", "nx": 40, "ny": 24, "rate": 0, "thresholds": 2}


def simulator(**settings: Any) -> DectrisSimulator:
    return DectrisSimulator(DectrisSimSettings.of(**{**SMALL, **settings}))


def channel(address: str, number: int) -> str:
    return f"{address}?threshold=threshold_{number}"


def receivers(address: str, *numbers: int) -> list[DectrisReceiver]:
    return [DectrisReceiver(channel(address, n), DectrisInputSettings.of()) for n in numbers]


@pytest.fixture
def started() -> Iterator[Any]:
    """Makes receivers of thresholds that share a connection: none has begun when all are there."""
    made: list[DectrisReceiver] = []

    def make(address: str, *numbers: int) -> list[Got]:
        new = receivers(address, *numbers)
        made.extend(new)
        return [Got(one) for one in new]

    yield make
    for one in made:
        one.stop()


def send_all(sim: DectrisSimulator) -> None:
    thread = threading.Thread(target=sim.run, args=(threading.Event(),))
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


def test_each_receiver_has_all_images_of_its_threshold(started: Any) -> None:
    sim = simulator(n_images=20, n_series=2)
    both = started(sim.address, 1, 2)
    send_all(sim)
    for number, got in enumerate(both, 1):
        wait_until(lambda got=got: len(got.ids) == 40)
        got.receiver.stop(30)
        assert got.ids == list(range(1, 41))
        for frame in got.frames:
            series, image = frame.attributes["SeriesId"], frame.attributes["ImageId"]
            like = np.zeros((24, 40), np.uint32)
            assert np.array_equal(frame.image, pixels_of(series, image, number, like))
            assert frame.attributes["Threshold"] == f"threshold_{number}"
        assert frame.attributes["ThresholdEnergy"] == 5200.0 + 1000 * number
        assert np.array_equal(frame.series.fields[PIXEL_MASK].value, mask_of(number, (24, 40)))
        counts = got.receiver.counts()
        assert (counts.received, counts.errors, counts.rejected) == (41, 0, 0)
        assert got.receiver.problem == ""


def test_nothing_is_received_before_all_want_it() -> None:
    sim = simulator(n_images=10)
    first, second = receivers(sim.address, 1, 2)
    try:
        early = Got(first)
        send_all(sim)
        assert early.objects == []
        late = Got(second)
        wait_until(lambda: early.ids == late.ids == list(range(1, 11)))
    finally:
        first.stop()
        second.stop()


def test_a_receiver_that_never_starts_does_not_hold_up_the_others() -> None:
    sim = simulator(n_images=3)
    first, second = receivers(sim.address, 1, 2)
    try:
        got = Got(first)
        second.stop()
        send_all(sim)
        wait_until(lambda: got.ids == [1, 2, 3])
    finally:
        first.stop()


def test_one_leaves_and_the_other_has_all_that_follows(started: Any) -> None:
    sim = simulator(n_images=200, rate=400)
    first, second = started(sim.address, 1, 2)
    sender = threading.Thread(target=sim.run, args=(threading.Event(),))
    sender.start()
    wait_until(lambda: len(first.ids) > 5)
    # What waited for both is given back to the one.
    left = [obj.id for obj in first.receiver.stop()]
    has = [*first.ids, *left]
    sender.join(60)
    wait_until(lambda: second.ids == list(range(1, 201)))
    # All up to there, and nothing more.
    assert [*first.ids, *left] == has == list(range(1, has[-1] + 1))
    assert not first.receiver.connected
    second.receiver.stop(30)
    assert second.receiver.problem == ""


def test_what_is_missing_is_missing_for_both(
    started: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulator(n_images=100, drop=0.1, duplicate=0.1, malformed=0.1, omit_last=2)
    first, second = started(sim.address, 1, 2)
    send_all(sim)
    wait_until(lambda: not first.receiver.connected)
    for got in (first, second):
        got.receiver.stop(30)
        assert got.receiver.newest(1).id == 100
    assert first.ids == second.ids
    missing = 100 - len(first.ids)
    assert caplog.text.count(f"series 1: {missing} of 100 images did not come") == 2
    counts = [got.receiver.counts() for got in (first, second)]
    assert counts[0] == counts[1]
    assert counts[0].drops[REFUSED] > 3


def test_a_threshold_that_there_is_not_costs_the_other_one_nothing(started: Any) -> None:
    sim = simulator(n_images=5, thresholds=1)
    first, second = started(sim.address, 1, 2)
    send_all(sim)
    wait_until(lambda: first.ids == [1, 2, 3, 4, 5])
    assert "no threshold 'threshold_2'; it has threshold_1;" in second.receiver.problem
    assert second.receiver.counts().drops == {REFUSED: 5}
    assert (first.receiver.problem, first.receiver.counts().rejected) == ("", 0)


def test_all_may_stop_at_once(started: Any) -> None:
    sim = simulator(n_images=3)
    both = started(sim.address, 1, 2)
    send_all(sim)
    wait_until(lambda: both[0].ids == both[1].ids == [1, 2, 3])
    threads = [threading.Thread(target=got.receiver.stop, args=(1,)) for got in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # The address is free again.
    DectrisReceiver(sim.address, DectrisInputSettings.of()).stop()


@pytest.mark.parametrize(
    ("query", "args", "why"),
    [
        ("", {}, "each with another threshold"),
        ("?threshold=threshold_1", {}, "each with another threshold"),
        ("?threshold=threshold_2", {"queue": 7}, "the same queue"),
    ],
)
def test_what_cannot_share_a_connection(query: str, args: Any, why: str) -> None:
    first = DectrisReceiver(channel("tcp://127.0.0.1:1", 1), DectrisInputSettings.of())
    try:
        with pytest.raises(TransportError, match=f"already receives from tcp.*{why}"):
            DectrisReceiver(f"tcp://127.0.0.1:1{query}", DectrisInputSettings.of(**args))
    finally:
        first.stop()


def test_a_receiver_that_comes_after_the_first_message_is_refused(started: Any) -> None:
    sim = simulator(n_images=3)
    (got,) = started(sim.address, 1)
    send_all(sim)
    wait_until(lambda: got.ids == [1, 2, 3])
    with pytest.raises(TransportError, match="before messages come, such as in one mirror"):
        DectrisReceiver(channel(sim.address, 2), DectrisInputSettings.of())


def test_one_that_comes_before_any_message_is_waited_for(
    started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dectris_connection, "_LONG", 0.2)
    sim = simulator(n_images=10)
    (early,) = started(sim.address, 1)
    wait_until(lambda: early.receiver.connected)
    second = DectrisReceiver(channel(sim.address, 2), DectrisInputSettings.of())
    try:
        sender = threading.Thread(target=send_all, args=(sim,))
        sender.start()
        wait_until(lambda: sim.images == 10)
        assert early.objects == []
        waits = "before the receiver of threshold_2 has started"
        wait_until(lambda: waits in early.receiver.problem)
        late = Got(second)
        wait_until(lambda: early.ids == late.ids == list(range(1, 11)))
        sender.join(60)
        assert early.receiver.problem == late.receiver.problem == ""
    finally:
        second.stop()


def test_one_that_cannot_deliver_costs_the_other_one_nothing() -> None:
    sim = simulator(n_images=5)
    first, second = receivers(sim.address, 1, 2)

    def fail(_: Any) -> None:
        raise ValueError("no")

    try:
        first.start(fail)
        got = Got(second)
        send_all(sim)
        wait_until(lambda: got.ids == [1, 2, 3, 4, 5])
        wait_until(lambda: first.counts().errors == 6)
        assert (got.receiver.counts().errors, got.receiver.problem) == (0, "")
    finally:
        first.stop()
        second.stop()


def test_what_waits_at_the_end_is_given_back_to_each() -> None:
    sim = simulator(n_images=20)
    first, second = receivers(sim.address, 1, 2)
    held, arrived = threading.Event(), threading.Event()
    delivered: list[Any] = []

    def deliver(obj: Any) -> None:
        arrived.set()
        held.wait(60)
        delivered.append(obj)

    first.start(deliver)
    got = Got(second)
    send_all(sim)
    assert arrived.wait(60)
    with ThreadPoolExecutor() as threads:
        ends = [threads.submit(one.stop, 0) for one in (first, second)]
        # Both have asked before anything goes on.
        wait_until(lambda: all(one._seat.deadline < math.inf for one in (first, second)))
        held.set()
        left = [[obj.id for obj in end.result(60)] for end in ends]
    assert all(left)
    assert [obj.id for obj in delivered if not obj.marked] + left[0] == list(range(1, 21))
    assert got.ids + left[1] == list(range(1, 21))


def test_one_that_is_busy_holds_up_the_other_one_which_can_leave(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dectris_connection, "_ENDS", 0.2)
    monkeypatch.setattr(dectris_connection, "_LONG", 0.2)
    sim = simulator(n_images=5)
    first, second = receivers(sim.address, 1, 2)
    held, arrived = threading.Event(), threading.Event()

    def deliver(_: Any) -> None:
        arrived.set()
        held.wait(60)

    try:
        first.start(deliver)
        got = Got(second)
        send_all(sim)
        assert arrived.wait(60)
        wait_until(lambda: "receiver of threshold_1, which shares" in second.problem)
        assert first.problem == ""
        for _ in range(2):
            second.keep_up()
        assert caplog.text.count("receiver of threshold_1, which shares") == 1
        second.stop()
        has = len(got.objects)
        assert first.stop() == []
        assert "still being processed" in caplog.text
        held.set()
        # It leaves then, and the address is free.
        assert first._seat.left.wait(60)
        DectrisReceiver(sim.address, DectrisInputSettings.of()).stop()
        assert len(got.objects) == has
    finally:
        held.set()
        first.stop()
        second.stop()


def test_one_that_stops_while_it_delivers() -> None:
    sim = simulator(n_images=5)
    first, second = receivers(sim.address, 1, 2)
    objects: list[Any] = []

    def deliver(obj: Any) -> None:
        objects.append(obj)
        if obj.id == 2:
            first.stop()

    try:
        first.start(deliver)
        got = Got(second)
        send_all(sim)
        wait_until(lambda: got.ids == [1, 2, 3, 4, 5])
        assert [obj.id for obj in objects] == [0, 1, 2]
        assert "4 of 5 images" not in first.problem
    finally:
        first.stop()
        second.stop()


def test_a_detector_that_comes_back_is_the_same_for_both(started: Any) -> None:
    sim = simulator(n_images=5, omit_last=2, no_end=True)
    both = started(sim.address, 1, 2)
    send_all(sim)
    wait_until(lambda: both[0].ids == both[1].ids == [1, 2, 3])
    wait_until(lambda: [got.receiver.newest(1).id for got in both] == [5, 5])
    send_all(simulator(address=sim.address, n_images=5))
    wait_until(lambda: both[0].ids == both[1].ids == [1, 2, 3, 6, 7, 8, 9, 10])
    for got in both:
        assert "2 of 5 images did not come: image ids 3-4" in got.receiver.problem


def test_receivers_that_come_and_go_at_once() -> None:
    sim = simulator(n_images=3)

    def come_and_go(number: int) -> None:
        for _ in range(20):
            (receiver,) = receivers(sim.address, number)
            receiver.start(lambda _: None)
            receiver.stop()

    with ThreadPoolExecutor() as threads:
        list(threads.map(come_and_go, (1, 2)))
    both = receivers(sim.address, 1, 2)
    try:
        ends = [Got(one) for one in both]
        send_all(sim)
        wait_until(lambda: ends[0].ids == ends[1].ids == [1, 2, 3])
    finally:
        for one in both:
            one.stop()


def test_subscriptions_of_one_program_give_both_images_of_an_exposure() -> None:
    sim = simulator(n_images=200)

    def subscribe(number: int) -> Subscription:
        return pvapy_stream.subscribe(channel(sim.address, number), "dectris", queue_size=8)

    with subscribe(1) as first, subscribe(2) as second:
        sender = threading.Thread(target=send_all, args=(sim,))
        sender.start()
        for number in range(200):
            pair = next(first), next(second)
            assert [frame.id for frame in pair] == [number + 1] * 2
            assert [list(frame.image.flat[:3]) for frame in pair] == [
                [1, number, 1],
                [1, number, 2],
            ]
        sender.join(60)
