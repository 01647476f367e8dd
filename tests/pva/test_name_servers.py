"""The name servers of the environment, asked by us for the binding: real servers and clients."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

from tests.ports import free_port
from tests.support import PATIENCE

SERVER = """
import sys, pvaccess as pva
server = pva.PvaServer()
for name in sys.argv[1:]:
    server.addRecord(name, pva.PvObject({"value": pva.STRING}, {"value": name}), None)
server.start()
print("ready", flush=True)
sys.stdin.read()
"""
# Channels are made and forgotten in several threads at once, while others are searched for.
CLIENT = """
import os, sys, threading
before = dict(os.environ)
import pvapy_stream
assert dict(os.environ) == before
import pvaccess as pva
wrong = []
def get(names):
    for name in names:
        channel = pva.Channel(name)
        channel.setTimeout(60)
        if (got := channel.get()["value"]) != name:
            wrong.append(got)
nobody = pva.Channel(sys.argv[1] + "nobody")
nobody.monitor(print)
threads = [threading.Thread(target=get, args=(sys.argv[2 + k::4],)) for k in range(4)]
[one.start() for one in threads]
[one.join() for one in threads]
print("done", wrong, flush=True)
os._exit(0)
"""


def serve(port: int, *names: str) -> subprocess.Popen[str]:
    made = subprocess.Popen(
        [sys.executable, "-c", SERVER, *names],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "EPICS_PVAS_SERVER_PORT": str(port),
             "EPICS_PVA_BROADCAST_PORT": str(free_port())},
    )  # fmt: skip
    assert made.stdout is not None
    assert made.stdout.readline() == "ready\n"
    return made


def ask(prefix: str, servers: list[int], names: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, prefix, *names], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "EPICS_PVA_BROADCAST_PORT": str(free_port()),
             "EPICS_PVA_NAME_SERVERS": " ".join(f"127.0.0.1:{port}" for port in servers)},
    )  # fmt: skip


def end(*programs: subprocess.Popen[str]) -> None:
    for one in programs:
        one.kill()
        one.communicate()


def test_channels_of_several_name_servers_one_of_them_absent_one_late_one_no_server_at_all(
    prefix: str,
) -> None:
    early, late, absent = free_port(), free_port(), free_port()
    names = [f"{prefix}{number}" for number in range(40)]
    with socket.create_server(("127.0.0.1", 0)) as rubbish:
        threading.Thread(target=_talk_rubbish, args=(rubbish,), daemon=True).start()
        first = serve(early, *names[:20])
        client = ask(prefix, [absent, rubbish.getsockname()[1], early, late], names)
        second = serve(late, *names[20:])
        try:
            out, _ = client.communicate(timeout=PATIENCE)
            assert out == "done []\n"
            assert client.returncode == 0
        finally:
            end(client, first, second)


def _talk_rubbish(server: socket.socket) -> None:
    while True:
        try:
            link, _ = server.accept()
        except OSError:
            return
        with link:
            link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
