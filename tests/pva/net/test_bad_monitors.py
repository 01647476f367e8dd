"""Clients whose monitors make no sense, at random with fixed seeds: the others lose nothing."""

from __future__ import annotations

import logging
import random
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from pvapy_stream.pva.net.environment import ServerSettings
from pvapy_stream.pva.wire import connecting, operations, request, searching
from pvapy_stream.pva.wire.buffers import Writer
from pvapy_stream.pva.wire.descriptions import Outgoing
from pvapy_stream.pva.wire.operations import DESTROY, INIT, PIPELINE, START, STOP, RequestHead
from pvapy_stream.pva.wire.stream import Command, message
from tests.pva.net.served import ID, TAG, Served
from tests.support import pvget, wait_until

ASKED = (
    "", "id", "time.tag", "any,value", "record[queueSize=1]field()", "record[queueSize=70000]id",
    "record[pipeline=true,queueSize=3]field()", "field(_[pydistributor=group:g;updates:2])",
    "field(_[pydistributor=set:a;trigger:time.tag])", "field(id[distributor=mode:all;set:b])",
    "field(_[pydistributor=;;:;updates:;group])", "field(nothing)", "field(id.below)",
)  # fmt: skip


def data_of(command: int, *parts: Callable[[Writer], Any]) -> bytes:
    writer = Writer()
    for part in parts:
        part(writer)
    return b"".join(message(command, writer))


def begin(name: str) -> bytes:
    choice = connecting.Choice(method="ca")
    return data_of(Command.VALIDATION, lambda w: choice.write(w, Outgoing())) + data_of(
        Command.CREATE_CHANNEL, connecting.ChannelRequest(((7, name),)).write
    )


def step(chance: random.Random) -> bytes:
    """Something that a client may say of a monitor."""
    number = chance.randint(1, 4)
    flags = chance.choice([INIT, INIT | PIPELINE, START, START, STOP, PIPELINE, DESTROY, 0, 0xFF])
    parts: list[Any] = [RequestHead(chance.choice([1, 1, 1, 2]), number, flags).write]
    if flags & INIT:
        asked = request.parse(chance.choice(ASKED))
        setup = operations.MonitorSetup(asked, chance.choice([1, 3, 2**32 - 1]))
        parts.append(lambda w: setup.write(w, Outgoing()))
    elif flags & PIPELINE:
        parts.append(lambda w: w.number("I", chance.choice([0, 1, 2**32 - 1])))
    ends = operations.RequestId(1, number)
    return chance.choices(
        [
            data_of(Command.MONITOR, *parts),
            data_of(Command.CANCEL_REQUEST, ends.write),
            data_of(Command.DESTROY_REQUEST, ends.write),
        ],
        [20, 1, 1],
    )[0]


@pytest.mark.parametrize("seed", range(4))
def test_monitors_that_make_no_sense(
    served: Served, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(seed)
    good = served.monitor("record[queueSize=5000]").start()
    assert good.next().value["id"] == 0
    number = 0
    for _ in range(500):
        link = socket.create_connection(("127.0.0.1", served.server.port), 20)
        link.sendall(begin(served.name))
        for _ in range(chance.randint(1, 12)):
            data = bytearray(step(chance))
            for _ in range(chance.choice([0, 0, 0, 1, 3])):
                data[chance.randrange(8, len(data))] = chance.randrange(256)
            try:
                link.sendall(data)
            except ConnectionError:
                break
            number += 1
            served.post(number, chance.choice([1, ID, ID | TAG, ID | 1 << 3]))
        if chance.random() < 0.5:
            # Gone without a word.
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        link.close()
    assert [good.next().value["id"] for _ in range(number)] == list(range(1, number + 1))
    wait_until(lambda: len(served.channel.monitors) == 1)
    assert not served.channel._groups
    # What is wrong is refused with a reason; nothing fails that was not looked for.
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def test_a_stream_goes_on_under_many_searches(served: Served) -> None:
    good = served.monitor("record[queueSize=5000]").start()
    assert good.next().value["id"] == 0
    port = ServerSettings.of().broadcast_port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("127.0.0.1", 0))
        names = [(k, f"{served.name}:absent:{k}") for k in range(20)]
        writer = Writer()
        searching.Search(
            1, searching.UNICAST, searching.ANY, link.getsockname()[1], (), tuple(names)
        ).write(writer)
        data = b"".join(message(Command.SEARCH, writer))
        for number in range(1, 1001):
            for _ in range(10):
                link.sendto(data, ("127.0.0.1", port))
            served.post(number)
    assert [good.next().value["id"] for _ in range(1000)] == list(range(1, 1001))
    assert pvget(served.name)["id"] == 1000
