"""Monitors of the own server: selections, queues, overruns, windows, distribution, one encoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import numpy as np
import pytest

from pvapy_stream.pva.net.channel import Channel
from pvapy_stream.pva.net.environment import ServerSettings
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.updates import Update
from pvapy_stream.pva.wire import operations, request, values
from pvapy_stream.pva.wire.descriptions import Outgoing
from pvapy_stream.pva.wire.operations import INIT, PIPELINE, START, STOP, Reply, RequestHead
from pvapy_stream.pva.wire.stream import Command
from pvapy_stream.pva.wire.types import Array, Kind, Scalar, Structure, Union, Variant
from tests.pva.net.test_bad_clients import Client
from tests.support import wait_until

TIME = Structure("time_t", (("seconds", Scalar(Kind.LONG)), ("tag", Scalar(Kind.INT))))
KIND = Structure(
    "",
    (
        ("value", Union("", (("a", Array(Kind.UBYTE)),))),
        ("id", Scalar(Kind.INT)),
        ("time", TIME),
        ("any", Variant()),
    ),
)
ID, SECONDS, TAG = 1 << 2, 1 << 4, 1 << 5


def value_of(number: int, tag: int = 0) -> dict[str, Any]:
    return {"id": number, "time": {"seconds": 10 * number, "tag": tag}, "value": SMALL, "any": ANY}


SMALL = values.Selected("a", np.arange(10, dtype=np.uint8))
ANY = values.AnyValue(TIME, {"seconds": 1, "tag": 2})


class Monitor:
    """A client's monitor, on the bytes."""

    def __init__(self, port: int, name: str, asked: str = "", window: int = 0) -> None:
        self.client = Client(port)
        self.channel = self.client.channel(name)
        flags = INIT | (PIPELINE if window else 0)
        setup = operations.MonitorSetup(request.parse(asked), window)
        self.client.send(
            Command.MONITOR,
            RequestHead(self.channel, 1, flags).write,
            lambda w: setup.write(w, Outgoing()),
        )
        reader = self.client.next(Command.MONITOR)
        self.reply = Reply.read(reader)
        kind = self.client.known.need(reader)
        assert isinstance(kind, Structure)
        self.kind = kind
        self.value: dict[str, Any] = values.default(kind)  # pyright: ignore

    def start(self) -> Monitor:
        self.send(START)
        return self

    def send(self, flags: int, *more: Any) -> None:
        self.client.send(Command.MONITOR, RequestHead(self.channel, 1, flags).write, *more)

    def acknowledge(self, count: int) -> None:
        self.send(PIPELINE, lambda w: w.number("I", count))

    def next(self) -> operations.MonitorUpdate:
        reader = self.client.next(Command.MONITOR)
        number, flags = reader.number("I"), reader.byte()
        assert (number, flags) == (1, 0)
        update = operations.MonitorUpdate.read(1, self.kind, reader, self.client.known, self.value)
        self.value = update.value
        return update

    def nothing_more(self) -> None:
        """What was sent before the answer to this would be before it."""
        self.client.send(Command.ECHO, b"done")
        found = []
        while True:
            while self.client._found:
                one = self.client._found.pop(0)
                if one.command == Command.ECHO:
                    assert not found
                    return
                found.append(one)
            count = self.client.link.recv_into(self.client._assembler.space())
            self.client._found += self.client._assembler.received(count)


class Served:
    def __init__(self, name: str) -> None:
        self.name = name
        self.server = Server(ServerSettings.of())
        self.channel = Channel(name, KIND, value_of(0))
        self.server.add(self.channel)
        self.server.start()
        self._monitors: list[Monitor] = []

    def monitor(self, asked: str = "", window: int = 0) -> Monitor:
        self._monitors.append(Monitor(self.server.port, self.name, asked, window))
        return self._monitors[-1]

    def post(self, number: int, bits: int = ID | SECONDS, **more: Any) -> None:
        """Done here, in one thread with the monitors: what is posted meanwhile is known."""
        with self.server.loop.lock:
            self.channel.update({**value_of(number), **more}, bits)

    def close(self) -> None:
        for one in self._monitors:
            one.client.link.close()
        self.server.stop()


