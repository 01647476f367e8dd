"""Asks PVA name servers (EPICS_PVA_NAME_SERVERS) for the binding.

The binding's own search over TCP uses its connection in several threads without a lock: it ended
the process now and then, and it may need half a minute to find what is there. Here our own threads
ask the name servers, and the binding, which knows nothing of name servers, asks us by UDP.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass

import pvaccess as pva

from pvapy_stream.pva.messages import (
    CONTROL,
    HEADER,
    MAGIC,
    SET_BYTE_ORDER,
    VALIDATED,
    VALIDATION,
    Search,
    order_of,
    pva_message,
    read_search,
    search_answer,
    search_answers,
    search_request,
    string,
)

VARIABLE = "EPICS_PVA_NAME_SERVERS"
_ADDRESSES = "EPICS_PVA_ADDR_LIST"
# The binding asks only one port of an address, and 127.0.0.1 may be in its list.
_HOST = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
_NOBODY = "pvapy_stream:nobody"  # a channel that nobody serves, and that is not asked for
_PORT = 5075
_CONNECT = 3.0  # s; for a connection, and for each message that opens it
_BACKOFF = 0.5  # s; until a name server that is not there is tried again
_TICK = 0.05  # s; how soon a new name is asked for
_AGAIN = 0.5  # s; until a name that nobody serves is asked for again
_IDLE = 10.0  # s without names, after which the connection is closed
# The binding asks again at growing intervals of up to 29 s; what it no longer asks for is dropped.
_KEPT = 60.0
_MOST = 2000  # names in one request
_BUFFER, _REGISTRY = 65536, 32767  # what clients say of themselves

# The binding forgets what it has read when its last channel goes: this one stays.
_first: list[pva.Channel] = []

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Wanted:
    """A search of the binding that is not answered."""

    search: Search
    number: int
    name: str
    sender: tuple[str, int]
    end: float


class Relay:
    """Answers searches that come by UDP with what name servers say.

    Args:
        servers: host and port of each.

    Attributes:
        address: where it is asked, ``host:port``.
    """

    def __init__(self, servers: list[tuple[str, int]]) -> None:
        self._link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._link.bind((_HOST, 0))
        self.address = "{}:{}".format(*self._link.getsockname())
        self._lock = threading.Lock()
        self._wanted: dict[tuple[tuple[str, int], int], _Wanted] = {}
        self._numbers: dict[str, int] = {}
        self._any = threading.Event()
        threading.Thread(target=self._listen, name="name-relay", daemon=True).start()
        for host, port in servers:
            threading.Thread(
                target=self._follow, args=(host, port), name=f"name-server-{host}", daemon=True
            ).start()

    def _listen(self) -> None:
        while True:
            message, sender = self._link.recvfrom(65536)
            search = read_search(message)
            if search is None:
                continue
            end = time.monotonic() + _KEPT
            with self._lock:
                for number, name in search.names.items():
                    if name == _NOBODY:
                        continue
                    self._numbers.setdefault(name, len(self._numbers))
                    self._wanted[sender, number] = _Wanted(search, number, name, sender, end)
                if self._wanted:
                    self._any.set()

    def _names(self) -> dict[int, str]:
        """What is wanted, by our own numbers."""
        now = time.monotonic()
        with self._lock:
            for key in [key for key, one in self._wanted.items() if one.end < now]:
                del self._wanted[key]
            if not self._wanted:
                self._any.clear()
            names = dict.fromkeys(one.name for one in self._wanted.values())
            return {self._numbers[name]: name for name in list(names)[:_MOST]}

    def _answer(self, number: int, identity: bytes, address: str) -> None:
        host, _, port = address.rpartition(":")
        with self._lock:
            found = [key for key, one in self._wanted.items() if self._numbers[one.name] == number]
            answered = [self._wanted.pop(key) for key in found]
        for one in answered:
            _log.info("channel %s is served at %s", one.name, address)
            answer = search_answer(one.search, one.number, identity, host, int(port))
            with contextlib.suppress(OSError):
                self._link.sendto(answer, (one.sender[0], one.search.port or one.sender[1]))

    def _follow(self, host: str, port: int) -> None:
        """Ask one name server, as long as the process lives."""
        while self._any.wait():
            try:
                with _Server(host, port) as server:
                    self._ask(server)
            except OSError as error:
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
            message = server.receive(_TICK)
            if message is not None:
                for number, identity, address in search_answers(message, server.peer):
                    self._answer(number, identity, address)


class _Server:
    """A connection to a name server.

    Raises:
        OSError: it is not there, or speaks another protocol.
    """

    def __init__(self, host: str, port: int) -> None:
        self._link = socket.create_connection((host, port), _CONNECT)
        self.peer: tuple[str, int] = self._link.getpeername()[:2]
        self._order = "<"
        self._got = b""
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
            message = self.receive(left)
            if message is None:
                continue
            if message[2] & CONTROL:
                if message[3] == SET_BYTE_ORDER:
                    self._order = order_of(message)
            elif message[3] == VALIDATION:
                hello = struct.pack(f"{self._order}IHH", _BUFFER, _REGISTRY, 0)
                self._send(VALIDATION, hello + string("anonymous") + b"\xff")
            elif message[3] == VALIDATED:
                return
        raise TimeoutError("it does not speak PVA")

    def _send(self, command: int, payload: bytes) -> None:
        self._link.settimeout(_CONNECT)
        self._link.sendall(pva_message(command, payload, self._order))

    def search(self, names: dict[int, str]) -> None:
        """Ask for channels."""
        self._link.settimeout(_CONNECT)
        self._link.sendall(search_request(names, order=self._order))

    def receive(self, timeout: float) -> bytes | None:
        """The next message; None when none is whole within `timeout` s."""
        self._link.settimeout(timeout)
        while (message := self._whole()) is None:
            try:
                more = self._link.recv(65536)
            except TimeoutError:
                return None
            if not more:
                raise ConnectionError("it has closed the connection")
            self._got += more
        return message

    def _whole(self) -> bytes | None:
        got = self._got
        if len(got) < HEADER:
            return None
        if got[0] != MAGIC:
            raise ConnectionError("it does not speak PVA")
        (size,) = struct.unpack_from(f"{order_of(got)}I", got, 4)
        # The number of a control message is no size.
        size = HEADER if got[2] & CONTROL else HEADER + size
        if len(got) < size:
            return None
        self._got = got[size:]
        return got[:size]


def relay() -> None:
    """Ask the name servers of the environment for the binding of this process.

    The binding reads its environment when it is used first: then it is shown ours among the
    addresses that it asks by UDP, and no name servers. Afterwards the environment, which child
    processes inherit, is as it was.
    """
    servers = _parsed(os.environ.get(VARIABLE, ""))
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


def _parsed(text: str) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for entry in text.split():
        host, _, port = entry.partition(":")
        found.append((host, int(port) if port.isdigit() else _PORT))
    return list(dict.fromkeys(found))
