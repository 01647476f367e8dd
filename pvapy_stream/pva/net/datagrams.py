"""UDP of a server: searches beside the other servers of the host, and beacons.

Of several servers on a host only one gets a search that is sent to the address of the host. It
passes the search on to the multicast group of the host (`local_group`), which all of them have
joined, so it receives it too. What a client sends to a broadcast address reaches all of them
anyway. So it goes with beacons, which clients listen for.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable

from msgspec.structs import replace

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net.environment import Address, ServerSettings, interfaces_of_host
from pvapy_stream.pva.net.heard import Heard
from pvapy_stream.pva.net.local_group import (
    GROUP,
    LOOPBACK_ADDRESS,
    LocalGroup,
    listen,
    udp_socket,
)
from pvapy_stream.pva.wire.buffers import Writer
from pvapy_stream.pva.wire.searching import (
    ANY,
    TCP,
    UNICAST,
    Beacon,
    Search,
    datagram,
    read_address,
    read_datagram,
)
from pvapy_stream.pva.wire.stream import Command, StreamMessage, message
from pvapy_stream.rate_limit import RateLimit

_AT_ONCE = 64  # datagrams, before others have their turn
_DATAGRAM = 65536
_BURST, _PER_MINUTE = 20, 1200  # beacons that are passed on in a row, and in a minute
_BETWEEN = 0.02  # s; from one beacon to the next, however fast channels come and go

Answer = Callable[[Search], "Writer | None"]

_log = logging.getLogger(__name__)


class Datagrams:
    """The UDP sockets of a server. Used by the server's thread alone.

    Args:
        settings: where it listens, and where it sends its beacons.
        answer: gives the reply to a search, if there is one.
    """

    def __init__(self, settings: ServerSettings, answer: Answer) -> None:
        self._settings = settings
        self._answer = answer
        self._sends = udp_socket()
        self._sends.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._group = LocalGroup()
        self._heard, self._limit = Heard(), RateLimit(_PER_MINUTE, _BURST)
        self._own: set[str] = set()
        # For each socket the address of the host that it alone gets what is sent to, or None.
        self._receives: dict[socket.socket, str | None] = {}
        self._passes_on = False
        self._bind()
        self._next_beacon = self._last_beacon = 0.0
        self._beacons = 0

    @property
    def sockets(self) -> list[socket.socket]:
        """Those to be read from."""
        return list(self._receives)

    def _bind(self) -> None:
        wanted = self._settings.interfaces
        for address, broadcast in interfaces_of_host():
            if wanted and address not in wanted:
                continue
            self._own |= {address, broadcast}
            self._open(address, address)
            if broadcast:
                # What is bound to an address of its own gets nothing that is sent to all.
                self._open(broadcast, None)
        self._passes_on = self._open(GROUP, None)

    def _open(self, address: str, alone: str | None) -> bool:
        port = self._settings.broadcast_port
        try:
            self._receives[listen(address, port)] = alone
        except OSError as error:
            _log.warning("searches at %s:%d are not received: %s", address, port, error)
            return False
        return True

    def close(self) -> None:
        """Close all sockets."""
        for link in (*self._receives, self._sends):
            link.close()
        self._group.close()

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

    def _take(self, found: list[StreamMessage], sender: str, alone: str | None) -> None:
        for one in found:
            if one.command == Command.ORIGIN_TAG:
                origin = read_address(read_datagram(one))
                if origin not in (ANY, *self._own):
                    # It came in at an interface that is not ours.
                    return
            elif one.command == Command.SEARCH:
                self._search(Search.read(read_datagram(one)), sender, alone)
            elif one.command == Command.BEACON and alone is not None:
                self._pass_on(one, sender, alone)

    def _search(self, search: Search, sender: str, alone: str | None) -> None:
        if search.flags & UNICAST and alone is not None and self._passes_on:
            writer = Writer()
            search.passed_on(sender).write(writer)
            data = b"".join(message(Command.SEARCH, writer))
            self._group.send(data, self._settings.broadcast_port, alone)
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

    def _pass_on(self, found: StreamMessage, sender: str, alone: str) -> None:
        """Send a beacon to the clients of this host; they cannot listen where we do."""
        if self._limit.delay(time.monotonic()):
            return
        beacon = Beacon.read(read_datagram(found))
        if self._heard.is_news(beacon):
            self._limit.spend()
            self._tell_here(beacon, sender, alone)

    def _tell_here(self, beacon: Beacon, sender: str, origin: str) -> None:
        if beacon.address == ANY:
            beacon = replace(beacon, address=sender)
        self._group.send(_packed(beacon), self._settings.broadcast_port, origin)

    def beacon(self, now: float, identity: bytes, changes: int, where: Address) -> float:
        """Send beacons, if it is time; how long it is until the next ones, s."""
        if now >= self._next_beacon:
            self._next_beacon, self._last_beacon = now + self._settings.beacon_period, now
            made = Beacon(identity, self._beacons % 256, changes % 65536, *where)
            self._beacons += 1
            data = _packed(made)
            for address in self._settings.beacons:
                self._send(data, address)
            if self._settings.beacons_here:
                here = LOOPBACK_ADDRESS if made.address == ANY else made.address
                self._tell_here(made, here, here)
        return self._next_beacon - now

    def beacon_soon(self) -> None:
        """Send the next beacon as soon as possible: something has changed."""
        soon = max(time.monotonic(), self._last_beacon + _BETWEEN)
        self._next_beacon = min(self._next_beacon, soon)


def _packed(beacon: Beacon) -> bytes:
    writer = Writer()
    beacon.write(writer)
    return b"".join(message(Command.BEACON, writer, server=True))
