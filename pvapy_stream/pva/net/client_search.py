"""Searches of a client, by UDP and over TCP at name servers. Used by the client's thread alone."""

from __future__ import annotations

import logging
import selectors
import socket
import time
from collections.abc import Callable, Iterator

from msgspec import Struct

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net.base_link import Watch
from pvapy_stream.pva.net.client_beacons import Beacons
from pvapy_stream.pva.net.environment import (
    NAME_SERVERS,
    Address,
    ClientSettings,
    UnknownHost,
    asked_by_udp,
)
from pvapy_stream.pva.net.lookup import Lookup
from pvapy_stream.pva.net.questions import Questions
from pvapy_stream.pva.net.server_link import ServerLink
from pvapy_stream.pva.wire.searching import SearchReply, datagram, found_in
from pvapy_stream.rate_limit import RateLimit

FIRST = 0.05  # s; until a name is asked for again
LONGEST = 1.0  # s; it doubles up to this
RETURNS = 0.3  # s; the same for a channel that was there before
_BACKOFF = 0.2  # s; until a name server that is not there is tried again
_LARGEST = 1200  # bytes of names in one datagram
_AT_ONCE = 64  # datagrams, before others have their turn
_NOTHING = 3600.0  # s; there is nothing to search for
# Searches because of beacons: so many in a row, and so many a minute, whoever sends them.
_BURST, _PER_MINUTE = 8, 120

_log = logging.getLogger(__name__)


class _Sought(Struct):
    """A name that is searched for."""

    name: str
    next_at: float
    pause: float
    longest: float
    by_group: bool = True  # the next search, at addresses of this host


class _NameServer:
    """A name server, connected to while something is searched for."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.link: ServerLink | None = None
        self.next_try = 0.0
        self.asked = False  # for all names, on this connection

    def forget(self, link: ServerLink, reason: str) -> None:
        _log.debug("name server %s:%d: %s", *self.address, reason)
        self.link, self.asked = None, False
        self.next_try = time.monotonic() + _BACKOFF


class Searcher:
    """Searches for names at growing intervals until they are found.

    Args:
        watch: as `Loop.watch`.
        settings: where it searches.
        found: called with the number of a name and the server's reply.
    """

    def __init__(
        self,
        watch: Watch,
        settings: ClientSettings,
        found: Callable[[int, SearchReply], None],
    ) -> None:
        self._watch = watch
        self._questions = Questions(settings.searched, settings.own)
        self._lookup = Lookup(settings.unknown)
        self._found = found
        self._sought: dict[int, _Sought] = {}
        self._socket: socket.socket | None = None
        self._beacons = Beacons(watch, settings, self._hear)
        self._limit = RateLimit(_PER_MINUTE, _BURST)
        self._news = False  # of a server, because of which it will search again
        self._servers = [_NameServer(address) for address in settings.name_servers]

    def add(self, number: int, name: str, pause: float = FIRST, longest: float = LONGEST) -> None:
        """Search for a name.

        Args:
            number: of the name, which each reply contains.
            name: of the channel.
            pause: s; until it is asked for again.
            longest: s; up to which that doubles.
        """
        at = time.monotonic() + (0.0 if pause <= FIRST else pause)
        self._sought[number] = _Sought(name, at, pause, longest)

    def remove(self, number: int) -> None:
        """Search for it no more."""
        self._sought.pop(number, None)

    def search(self, now: float) -> float:
        """Ask for what is due; how long nothing is due, s."""
        if not self._sought and not self._servers and not self._beacons.listens:
            # As in each round while frames are received.
            return _NOTHING
        pause = self._beacons.listen(bool(self._sought), now)
        if self._sought:
            for host, address in self._lookup.poll(now):
                self._ask_also(host, address)
        if self._news:
            pause = min(pause, self._ask_again(now))
        due = {number: one for number, one in self._sought.items() if one.next_at <= now}
        for one in due.values():
            one.next_at = now + one.pause
            one.pause = min(2 * one.pause, one.longest)
        if due:
            self._send(due)
        names = {number: one.name for number, one in due.items()}
        for server in self._servers:
            self._ask(server, names, now)
        ends = (one.next_at - now for one in self._sought.values())
        return min(pause, min(ends, default=_NOTHING))

    def _hear(self) -> None:
        self._news = True

    def _ask_again(self, now: float) -> float:
        """Ask for everything, if it may; how long that has to wait, s."""
        wait = self._limit.delay(now)
        if wait:
            return wait
        self._limit.spend()
        self._news = False
        for one in self._sought.values():
            # Beacons that came to the group show that what is sent there is received.
            one.next_at, one.by_group = now, True
        return _NOTHING

    def _ask_also(self, host: UnknownHost, address: Address) -> None:
        if host.variable == NAME_SERVERS:
            self._servers.append(_NameServer(address))
        else:
            self._questions.asked += asked_by_udp([address])

    def close(self) -> None:
        """Search no more."""
        self._sought.clear()
        self._beacons.close()
        self._questions.close()
        for server in self._servers:
            if server.link is not None:
                server.link.close("the client ends")
        if self._socket is not None:
            self._watch(self._socket, 0, self._read)
            self._socket.close()
            self._socket = None

    def _send(self, due: dict[int, _Sought]) -> None:
        link = self._socket or self._open()
        if link is None:
            return
        for by_group in (True, False):
            names = {number: one.name for number, one in due.items() if one.by_group is by_group}
            for part in _parts(names):
                self._questions.send(link, part, by_group)
        for one in due.values():
            one.by_group = not one.by_group

    def _open(self) -> socket.socket | None:
        link: socket.socket | None = None
        try:
            link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            link.setblocking(False)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            link.bind(("", 0))
        except OSError as error:
            _log.warning("channels cannot be searched for by UDP: %s", error)
            if link is not None:
                link.close()
            return None
        self._socket = link
        self._watch(link, selectors.EVENT_READ, self._read)
        return link

    def _read(self, events: int) -> None:
        for _ in range(_AT_ONCE):
            if self._socket is None:
                return
            try:
                data, sender = self._socket.recvfrom(65536)
            except OSError:
                # Nothing more, or an earlier search could not be delivered.
                return
            try:
                replies = found_in(datagram(data), sender[0])
            except WireError as error:
                _log.debug("a reply of %s is ignored: %s", sender[0], error)
                continue
            for reply in replies:
                self._take(reply)

    def _take(self, reply: SearchReply) -> None:
        for number in reply.channels:
            if number in self._sought:
                self._found(number, reply)

    def _ask(self, server: _NameServer, names: dict[int, str], now: float) -> None:
        if not self._sought:
            if server.link is not None:
                server.link.close("nothing is searched for")
            return
        if server.link is None:
            if now >= server.next_try:
                server.next_try = now + _BACKOFF
                server.link = ServerLink(self._watch, server.address, server.forget, self._take)
                server.link.begin()
            return
        link = server.link
        link.check(now)
        if not link.valid:
            return
        if not server.asked:
            server.asked = True
            names = {number: one.name for number, one in self._sought.items()}
        for part in _parts(names):
            link.search(part)


def _parts(names: dict[int, str]) -> Iterator[dict[int, str]]:
    """Names in parts that fit into a datagram each."""
    part: dict[int, str] = {}
    size = 0
    for number, name in names.items():
        length = len(name.encode()) + 8
        if part and size + length > _LARGEST:
            yield part
            part, size = {}, 0
        part[number] = name
        size += length
    if part:
        yield part
