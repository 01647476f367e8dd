"""Outputs on our own sockets: slow subscribers, what is kept for them, and how channels end."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.errors import TransportError
from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.pva.objects import is_marked, mark
from pvapy_stream.transport.ports import Publisher
from tests.support import PATIENCE, pvget, wait_until
from tests.transport.own_hosted.channels import BUILDER, Make, follow, frame, lazy


class Reader(threading.Thread):
    """Takes all updates of a monitor, on the bytes."""

    def __init__(self, channel: str, last: int, asked: str = "record[queueSize=1000]") -> None:
        super().__init__(daemon=True)
        self.monitor = follow(channel, asked)
        self.ids: list[int] = []
        self.overruns = 0
        self._last = last
        self._take()
        self.start()

    def _take(self) -> None:
        update = self.monitor.next()
        self.overruns += update.overrun != 0
        self.ids.append(int(update.value["uniqueId"]))  # pyright: ignore

    def run(self) -> None:
        while self.ids[-1] != self._last:
            self._take()


def waiting(publisher: Publisher) -> list[int]:
    """How many updates wait for each subscriber."""
    hosted = publisher._hosted  # pyright: ignore
    return sorted(len(one._waiting) for one in hosted.channel.monitors)


def test_a_slow_client_costs_the_others_nothing(make: Make) -> None:
    publisher = make()
    publisher.open(lazy(0, 300))
    slow = follow(publisher.channel, "record[queueSize=7]")
    slow.next()
    others = [Reader(publisher.channel, 400) for _ in range(3)]
    assert publisher.subscribers == 4
    for number in range(1, 401):
        publisher.publish(lazy(number, 300))
    for one in others:
        one.join(PATIENCE)
        assert one.ids == list(range(401))
        assert not one.overruns
    # What waits for the slow one is its queue, and no more.
    assert waiting(publisher) == [0, 0, 0, 7]
    ids = []
    while not ids or ids[-1] != 400:
        update = slow.next()
        ids.append(update.value["uniqueId"])
    assert ids == sorted(set(ids))
    assert len(ids) < 400
    assert update.overrun
    assert publisher.counts().rejected == 0
    slow.client.link.close()
    wait_until(lambda: publisher.subscribers == 3)
    assert publisher.clients == 3
    # One that has opened the channel is a client.
    idle = pva.Channel(publisher.channel)
    idle.get("field(uniqueId)")
    assert (publisher.clients, publisher.subscribers) == (4, 3)


def test_a_client_that_takes_nothing_is_waited_for_once(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = make(pva_timeout=0.3)
    publisher.open(lazy(0))
    stuck = follow(publisher.channel, "record[pipeline=true,queueSize=4]", 2)
    assert stuck.next().value["uniqueId"] == 0
    other = Reader(publisher.channel, 50)
    for number in range(1, 51):
        publisher.publish(lazy(number))
    other.join(PATIENCE)
    assert other.ids == list(range(51))
    # One is in its window, four in its queue.
    assert publisher.counts().rejected == 45
    assert caplog.text.count("takes nothing for 0.3 s") == 1
    stuck.acknowledge(100)
    assert [stuck.next().value["uniqueId"] for _ in range(5)] == [1, 2, 3, 4, 5]
    publisher.publish(lazy(51))
    update = stuck.next()
    assert (update.value["uniqueId"], update.overrun != 0) == (51, True)
    assert publisher.counts().rejected == 45
    publisher.stop()
    assert publisher.counts().rejected == 45


def test_who_is_waited_for_may_go_and_the_publisher_may_stop(make: Make) -> None:
    publisher = make(pva_timeout=600)
    publisher.open(lazy(0))
    for ends in ("client", "publisher"):
        stuck = follow(publisher.channel, "record[pipeline=true,queueSize=2]", 1)
        stuck.next()
        thread = threading.Thread(
            target=lambda: [publisher.publish(lazy(number)) for number in range(1, 4)], daemon=True
        )
        thread.start()
        wait_until(lambda: waiting(publisher) == [2])
        assert thread.is_alive()
        if ends == "client":
            stuck.client.link.close()
        else:
            publisher.stop()
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize(("policy", "ids"), [("drop-newest", [1, 2]), ("drop-oldest", [8, 9])])
def test_what_is_dropped_is_counted(make: Make, policy: str, ids: list[int]) -> None:
    publisher = make(pva_overflow=policy)
    publisher.open(lazy(0))
    slow = follow(publisher.channel, "record[pipeline=true,queueSize=2]", 1)
    slow.next()
    for number in range(1, 10):
        publisher.publish(lazy(number))
    assert publisher.counts().rejected == 7
    slow.acknowledge(2)
    assert [slow.next().value["uniqueId"] for _ in range(2)] == ids


def pixels_of(obj: Any) -> list[int]:
    return sorted(set(obj["value"].value.tolist()))


@pytest.mark.parametrize("reused", [True, False])
def test_an_array_that_a_processor_writes_to_again(make: Make, reused: bool) -> None:
    publisher = make()
    publisher.open(lazy(0, 50))
    slow = follow(publisher.channel, "record[pipeline=true,queueSize=50]", 1)
    slow.next()
    own = np.zeros((50, 50), np.uint8)
    addresses = []
    for number in range(1, 11):
        if not reused:
            own = np.zeros((50, 50), np.uint8)
        own[:] = number
        made = Frame.of(number, own, time_ns=1)
        addresses.append(own.ctypes.data)
        if not reused:
            # As a processor that returns: nobody else has the array.
            own = np.zeros(0)
        publisher.publish(LazyObject(made, BUILDER.build))
        del made
    waits = [
        np.frombuffer(update.chunk(0)[-1], np.uint8).ctypes.data
        for one in publisher._hosted.channel.monitors  # pyright: ignore
        for update, _, _ in one._waiting
    ]
    assert (waits == addresses) == (not reused)
    slow.acknowledge(50)
    assert [pixels_of(slow.next().value) for _ in range(10)] == [[n] for n in range(1, 11)]


def test_the_arrays_of_objects_are_what_they_were_when_they_were_published(make: Make) -> None:
    publisher = make()
    obj = pva.PvObject(
        {"x": [pva.INT], "y": {"z": [pva.DOUBLE]}, "uniqueId": pva.INT},
        {"x": [0] * 2000, "y": {"z": [0.0] * 2000}, "uniqueId": 0},
    )
    publisher.open(obj)
    slow = follow(publisher.channel, "record[pipeline=true,queueSize=50]", 1)
    slow.next()
    for number in range(1, 11):
        obj["x"] = [number] * 2000
        obj["y.z"] = [number / 2] * 2000
        obj["uniqueId"] = number
        publisher.publish(obj)
    slow.acknowledge(50)
    for number in range(1, 11):
        value = slow.next().value
        assert value["x"].tolist() == [number] * 2000
        assert value["y"]["z"].tolist() == [number / 2] * 2000


def test_a_channel_keeps_its_structure_and_its_name(make: Make) -> None:
    publisher = make()
    publisher.open(pva.PvObject({"x": pva.INT, "s": {"y": pva.DOUBLE}}))
    for kind in (
        {"x": pva.INT},
        {"x": pva.INT, "t": {"y": pva.DOUBLE}},
        {"x": pva.INT, "s": {"y": pva.DOUBLE, "z": pva.INT}},
        {"x": pva.INT, "s": {"z": pva.DOUBLE}},
        {"x": pva.STRING, "s": {"y": pva.DOUBLE}},
        {"x": [pva.INT], "s": {"y": pva.DOUBLE}},
    ):
        values = {"x": "a"} if kind["x"] == pva.STRING else {}
        with pytest.raises(TransportError, match="keeps the structure of its first object"):
            publisher.publish(pva.PvObject(kind, values))
    assert publisher.counts().errors == 6
    publisher.publish(pva.PvObject({"x": pva.INT, "s": {"y": pva.DOUBLE}}, {"x": 3}))
    assert pvget(publisher.channel)["x"] == 3
    for library in ("own", "binding"):
        other = make(library, "taken")
        other.open(lazy(0))
        with pytest.raises(TransportError, match="cannot host channel"):
            make("own", "taken").open(lazy(0))
        other.stop()


def test_the_opening_object_is_marked_and_results_are_not(make: Make, client: Any) -> None:
    publisher = make()
    publisher.open(mark(BUILDER.build(frame(0)).copy()))
    got = client(publisher.channel)
    got.keeps = True
    assert is_marked(pva.Channel(publisher.channel).get("field()"))
    publisher.publish(lazy(1))
    publisher.publish(BUILDER.build(frame(2)))
    wait_until(lambda: len(got.objects) == 2)
    assert not any(map(is_marked, got.objects))


def test_finish_lets_subscribers_take_what_waits(make: Make) -> None:
    publisher = make()
    publisher.open(lazy(0, 500))
    slow = follow(publisher.channel, "record[queueSize=100]")
    slow.next()
    for number in range(1, 81):
        publisher.publish(lazy(number, 500))
    assert waiting(publisher)[0] > 10
    publisher.finish(0.1)
    thread = threading.Thread(target=publisher.finish, args=(60,))
    thread.start()
    ids = [slow.next().value["uniqueId"] for _ in range(80)]
    thread.join(60)
    assert ids == list(range(1, 81))
    assert waiting(publisher) == [0]


@pytest.mark.parametrize("of_set", ["", "set:a;mode:one;"])
def test_objects_of_one_time_are_shared_out_as_others(make: Make, of_set: str) -> None:
    """Of detectors that stamp their images coarsely, or not at all."""
    publisher = make()
    publisher.open(lazy(0))
    asked = f"record[queueSize=100]field(_[pydistributor=group:g;{of_set}])"
    two = [follow(publisher.channel, asked) for _ in range(2)]
    for one in two:
        one.next()
    for number in range(1, 7):
        publisher.publish(LazyObject(frame(number).replace(time_ns=10**18), BUILDER.build))
    got = [[one.next().value["uniqueId"] for _ in range(3)] for one in two]
    assert got == [[1, 3, 5], [2, 4, 6]]


def test_several_threads_publish_one_after_the_other(make: Make) -> None:
    publisher = make()
    publisher.open(lazy(0, 200))
    reader = Reader(publisher.channel, 0, "record[queueSize=2000]")
    reader.join(10)
    reader._last = 10_000
    follows = threading.Thread(target=reader.run, daemon=True)
    follows.start()

    def publish(first: int) -> None:
        for number in range(first, first + 100):
            publisher.publish(lazy(number, 200))

    threads = [threading.Thread(target=publish, args=(1000 * k,)) for k in range(1, 5)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(PATIENCE)
    publisher.publish(lazy(10_000, 200))
    follows.join(PATIENCE)
    assert len(reader.ids) == 402
    for k in range(1, 5):
        own = [i for i in reader.ids if i // 1000 == k]
        assert own == sorted(own)
        assert len(own) == 100
