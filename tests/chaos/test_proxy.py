"""The proxy before a PVA server: found as name server, and able to cut and to stall."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from chaos.proxy import Proxy
from tests.ports import free_port

SERVER = """
import sys, pvaccess as pva
server = pva.PvaServer()
server.addRecord("proxied", pva.PvInt(7), None)
server.start()
print("ready", flush=True)
sys.stdin.read()
server.stop()
"""
CLIENT = """
import sys, pvaccess as pva
channel = pva.Channel("proxied")
channel.setTimeout(float(sys.argv[1]))
try:
    print(channel.get()["value"])
except pva.PvaException:
    print("none")
"""


def ask(search_port: int, patience: float) -> str:
    """What a client gets that has only the proxy to find the server."""
    env = {
        "EPICS_PVA_NAME_SERVERS": f"127.0.0.1:{search_port}",
        "EPICS_PVA_ADDR_LIST": "",
        "EPICS_PVA_BROADCAST_PORT": str(free_port()),
    }
    return subprocess.run(
        [sys.executable, "-c", CLIENT, str(patience)],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=80, check=True,
    ).stdout.strip()  # fmt: skip


@pytest.fixture
def proxy() -> Iterator[tuple[Proxy, int]]:
    search_port, port, server_port = free_port(), free_port(), free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "EPICS_PVAS_SERVER_PORT": str(server_port)},
    )  # fmt: skip
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        made = Proxy(search_port, port, server_port)
        yield made, search_port
        made.close()
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("how", ["cut", "stall"])
def test_what_goes_through_can_be_stopped(proxy: tuple[Proxy, int], how: str) -> None:
    made, search_port = proxy
    assert ask(search_port, 30) == "7"
    getattr(made, how)()
    assert ask(search_port, 0.5) == "none"
    made.mend()
    assert ask(search_port, 30) == "7"
