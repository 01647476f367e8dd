"""A process that has no file handles left for a moment goes on when it has some again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Programs of their own: a limit is one of the whole process.
_LIMIT = """
import logging, os, resource, socket, sys, time
from pvapy_stream.pva.net.server_channel import Channel
from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.wire.types import Kind, Scalar, Structure

lines = []

class Keep(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())

logging.getLogger().addHandler(Keep())
KIND = Structure("", (("a", Scalar(Kind.INT)),))
SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)

def no_files():
    # What is open stays open.
    newest = os.dup(1)
    os.close(newest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (newest, HARD))

def files_again():
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, HARD))

def wait_for(condition):
    while not condition():
        time.sleep(0.01)

print("up", flush=True)
"""
_CLIENT = """
server = Server()
server.start()
channel = Client().channel(sys.argv[1])
wait_for(lambda: channel.why)
# Its socket for searches is open.
time.sleep(0.1)
no_files()
server.add(Channel(sys.argv[1], KIND, {"a": 1}))
wait_for(lambda: lines)
files_again()
print(channel.wait(60), flush=True)
"""
_SERVER = """
server = Server()
server.add(Channel(sys.argv[1], KIND, {"a": 1}))
server.start()
late = socket.socket()
no_files()
late.connect(("127.0.0.1", server.port))
wait_for(lambda: lines)
time.sleep(0.2)
told = len(lines)
files_again()
late.settimeout(60)
print(bool(late.recv(8)), told, flush=True)
"""


def test_a_client_connects_when_it_can(prefix: str, partner: Callable[..., Any]) -> None:
    made = partner(_LIMIT + _CLIENT, f"{prefix}channel")
    assert made.line() == "True"


def test_a_server_accepts_when_it_can(prefix: str, partner: Callable[..., Any]) -> None:
    made = partner(_LIMIT + _SERVER, f"{prefix}channel")
    # And says once that it cannot, though the client waits all the time.
    assert made.line() == "True 1"
