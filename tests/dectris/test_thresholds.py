"""Several thresholds of a detector, received by one program over one connection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - reads the chunks
import numpy as np
import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.errors import TransportError
from pvapy_stream.series import PIXEL_MASK
from pvapy_stream.settings import DectrisSimSettings
from pvapy_stream.sim.dectris_detector import DectrisSimulator, mask_of, pixels_of
from pvapy_stream.transport.dectris import REFUSED, DectrisReceiver
from pvapy_stream.transport.dectris_settings import DectrisInputSettings
from tests.dectris.test_programs import LIKE, detector, metadata_of, sent
from tests.dectris.test_receiver import Got
from tests.ports import free_port
from tests.support import Commands, wait_for_monitors, wait_until

SMALL = {"address": "tcp://127.0.0.1:0", "nx": 40, "ny": 24, "rate": 0, "thresholds": 2}


def simulator(**settings: Any) -> DectrisSimulator:
    return DectrisSimulator(DectrisSimSettings.of(**{**SMALL, **settings}))


def channel(address: str, number: int) -> str:
    return f"{address}?threshold=threshold_{number}"


@pytest.fixture
def started() -> Iterator[Any]:
    """Makes receivers of thresholds that share a connection: none has begun when all are there."""
    made: list[DectrisReceiver] = []

    def make(address: str, *numbers: int) -> list[Got]:
        receivers = [
            DectrisReceiver(channel(address, number), DectrisInputSettings.of())
            for number in numbers
        ]
        made.extend(receivers)
        return [Got(one) for one in receivers]

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
    first, second = (
        DectrisReceiver(channel(sim.address, number), DectrisInputSettings.of())
        for number in (1, 2)
    )
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
    first, second = (
        DectrisReceiver(channel(sim.address, number), DectrisInputSettings.of())
        for number in (1, 2)
    )
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
    assert first.receiver.stop() == []
    has = first.ids
    sender.join(60)
    wait_until(lambda: second.ids == list(range(1, 201)))
    # All up to there, and nothing more.
    assert first.ids == has == list(range(1, has[-1] + 1))
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
