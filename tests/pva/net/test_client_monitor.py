"""Monitors of the own client beside servers of our own and of other make."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.environment import ClientSettings, ServerSettings
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.server_channel import Channel
from pvapy_stream.pva.wire.buffers import Buffer, Reader
from pvapy_stream.pva.wire.changes import read_changes
from pvapy_stream.pva.wire.descriptions import Incoming
from pvapy_stream.pva.wire.types import Array, Kind, Scalar, Structure, default
from tests.ports import free_port
from tests.pva.net.partner import Partner
from tests.pva.net.test_client import same
from tests.pva.net.values import KIND, VALUE, N
from tests.support import PATIENCE, wait_until


class Seen:
    """What a monitor told; it may be held up."""

    def __init__(self) -> None:
        self.kind = Structure("", ())
        self.known = Incoming()
        self.values: list[Any] = []
        self.events: list[str] = []
        self.identities: list[bytes] = []
        self.open = threading.Event()
        self.open.set()

    def began(self, kind: Structure, known: Incoming, identity: bytes) -> None:
        self.kind, self.known, self._held = kind, known, default(kind)
        self.identities.append(identity)
        self.events.append("began")

    def update(self, payload: Sequence[Buffer], big: bool) -> None:
        self.open.wait(PATIENCE)
        reader = Reader(payload, big)
        reader.take(5)
        held: Any = self._held
        self._held = read_changes(self.kind, reader, self.known, held)[1]
        self.values.append(self._held)

    def refused(self, reason: str) -> None:
        self.events.append(f"refused: {reason}")

    def unshared(self, reason: str) -> None:
        self.events.append(f"unshared: {reason}")

    def lost(self, reason: str) -> None:
        self.events.append("lost")


def numbers(seen: Seen) -> list[int]:
    return [one["value"] for one in seen.values]


def test_values_of_every_type(client: Client, server: Server, prefix: str) -> None:
    channel = Channel(f"{prefix}all", KIND, VALUE)
    server.add(channel)
    seen = Seen()
    client.channel(f"{prefix}all").monitor("", seen)
    wait_until(lambda: len(seen.values) == 1)
    assert seen.kind == KIND
    assert same(seen.values[0], VALUE)
    changed = {**VALUE, "text": "new", "large": np.arange(200_000, dtype="<u2")}
    server.update(channel, changed)
    wait_until(lambda: len(seen.values) == 2)
    assert same(seen.values[1], changed)
    part = Seen()
    client.channel(f"{prefix}all").monitor("field(inner.name,short)", part)
    wait_until(lambda: part.values)
    assert part.values == [{"short": -300, "inner": {"name": "n"}}]


# They begin when the client had time to find them.
PVAPY = """
import sys, time
import pvaccess as pva
kind = {"value": pva.INT, "more": pva.STRING}
server = pva.PvaServer(sys.argv[1], pva.PvObject(kind, {"value": 0}))
print("up", flush=True)
time.sleep(float(sys.argv[2]))
for number in range(1, 201):
    server.update(sys.argv[1], pva.PvObject(kind, {"value": number}))
    time.sleep(0.002)
time.sleep(300)
"""
P4P = """
import sys, time
from p4p import Type, Value
from p4p.server import Server, StaticProvider
from p4p.server.thread import SharedPV
kind = Type([("value", "i"), ("more", "s")])
pv = SharedPV(initial=Value(kind, {"value": 0}))
provider = StaticProvider("x")
provider.add(sys.argv[1], pv)
server = Server(providers=[provider])
print("up", flush=True)
time.sleep(float(sys.argv[2]))
for number in range(1, 201):
    pv.post(Value(kind, {"value": number}))
    time.sleep(0.002)
time.sleep(300)
"""


@pytest.mark.parametrize(
    "request_", ["record[queueSize=500]field()", "record[queueSize=500,pipeline=true]field()"]
)
@pytest.mark.parametrize("code", [PVAPY, P4P], ids=["pvapy", "p4p"])
def test_servers_of_other_make(
    client: Client, prefix: str, code: str, request_: str, partner: Callable[..., Partner]
) -> None:
    """Asked for a pipeline, pvDatabaseCPP sends each update many times: it is not asked."""
    seen = Seen()
    client.channel(f"{prefix}n").monitor(request_, seen)
    partner(code, f"{prefix}n", "3")
    wait_until(lambda: 200 in numbers(seen))
    assert numbers(seen) == list(range(201))


def test_a_server_waits_for_a_client_that_acknowledges(
    client: Client, server: Server, prefix: str
) -> None:
    channel = Channel(f"{prefix}n", N, {"value": 0, "more": ""})
    server.add(channel)
    paced = Seen()
    place = client.channel(f"{prefix}n")
    place.monitor("record[queueSize=300,pipeline=true]field()", paced)
    wait_until(lambda: numbers(paced) == [0])
    paced.open.clear()
    threading.Timer(0.5, paced.open.set).start()
    for number in range(1, 301):
        server.update(channel, {"value": number, "more": ""})
    wait_until(lambda: 300 in numbers(paced))
    assert numbers(paced) == list(range(301))


def test_a_refused_monitor_tells_why_and_is_asked_again(
    client: Client, server: Server, prefix: str
) -> None:
    server.add(Channel(f"{prefix}n", N, {"value": 0, "more": ""}))
    seen = Seen()
    client.channel(f"{prefix}n").monitor("field(missing)", seen)
    wait_until(lambda: len(seen.events) >= 2)
    assert all("none of the fields missing exists" in event for event in seen.events)
    other = Structure("", (("missing", Scalar(Kind.INT)),))
    server.remove(f"{prefix}n")
    server.add(Channel(f"{prefix}n", other, {"missing": 5}))
    wait_until(lambda: seen.values == [{"missing": 5}])


def test_a_server_comes_back_as_another_with_another_structure(client: Client, prefix: str) -> None:
    seen = Seen()
    client.channel(f"{prefix}n").monitor("", seen)
    kinds = [N, Structure("", (("value", Array(Kind.SHORT)),)), N]
    values: list[Any] = [
        {"value": 1, "more": "a"},
        {"value": np.arange(3)},
        {"value": 2, "more": ""},
    ]
    for count, (kind, value) in enumerate(zip(kinds, values, strict=True), 1):
        server = Server()
        server.add(Channel(f"{prefix}n", kind, value))
        server.start()
        wait_until(lambda count=count: len(seen.values) == count)
        assert seen.kind == kind
        assert same(seen.values[-1], value)
        server.stop()
        wait_until(lambda count=count: seen.events.count("lost") == count)
    assert len(set(seen.identities)) == 3


@pytest.mark.parametrize("by", ["udp", "name server"])
def test_a_killed_server_is_found_soon_after_its_return(prefix: str, by: str) -> None:
    """It was away longer than searches take to become rare. The median of three, as hosts stall."""
    port = free_port()
    name_server = ClientSettings((), (("127.0.0.1", port),)) if by == "name server" else None
    client = Client(name_server)
    seen = Seen()
    client.channel(f"{prefix}n").monitor("", seen)
    took: list[float] = []
    for count in range(1, 5):
        server = Server(ServerSettings(("127.0.0.1",), port) if name_server else None)
        server.add(Channel(f"{prefix}n", N, {"value": count, "more": ""}))
        server.start()
        began = time.monotonic()
        wait_until(lambda count=count: numbers(seen)[-1:] == [count])
        took.append(time.monotonic() - began)
        server.stop()
        wait_until(lambda count=count: seen.events.count("lost") == count)
        time.sleep(1.5)
    client.stop()
    assert sorted(took[1:])[1] < 0.5
