"""How servers are found, by clients and beside servers of other make, and found again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.server_channel import Channel
from tests.ports import free_port
from tests.pva.interop.test_their_servers import Follower
from tests.pva.net.partner import Partner
from tests.pva.net.values import N
from tests.support import PATIENCE, pvget, wait_until

PVAPY = """
import sys, time
import pvaccess as pva
server = pva.PvaServer(sys.argv[1], pva.PvObject({"value": pva.INT}, {"value": int(sys.argv[2])}))
print("up", flush=True)
time.sleep(300)
"""
P4P = """
import sys, time
from p4p.nt import NTScalar
from p4p.server import Server
from p4p.server.thread import SharedPV
value = SharedPV(nt=NTScalar("i"), initial=int(sys.argv[2]))
server = Server(providers=[{sys.argv[1]: value}])
print("up", flush=True)
time.sleep(300)
"""
SERVERS = {"pvapy": PVAPY, "p4p": P4P}
CLIENTS = {
    "pvapy": """
import sys, pvaccess as pva
for name in sys.argv[1:]:
    channel = pva.Channel(name)
    channel.setTimeout(60)
    print(channel.get("field(value)")["value"])
""",
    "p4p": """
import sys
from p4p.client.thread import Context
context = Context("pva", nt=False)
for name in sys.argv[1:]:
    print(context.get(name, timeout=60).value)
context.close()
""",
}
AWAY = 1.5  # s
RETURNS = 5.0  # s; it takes some 0.1 s where nothing else runs

Start = Callable[..., Partner]


@pytest.fixture
def served(prefix: str, server: Server) -> Server:
    server.add(Channel(f"{prefix}own", N, {"value": 3, "more": ""}))
    return server


def values(client: str, *names: str, **environment: str) -> list[int]:
    """What a client of other make gets, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENTS[client], *names],
        capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.splitlines()]


def test_servers_of_one_host_are_all_found(served: Server, prefix: str, partner: Start) -> None:
    """Searches are sent to one address: whoever gets them passes them on."""
    for number, (make, code) in enumerate(SERVERS.items(), start=11):
        partner(code, f"{prefix}{make}", str(number))
    second = Server()
    second.add(Channel(f"{prefix}second", N, {"value": 13, "more": ""}))
    second.start()
    try:
        names = [f"{prefix}{one}" for one in ("own", "pvapy", "p4p", "second")]
        assert values("p4p", *names) == [3, 11, 12, 13]
        assert [pvget(name)["value"] for name in names] == [3, 11, 12, 13]
    finally:
        second.stop()


@pytest.mark.parametrize("client", CLIENTS)
def test_name_servers(served: Server, prefix: str, client: str) -> None:
    """A client that cannot search by UDP asks the server itself."""
    environment = {
        "EPICS_PVA_BROADCAST_PORT": str(free_port()),
        "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{served.port}",
    }
    assert values(client, f"{prefix}own", **environment) == [3]


@pytest.mark.parametrize("make", SERVERS)
def test_a_server_is_found_again_soon(
    client: Client, prefix: str, make: str, partner: Start
) -> None:
    """It was killed and away for longer than searches take to become rare."""
    seen = Follower()
    client.channel(f"{prefix}n").monitor("field(value)", seen)
    for number in range(2):
        time.sleep(AWAY * number)
        server = partner(SERVERS[make], f"{prefix}n", str(number))
        up = time.monotonic()
        assert seen.next()["value"] == number
        assert not number or time.monotonic() - up < RETURNS
        server.kill()
        wait_until(lambda number=number: seen.losses == number + 1)
