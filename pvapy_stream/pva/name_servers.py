"""Asks PVA name servers (EPICS_PVA_NAME_SERVERS) for the binding.

The binding's own search over TCP uses its connection in several threads without a lock: it
sometimes ended the process, and may take half a minute to find a channel. Here our own threads ask
the name servers; the binding does not know them, and sends its searches to us by UDP.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass

import pvaccess as pva
from msgspec.structs import replace

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net.environment import SERVER_PORT, Address, listed_addresses
from pvapy_stream.pva.wire.buffers import Writer
from pvapy_stream.pva.wire.connecting import Choice
from pvapy_stream.pva.wire.descriptions import Outgoing
from pvapy_stream.pva.wire.searching import (
    TCP,
    Search,
    SearchReply,
    datagram,
    found_in,
    read_datagram,
    search_message,
)
from pvapy_stream.pva.wire.stream import Assembler, Command, Control, StreamMessage, message

VARIABLE = "EPICS_PVA_NAME_SERVERS"
_ADDRESSES = "EPICS_PVA_ADDR_LIST"
# The binding asks only one port of an address, and 127.0.0.1 may be in its list.
_HOST = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
_NOBODY = "pvapy_stream:nobody"  # a channel that no server has, and that is not searched for
_CONNECT = 3.0  # s; for a connection, and for each message that opens it
_BACKOFF = 0.5  # s; until the next attempt to connect to a name server that is absent
_TICK = 0.05  # s; longest time until a new name is searched for
_AGAIN = 0.5  # s; until the next search for a name that no server has
_IDLE = 10.0  # s without names, after which the connection is closed
# The binding asks again at growing intervals of up to 29 s; others are dropped.
_KEPT = 60.0
_MOST = 2000  # names in one request

# The binding discards its settings when its last channel is closed: this one stays open.
_first: list[pva.Channel] = []

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Wanted:
    """A search of the binding that is not answered."""

    search: Search
    number: int
    name: str
    sender: Address
    end: float


class Relay:
    """Answers the searches of the binding, received by UDP, with the replies of name servers.

    Args:
        servers: host and port of each name server.

    Attributes:
        address: where it is asked, ``host:port``.
    """

    def __init__(self, servers: list[Address]) -> None:
        self._link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._link.bind((_HOST, 0))
        self.address = "{}:{}".format(*self._link.getsockname())
        self._lock = threading.Lock()
        self._wanted: dict[tuple[Address, int], _Wanted] = {}
        self._numbers: dict[str, int] = {}
        self._any = threading.Event()
        threading.Thread(target=self._listen, name="name-relay", daemon=True).start()
        for host, port in servers:
            threading.Thread(
                target=self._follow, args=(host, port), name=f"name-server-{host}", daemon=True
            ).start()

    def _listen(self) -> None:
        while True:
            data, sender = self._link.recvfrom(65536)
            for search in _searches(data):
                self._note(search, sender)

    def _note(self, search: Search, sender: Address) -> None:
        end = time.monotonic() + _KEPT
        with self._lock:
            for number, name in search.channels:
                if name == _NOBODY:
                    continue
                self._numbers.setdefault(name, len(self._numbers))
                self._wanted[sender, number] = _Wanted(search, number, name, sender, end)
            if self._wanted:
                self._any.set()

    def _names(self) -> dict[int, str]:
        """Names that are searched for, by our own numbers."""
        now = time.monotonic()
        with self._lock:
            for key in [key for key, one in self._wanted.items() if one.end < now]:
                del self._wanted[key]
            if not self._wanted:
                self._any.clear()
            names = dict.fromkeys(one.name for one in self._wanted.values())
            return {self._numbers[name]: name for name in list(names)[:_MOST]}

    def _answer(self, reply: SearchReply) -> None:
        """Send a reply to all searches for the channels in it."""
        with self._lock:
            found = [
                key for key, one in self._wanted.items()
                if self._numbers[one.name] in reply.channels
            ]  # fmt: skip
            answered = [self._wanted.pop(key) for key in found]
        for one in answered:
            _log.info("channel %s is served at %s:%d", one.name, reply.address, reply.port)
            writer = Writer()
            sequence, channels = one.search.sequence, (one.number,)
            replace(reply, sequence=sequence, channels=channels).write(writer)
            answer = b"".join(message(Command.SEARCH_REPLY, writer, server=True))
            with contextlib.suppress(OSError):
                self._link.sendto(answer, (one.sender[0], one.search.port or one.sender[1]))

    def _follow(self, host: str, port: int) -> None:
        """Ask one name server, until the process ends."""
        while self._any.wait():
            try:
                with _Server(host, port) as server:
                    self._ask(server)
            except (OSError, WireError) as error:
                _log.debug("name server %s:%d: %s", host, port, error)
            time.sleep(_BACKOFF)

    def _ask(self, server: _Server) -> None:
        asked: dict[int, str] = {}
        again = 0.0
        idle = time.monotonic() + _IDLE
        while (now := time.monotonic()) < idle:
            names = self._names()
            if names:
                idle = now + _IDLE
            if names and (now >= again or names.keys() - asked.keys()):
                asked, again = names, now + _AGAIN
                server.search(names)
            for reply in found_in(server.receive(_TICK), server.host):
                self._answer(reply)


class _Server:
    """A connection to a name server.

    Raises:
        OSError: it is not there.
        WireError: it speaks another protocol.
    """

    def __init__(self, host: str, port: int) -> None:
        self._link = socket.create_connection((host, port), _CONNECT)
        self.host: str = self._link.getpeername()[0]
        self._assembler = Assembler()
        self._big = False
        try:
            self._open()
        except BaseException:
            self._link.close()
            raise

    def __enter__(self) -> _Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._link.close()

    def _open(self) -> None:
        end = time.monotonic() + _CONNECT
        while (left := end - time.monotonic()) > 0:
            for one in self.receive(left):
                if one.control:
                    if one.command == Control.SET_BYTE_ORDER:
                        self._big = one.big
                elif one.command == Command.VALIDATION:
                    writer = Writer(self._big)
                    Choice().write(writer, Outgoing())
                    self._send(b"".join(message(Command.VALIDATION, writer)))
                elif one.command == Command.VALIDATED:
                    return
        raise TimeoutError("it does not speak PVA")

    def _send(self, data: bytes) -> None:
        self._link.settimeout(_CONNECT)
        self._link.sendall(data)

    def search(self, names: dict[int, str]) -> None:
        """Ask for channels."""
        self._send(search_message(names, big=self._big))

    def receive(self, timeout: float) -> list[StreamMessage]:
        """Messages completed by the next bytes; none if no bytes arrive within `timeout` s."""
        self._link.settimeout(timeout)
        try:
            count = self._link.recv_into(self._assembler.space())
        except TimeoutError:
            return []
        if not count:
            raise ConnectionError("it has closed the connection")
        return self._assembler.received(count)


def _searches(data: bytes) -> list[Search]:
    """What a datagram searches for over TCP."""
    try:
        found = [
            Search.read(read_datagram(one))
            for one in datagram(data)
            if one.command == Command.SEARCH
        ]
    except WireError:
        return []
    return [search for search in found if TCP in search.protocols]


def relay() -> None:
    """Ask the name servers of the environment for the binding of this process.

    The binding reads its environment when it is used first: then it is shown ours among the
    addresses that it asks by UDP, and no name servers. Afterwards the environment, which child
    processes inherit, is as it was.
    """
    listed = listed_addresses(os.environ.get(VARIABLE, ""), SERVER_PORT)
    servers = list(dict.fromkeys(listed))
    if not servers:
        return
    before = {name: os.environ.get(name) for name in (VARIABLE, _ADDRESSES)}
    made = Relay(servers)
    os.environ[_ADDRESSES] = f"{before[_ADDRESSES] or ''} {made.address}".strip()
    del os.environ[VARIABLE]
    try:
        first = pva.Channel(_NOBODY)
        _first.append(first)
        first.setTimeout(0.001)
        first.get("")
    except pva.PvaException:
        pass
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