@pytest.fixture
def served(prefix: str) -> Iterator[Served]:
    made = Served(f"{prefix}m")
    yield made
    made.close()


def test_first_all_fields_and_then_what_changed(served: Served) -> None:
    monitor = served.monitor().start()
    first = monitor.next()
    assert (first.changed, first.value["id"], first.overrun) == (1, 0, 0)
    assert first.value["any"].value == {"seconds": 1, "tag": 2}
    served.post(1)
    update = monitor.next()
    assert (update.changed, update.value["id"], update.value["time"]) == (
        ID | SECONDS, 1, {"seconds": 10, "tag": 0},
    )  # fmt: skip
    served.post(2, 1 << 3)
    assert monitor.next().changed == 1 << 3
    served.post(3, 1)
    assert monitor.next().changed == 1


def test_selections_get_only_what_they_ask_for(served: Served) -> None:
    parts = {
        "id": served.monitor("id").start(),
        "time.tag": served.monitor("time.tag").start(),
        "any,time": served.monitor("any,time").start(),
    }
    for one in parts.values():
        assert one.next().changed == 1
    assert [name for name, _ in parts["any,time"].kind.fields] == ["time", "any"]
    served.post(1)
    served.post(2, TAG)
    assert parts["id"].next().value == {"id": 1}
    parts["id"].nothing_more()
    update = parts["time.tag"].next()
    assert update.value == {"time": {"tag": 0}}
    both = parts["any,time"]
    assert both.next().value["time"]["seconds"] == 10
    assert both.next().changed == 1 << 3
    both.nothing_more()


def test_an_update_is_encoded_once_for_all_with_the_same_selection(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitors = [served.monitor("id,value").start() for _ in range(8)]
    monitors += [served.monitor().start() for _ in range(4)]
    for one in monitors:
        one.next()
    encoded: list[int] = []
    encode = Update._encode

    def count(self: Update, *args: Any) -> Any:
        encoded.append(1)
        return encode(self, *args)

    monkeypatch.setattr(Update, "_encode", count)
    served.post(5)
    for one in monitors:
        assert one.next().value["id"] == 5
    assert len(encoded) == 2


def test_large_arrays_are_sent_from_where_they_are_in_a_segment_of_their_own(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = served.monitor().start()
    monitor.next()
    pixels = np.arange(2**20, dtype=np.uint8)
    sent: list[Any] = []
    keep = Update.encoded

    def look(self: Update, *args: Any) -> Any:
        sent.append(keep(self, *args))
        return sent[-1]

    monkeypatch.setattr(Update, "encoded", look)
    served.post(1, 0b110, value=values.Selected("a", pixels))
    got = monitor.next().value["value"].value
    assert np.array_equal(got, pixels)
    (made,) = sent
    assert made.segmented
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), pixels) for part in made.parts)


def fill(served: Served, monitor: Monitor, count: int) -> None:
    """Post so many updates that none of them can be sent but the first."""
    for number in range(1, count + 1):
        served.post(number)


@pytest.mark.parametrize(
    ("size", "kept"), [("1", 2), ("2", 2), ("5", 5), ("x", 4), ("9" * 9, 40), ("9" * 5000, 40)]
)
def test_what_a_client_does_not_take_is_merged_when_its_queue_is_full(
    served: Served, size: str, kept: int
) -> None:
    monitor = served.monitor(f"record[pipeline=true,queueSize={size}]field()", window=1).start()
    assert monitor.next().value["id"] == 0
    fill(served, monitor, 40)
    monitor.nothing_more()
    monitor.acknowledge(100)
    updates = [monitor.next() for _ in range(kept)]
    monitor.nothing_more()
    assert [u.value["id"] for u in updates] == [*range(1, kept), 40]
    assert [u.overrun for u in updates[:-1]] == [0] * (kept - 1)
    assert updates[-1].overrun == (ID | SECONDS if kept < 40 else 0)
    assert served.channel.overruns == 40 - kept


