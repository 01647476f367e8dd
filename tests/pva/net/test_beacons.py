"""Who searches hears at once that a server is new or has changed, and that costs little."""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net import client as client_module
from pvapy_stream.pva.net import client_channel, client_search
from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.environment import ServerSettings, interfaces_of_host
from pvapy_stream.pva.net.local_group import GROUP, LocalGroup, listen
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.server_channel import Channel
from pvapy_stream.pva.search import find_servers
from pvapy_stream.pva.wire.buffers import Writer
from pvapy_stream.pva.wire.searching import Beacon, Search, datagram, read_datagram
from pvapy_stream.pva.wire.stream import Command, message
from tests.ports import free_port
from tests.pva.net.partner import Partner
from tests.pva.net.values import N
from tests.support import PATIENCE, wait_until

NEVER = 3600.0  # s
# Adds a channel for each line, if it has a name.
SERVER = """
import sys
from pvapy_stream.pva.net.server_channel import Channel
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.wire.types import Kind, Scalar, Structure
server = Server()
server.start()
print("up", flush=True)
for line in sys.stdin:
    server.add(Channel(line.strip(), Structure("", (("value", Scalar(Kind.INT)),)), {"value": 1}))
    print("added", flush=True)
"""
CLIENT = """
import sys
from pvapy_stream.pva.net import client, client_channel, client_search
for module in client, client_channel, client_search:
    module.FIRST = module.LONGEST = module.RETURNS = 3600.0
made = client.Client()
channel = made.channel(sys.argv[1])
print("up", flush=True)
assert channel.wait(120)
print("found", flush=True)
sys.stdin.read()
"""
P4P = """
import sys, time
from p4p.nt import NTScalar
from p4p.server import Server
from p4p.server.thread import SharedPV
server = Server(providers=[{sys.argv[1]: SharedPV(nt=NTScalar("i"), initial=1)}])
print("up", flush=True)
time.sleep(300)
"""


class Ear:
    """Hears what comes to the programs of this host."""

    def __init__(self, port: int) -> None:
        self.searches: list[str] = []
        self.beacons: list[Beacon] = []
        self._link = listen(GROUP, port)
        self._link.setblocking(True)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while data := self._link.recv(2**16):
            try:
                for one in datagram(data):
                    if one.command == Command.SEARCH:
                        search = Search.read(read_datagram(one))
                        self.searches += [name for _, name in search.channels]
                    elif one.command == Command.BEACON:
                        self.beacons.append(Beacon.read(read_datagram(one)))
            except WireError:
                continue

    def close(self) -> None:
        port = self._link.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
            )
            link.sendto(b"", (GROUP, port))
        self._thread.join(PATIENCE)
        self._link.close()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """UDP, of this test alone."""
    made = free_port()
    monkeypatch.setenv("EPICS_PVA_BROADCAST_PORT", str(made))
    return made


@pytest.fixture
def ear(port: int) -> Iterator[Ear]:
    made = Ear(port)
    yield made
    made.close()


@pytest.fixture
def searches_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients search at once, and then only because of beacons."""
    for module in (client_module, client_channel, client_search):
        for name in ("FIRST", "LONGEST", "RETURNS"):
            monkeypatch.setattr(module, name, NEVER, raising=False)


class Counting(Server):
    """Counts what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def answer(self, search: Search) -> Writer | None:
        self.asked += [name for _, name in search.channels]
        return super().answer(search)


@pytest.fixture
def counting(ear: Ear, searches_once: None) -> Iterator[Counting]:
    made = Counting()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def patient(ear: Ear, searches_once: None) -> Iterator[Client]:
    made = Client()
    yield made
    made.stop()


def hosted(name: str) -> Channel:
    return Channel(name, N, {"value": 1, "more": ""})


def beacon(identity: bytes = b"", changes: int = 0) -> bytes:
    writer = Writer()
    identity = identity or secrets.token_bytes(12)
    Beacon(identity, 0, changes, "127.0.0.1", 1).write(writer)
    return b"".join(message(Command.BEACON, writer, server=True))


def test_a_channel_that_is_added_is_found_by_the_next_search(
    patient: Client, counting: Counting, ear: Ear, prefix: str
) -> None:
    name = f"{prefix}late"
    channel = patient.channel(name)
    wait_until(lambda: name in counting.asked)
    heard = len(ear.beacons)
    counting.add(hosted(name))
    assert channel.wait(PATIENCE)
    wait_until(lambda: len(ear.beacons) > heard)
    assert ear.beacons[-1].changes == 1
    # Once in vain, and once for each server that was new or had changed, at most.
    assert 2 <= len(ear.searches) <= 3
    assert counting.asked == ear.searches


def test_who_is_there_before_its_server_finds_it_in_every_program(
    patient: Client, ear: Ear, prefix: str, partner: Callable[..., Partner]
) -> None:
    """All of them share the port, and none of them has it alone."""
    name = f"{prefix}new"
    channels = [patient.channel(name)]
    other = Client()
    channels.append(other.channel(name))
    program = partner(CLIENT, name)
    wait_until(lambda: ear.searches.count(name) >= 3)
    server = partner(SERVER)
    assert server.tell(name) == "added"
    assert all(one.wait(PATIENCE) for one in channels)
    assert program.line() == "found"
    other.stop()


