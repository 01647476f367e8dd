"""Monitors of the own server: selections, queues, overruns, windows, one encoding."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest

from pvapy_stream.pva.net.encoded_updates import Update
from pvapy_stream.pva.wire import operations, request, values
from pvapy_stream.pva.wire.descriptions import Outgoing
from pvapy_stream.pva.wire.operations import INIT, START, STOP, RequestHead
from pvapy_stream.pva.wire.stream import Command
from tests.pva.net.served import ID, KIND, SECONDS, TAG, Served, fill, value_of
from tests.pva.net.test_bad_clients import Client
from tests.support import wait_until


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


@pytest.mark.parametrize(("size", "segmented"), [(2**20, True), (2**18, False)])
def test_large_arrays_are_sent_from_where_they_are(
    served: Served, monkeypatch: pytest.MonkeyPatch, size: int, segmented: bool
) -> None:
    """Very large ones in a segment of their own."""
    monitor = served.monitor().start()
    monitor.next()
    pixels = np.arange(size, dtype=np.uint8)
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
    assert made.segmented is segmented
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), pixels) for part in made.parts)


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