@pytest.mark.parametrize(("policy", "ids", "overruns"), [
    ("drop-newest", [1, 2, 3, 11], [0, 0, 0, ID | SECONDS]),
    ("drop-oldest", [8, 9, 10, 11], [ID | SECONDS, 0, 0, 0]),
])  # fmt: skip
def test_the_overflow_policy_of_the_channel(
    served: Served, policy: Any, ids: list[int], overruns: list[int]
) -> None:
    served.channel.overflow = policy
    monitor = served.monitor("record[pipeline=true,queueSize=3]field()", window=1).start()
    monitor.next()
    for number in range(1, 11):
        served.post(number, ID | SECONDS | (TAG if number == 5 else 0))
    monitor.acknowledge(3)
    got = [monitor.next() for _ in range(3)]
    monitor.acknowledge(3)
    served.post(11)
    got.append(monitor.next())
    assert [u.value["id"] for u in got] == ids
    assert [u.overrun & ~TAG for u in got] == overruns
    assert served.channel.dropped == 7
    # What changed in one that was dropped is in the next that is sent.
    assert [bool(u.changed & TAG) for u in got] == [bool(u.overrun) for u in got]


def test_a_window_is_kept_to(served: Served) -> None:
    monitor = served.monitor("record[pipeline=true,queueSize=50]field()", window=3).start()
    assert monitor.next().value["id"] == 0
    fill(served, monitor, 20)
    assert [monitor.next().value["id"] for _ in range(2)] == [1, 2]
    monitor.nothing_more()
    monitor.acknowledge(2)
    assert [monitor.next().value["id"] for _ in range(2)] == [3, 4]
    monitor.nothing_more()
    monitor.acknowledge(2**32 - 1)
    monitor.acknowledge(2**32 - 1)
    assert [monitor.next().value["id"] for _ in range(16)] == list(range(5, 21))


def test_monitors_of_a_slow_client_take_turns(served: Served) -> None:
    """None has to wait until all that waits for another one is sent."""
    client = Client(served.server.port)
    channel = client.channel(served.name)
    setup = operations.MonitorSetup(request.parse("record[queueSize=1000]field(value)"), 0)
    for number in (1, 2):
        client.send(
            Command.MONITOR,
            RequestHead(channel, number, INIT).write,
            lambda w: setup.write(w, Outgoing()),
        )
        client.next(Command.MONITOR)
    for number in (1, 2):
        client.send(Command.MONITOR, RequestHead(channel, number, START).write)
        client.next(Command.MONITOR)
    large, n = values.Selected("a", np.zeros(60_000, np.uint8)), 200
    with served.server.loop.lock:
        for number in range(1, n + 1):
            served.channel.update({**value_of(number), "value": large}, 1 << 1)
    came = [client.next(Command.MONITOR).number("I") for _ in range(2 * n)]
    client.link.close()
    assert came.count(1) == came.count(2) == n
    assert max(len(list(run)) for _, run in groupby(came)) <= 4


def test_a_monitor_that_is_started_again_begins_with_the_present_value(served: Served) -> None:
    monitor = served.monitor().start()
    assert monitor.next().value["id"] == 0
    assert len(served.channel.monitors) == 1
    monitor.send(STOP)
    monitor.nothing_more()
    assert not served.channel.monitors
    fill(served, monitor, 5)
    monitor.nothing_more()
    monitor.start()
    update = monitor.next()
    assert (update.value["id"], update.changed) == (5, 1)
    monitor.nothing_more()
    # Started twice is started.
    monitor.start()
    monitor.nothing_more()
    monitor.client.link.close()
    wait_until(lambda: not served.channel.monitors)


def ids_of(monitor: Monitor) -> list[int]:
    found: list[int] = []
    monitor.client.send(Command.ECHO, b"x")
    while True:
        while monitor.client._found:
            one = monitor.client._found.pop(0)
            if one.command == Command.ECHO:
                return found
            reader = one.reader()
            reader.take(5)
            update = operations.MonitorUpdate.read(
                1, KIND, reader, monitor.client.known, monitor.value
            )
            found.append(update.value["id"])
        count = monitor.client.link.recv_into(monitor.client._assembler.space())
        monitor.client._found += monitor.client._assembler.received(count)


Ask = Callable[..., Monitor]


@pytest.fixture
def ask(served: Served) -> Ask:
    def new(options: str, field: str = "_") -> Monitor:
        asked = f"record[queueSize=100]field({field}[pydistributor={options}])"
        monitor = served.monitor(asked).start()
        assert monitor.next().value["id"] == served.channel.value["id"]
        return monitor

    return new


