"""A channel of the own server, and monitors of it on the bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from pvapy_stream.pva.net.environment import ServerSettings
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.server_channel import Channel
from pvapy_stream.pva.wire import operations, request, values
from pvapy_stream.pva.wire.descriptions import Outgoing
from pvapy_stream.pva.wire.operations import INIT, PIPELINE, START, Reply, RequestHead
from pvapy_stream.pva.wire.stream import Command
from pvapy_stream.pva.wire.types import Array, Kind, Scalar, Structure, Union, Variant
from tests.pva.net.test_bad_clients import Client

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


def fill(served: Served, monitor: Monitor, count: int) -> None:
    """Post so many updates that none of them can be sent but the first."""
    for number in range(1, count + 1):
        served.post(number)