def test_a_server_that_comes_back_is_found_by_its_first_beacon(
    patient: Client, ear: Ear, prefix: str, partner: Callable[..., Partner]
) -> None:
    name = f"{prefix}again"
    channel = patient.channel(name)
    for _ in range(2):
        server = partner(SERVER)
        server.tell(name)
        assert channel.wait(PATIENCE)
        server.kill()
        wait_until(lambda: not channel.connected)


def test_servers_of_other_make_are_heard_if_one_of_ours_gets_their_beacons(
    patient: Client, counting: Counting, prefix: str, partner: Callable[..., Partner]
) -> None:
    """PVXS binds no address, so what is sent to this host comes to our server."""
    channel = patient.channel(f"{prefix}p4p")
    wait_until(lambda: counting.asked)
    partner(P4P, f"{prefix}p4p")
    assert channel.wait(PATIENCE)


def test_while_nothing_is_searched_for_no_beacon_is_listened_for(
    patient: Client, counting: Counting, prefix: str, port: int
) -> None:
    def listening() -> int:
        with open("/proc/net/udp") as lines:
            return sum(f"800000E0:{port:04X}" in one for one in lines)

    # The ear and the server.
    wait_until(lambda: listening() == 2)
    channel = patient.channel(f"{prefix}x")
    wait_until(lambda: listening() == 3)
    counting.add(hosted(f"{prefix}x"))
    assert channel.wait(PATIENCE)
    wait_until(lambda: listening() == 2)


@pytest.mark.parametrize("way", ["group", "address"])
def test_a_storm_of_beacons_causes_few_searches(
    patient: Client, counting: Counting, ear: Ear, prefix: str, port: int, way: str
) -> None:
    """By the address of the host it comes to our server, which passes few on."""
    name = f"{prefix}late"
    channel = patient.channel(name)
    wait_until(lambda: name in ear.searches)
    group, sent, began = LocalGroup(), 5000, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        for number in itertools.count():
            # For so long that what is allowed at once is used up.
            if number >= sent and time.monotonic() - began > 1.0:
                break
            if way == "group":
                group.send(beacon(), port, "127.0.0.1")
            else:
                link.sendto(beacon(), ("127.0.0.1", port))
            if not number % 10:
                time.sleep(0.001)
    group.close()
    counting.add(hosted(name))
    # What the storm has used up comes back.
    assert channel.wait(PATIENCE)
    took = time.monotonic() - began
    # Nine at once, the first one among them; then two a second.
    assert 2 <= len(ear.searches) <= 10 + 2 * took
    assert took > 1.0
    if way == "address":
        assert len(ear.beacons) <= 25 + 20 * took + 5


def test_beacons_go_where_they_are_configured_to_go(ear: Ear, port: int) -> None:
    interfaces = dict(interfaces_of_host())
    environment = {
        "EPICS_PVA_BROADCAST_PORT": str(port),
        "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_BEACON_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVAS_BEACON_PERIOD": "0.1",
    }
    silent = ServerSettings.of({**environment, "EPICS_PVAS_BEACON_ADDR_LIST": ""})
    assert silent.beacons == ()
    heard = ServerSettings.of(environment)
    assert heard.beacons == (("127.0.0.1", port),)
    automatic = {**environment, "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "YES"}
    # The broadcast address of an interface where it does not listen is not one of its own.
    assert ServerSettings.of(automatic).beacons == heard.beacons
    everywhere = ServerSettings.of({**automatic, "EPICS_PVAS_INTF_ADDR_LIST": ""})
    assert {host for host, _ in everywhere.beacons} == {
        "127.0.0.1", *filter(None, interfaces.values()),
    }  # fmt: skip
    servers = [Server(silent), Server(heard)]
    for one in servers:
        one.start()
    # Several periods: the silent one would have been heard.
    wait_until(lambda: len(ear.beacons) > 5)
    assert {one.identity for one in ear.beacons} == {servers[1].identity}
    for one in servers:
        one.stop()


@pytest.mark.parametrize("way", ["client", "find_servers"])
def test_a_stopped_server_keeps_nobody_from_being_found(
    ear: Ear, prefix: str, way: str, partner: Callable[..., Partner]
) -> None:
    """What is sent to the host goes to the one that bound its address last."""
    name = f"{prefix}there"
    server = Counting()
    server.add(hosted(name))
    server.start()
    stopped = partner(SERVER)
    os.kill(stopped.process.pid, signal.SIGSTOP)
    client = Client()
    if way == "client":
        assert client.channel(name).wait(PATIENCE)
        # One search, and one answer to it.
        assert server.asked == [name]
    else:
        assert find_servers([name])[name] == {server.identity: f"127.0.0.1:{server.port}"}
    client.stop()
    server.stop()


def test_a_stopped_server_keeps_nobody_from_hearing_of_a_channel(
    patient: Client, counting: Counting, prefix: str, partner: Callable[..., Partner]
) -> None:
    channel = patient.channel(f"{prefix}late")
    stopped = partner(SERVER)
    # It is new: the search because of its first beacon is over.
    wait_until(lambda: len(counting.asked) >= 2)
    os.kill(stopped.process.pid, signal.SIGSTOP)
    counting.add(hosted(f"{prefix}late"))
    assert channel.wait(PATIENCE)