def test_clients_of_a_group_take_turns(served: Served, ask: Ask) -> None:
    alone = served.monitor("record[queueSize=100]").start()
    two = [ask("group:g;updates:2;trigger:id") for _ in range(2)]
    other = ask("group:other;trigger:id")
    fill(served, alone, 8)
    assert ids_of(alone)[1:] == ids_of(other) == list(range(1, 9))
    assert [ids_of(one) for one in two] == [[1, 2, 5, 6], [3, 4, 7, 8]]


def test_sets_of_a_group_take_turns_and_all_of_a_set_get_the_same(served: Served, ask: Ask) -> None:
    sets = [ask(f"group:g;set:{name};updates:3;trigger:id") for name in "aabb"]
    fill(served, sets[0], 12)
    got = [ids_of(one) for one in sets]
    assert got == [[1, 2, 3, 7, 8, 9]] * 2 + [[4, 5, 6, 10, 11, 12]] * 2


def test_the_options_of_the_first_of_a_set_are_those_of_the_set(served: Served, ask: Ask) -> None:
    sets = [ask("set:a;updates:2;trigger:id"), ask("set:a;updates:7;trigger:nothing")]
    fill(served, sets[0], 3)
    assert [ids_of(one) for one in sets] == [[1, 2, 3]] * 2


@pytest.mark.parametrize("mode", ["one", "all"])
def test_the_mode_decides_who_of_a_set_gets_an_update(served: Served, ask: Ask, mode: str) -> None:
    clients = [ask(f"set:{name};mode:{mode};trigger:id") for name in "abab"]
    fill(served, clients[0], 8)
    got = [ids_of(one) for one in clients]
    if mode == "one":
        assert got == [[1, 5], [2, 6], [3, 7], [4, 8]]
    else:
        assert got == [[1, 3, 5, 7], [2, 4, 6, 8]] * 2


def test_an_update_with_the_same_trigger_is_no_new_one(served: Served, ask: Ask) -> None:
    two = [ask("trigger:time.tag") for _ in range(2)]
    for number, tag in enumerate((1, 1, 2, 2, 3), start=1):
        served.post(number, 1, time={"seconds": 0, "tag": tag})
    assert [ids_of(one) for one in two] == [[1, 5], [3]]


def test_a_field_may_carry_the_option(served: Served, ask: Ask) -> None:
    two = [ask("group:g", field="id") for _ in range(2)]
    assert [name for name, _ in two[0].kind.fields] == ["id"]
    served.post(1)
    served.post(1)
    served.post(2)
    got = []
    for one in two:
        got.append(one.next().value)
        one.nothing_more()
    assert got == [{"id": 1}, {"id": 2}]


def test_who_goes_is_not_waited_for(served: Served, ask: Ask) -> None:
    three = [ask("trigger:id;updates:2") for _ in range(3)]
    fill(served, three[0], 3)
    # It is the turn of the second, in the middle of its run.
    three[1].client.link.close()
    wait_until(lambda: len(served.channel.monitors) == 2)
    for number in range(4, 10):
        served.post(number)
    assert ids_of(three[0]) == [1, 2, 5, 6, 9]
    assert ids_of(three[2]) == [4, 7, 8]
    for one in three[::2]:
        one.client.link.close()
    wait_until(lambda: not served.channel._groups)


@pytest.mark.parametrize("options", ["updates:0", "updates:x", "updates:-1"])
def test_no_updates_each_means_no_distribution(served: Served, ask: Ask, options: str) -> None:
    two = [ask(options) for _ in range(2)]
    fill(served, two[0], 3)
    assert [ids_of(one) for one in two] == [[1, 2, 3]] * 2


def test_a_bit_set_of_all_and_more_is_one_of_all_for_a_selection(served: Served) -> None:
    """Clients put so; a bit that a selection does not have would make the update malformed."""
    part = served.monitor("field(id)").start()
    part.next()
    last = 1 << KIND.starts[-1]
    served.post(1, 1 | last)
    update = part.next()
    assert (update.changed, update.value) == (1, {"id": 1})
    # Merged with what waits.
    served.post(2, ID)
    assert part.next().value == {"id": 2}
