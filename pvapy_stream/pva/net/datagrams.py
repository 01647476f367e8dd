"""UDP of a server: searches beside the other servers of the host, and beacons.

Of several servers on a host only one gets a search that is sent to the address of the host. It
passes the search on to the multicast group 224.0.0.128 on loopback, which all of them have joined;
there it hears it too. What a client sends to a broadcast address reaches all of them anyway.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net.environment import Address, ServerSettings, interfaces_of_host
from pvapy_stream.pva.wire.buffers import Writer
from pvapy_stream.pva.wire.searching import (
    ANY,
    TCP,
    UNICAST,
    Beacon,
    Search,
    datagram,
    origin_tag,
    read_address,
    read_datagram,
)
from pvapy_stream.pva.wire.stream import Command, StreamMessage, message

_GROUP = "224.0.0.128"
_LOOPBACK = "127.0.0.1"
_AT_ONCE = 64  # datagrams, before others have their turn
_DATAGRAM = 65536

Answer = Callable[[Search], "Writer | None"]

_log = logging.getLogger(__name__)


class Datagrams:
    """The UDP sockets of a server. Used by the server's thread alone.

    Args:
        settings: where it listens and whom it tells that it is there.
        answer: gives the reply to a search, if there is one.
    """

    def __init__(self, settings: ServerSettings, answer: Answer) -> None:
        self._settings = settings
        self._answer = answer
        self._sends = _socket()
        self._sends.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._sends.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(_LOOPBACK)
        )
        self._own: set[str] = set()
        # Address of the interface of each socket; None for the group.
        self._receives: dict[socket.socket, str | None] = {}
        self._bind()
        self._next_beacon = 0.0
        self._beacons = 0

    @property
    def sockets(self) -> list[socket.socket]:
        """Those to be read from."""
        return list(self._receives)

    def _bind(self) -> None:
        port, wanted = self._settings.broadcast_port, self._settings.interfaces
        for address, broadcast in interfaces_of_host():
            if wanted and address not in wanted:
                continue
            self._own |= {address, broadcast}
            self._open(address, port, address)
            if broadcast and broadcast != address:
                # What is bound to an address of its own gets nothing that is sent to all.
                self._open(broadcast, port, address)
        group = self._open(_GROUP, port, None)
        if group is None:
            return
        try:
            joined = socket.inet_aton(_GROUP) + socket.inet_aton(_LOOPBACK)
            group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
        except OSError as error:
            _log.warning("searches of other servers of this host are not heard: %s", error)
            del self._receives[group]
            group.close()

    def _open(self, address: str, port: int, interface: str | None) -> socket.socket | None:
        link = _socket()
        try:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            link.bind((address, port))
        except OSError as error:
            _log.warning("searches at %s:%d are not heard: %s", address, port, error)
            link.close()
            return None
        self._receives[link] = interface
        return link

    def close(self) -> None:
        """Close all sockets."""
        for link in (*self._receives, self._sends):
            link.close()

    def read(self, link: socket.socket) -> None:
        """Take what has come."""
        for _ in range(_AT_ONCE):
            try:
                data, sender = link.recvfrom(_DATAGRAM)
            except OSError:
                # Nothing more, or an earlier reply could not be delivered.
                return
            if sender[0] in self._settings.ignored:
                continue
            try:
                self._take(datagram(data), sender[0], self._receives[link])
            except WireError as error:
                _log.debug("a datagram of %s is ignored: %s", sender[0], error)

    def _take(self, found: list[StreamMessage], sender: str, interface: str | None) -> None:
        for one in found:
            if one.command == Command.ORIGIN_TAG:
                origin = read_address(read_datagram(one))
                if origin not in (ANY, *self._own):
                    # It came in at an interface that is not ours.
                    return
            elif one.command == Command.SEARCH:
                self._search(Search.read(read_datagram(one)), sender, interface)

    def _search(self, search: Search, sender: str, interface: str | None) -> None:
        if search.flags & UNICAST and interface is not None and None in self._receives.values():
            writer = Writer()
            search.passed_on(sender).write(writer)
            data = origin_tag(interface) + b"".join(message(Command.SEARCH, writer))
            self._send(data, (_GROUP, self._settings.broadcast_port))
            return
        if search.protocols and TCP not in search.protocols:
            return
        host = sender if search.address == ANY else search.address
        writer = self._answer(search)
        if writer is not None and search.port and host not in self._settings.ignored:
            data = b"".join(message(Command.SEARCH_REPLY, writer, server=True))
            self._send(data, (host, search.port))

    def _send(self, data: bytes, to: Address) -> None:
        try:
            self._sends.sendto(data, to)
        except OSError as error:
            _log.debug("%s:%d cannot be sent to: %s", *to, error)

    def beacon(self, now: float, identity: bytes, changes: int, where: Address) -> None:
        """Send beacons, if it is time."""
        if now < self._next_beacon:
            return
        self._next_beacon = now + self._settings.beacon_period
        writer = Writer()
        Beacon(identity, self._beacons % 256, changes % 65536, *where).write(writer)
        self._beacons += 1
        data = b"".join(message(Command.BEACON, writer, server=True))
        for address in self._settings.beacons:
            self._send(data, address)

    def beacon_soon(self) -> None:
        """Send the next beacon now: something has changed."""
        self._next_beacon = min(self._next_beacon, time.monotonic())


def _socket() -> socket.socket:
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.setblocking(False)
    return link
