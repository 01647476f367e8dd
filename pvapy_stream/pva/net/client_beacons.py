"""Beacons as a client receives them. Used by the client's thread alone."""

from __future__ import annotations

import logging
import selectors
import socket
import time
from collections.abc import Callable

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net.base_link import Watch
from pvapy_stream.pva.net.environment import ClientSettings
from pvapy_stream.pva.net.heard import Heard, may_be_beacon
from pvapy_stream.pva.net.local_group import GROUP, listen
from pvapy_stream.pva.wire.searching import Beacon, datagram, read_datagram
from pvapy_stream.pva.wire.stream import Command

_AT_ONCE = 16  # datagrams, however many come
_PAUSE = 0.01  # s; then nothing is read; the kernel drops what is too much
_FOREVER = 3600.0  # s
_DATAGRAM = 65536

_log = logging.getLogger(__name__)


class Beacons:
    """Tells that a server is new or has changed.

    It receives what is sent to the programs of this host, and to the broadcast addresses that are
    searched at. It listens at no address of the host: it would get the searches for its servers.

    Args:
        watch: as `Loop.watch`.
        settings: where it listens.
        news: called when there is something to be searched for.

    Attributes:
        listens: whether it does.
    """

    def __init__(self, watch: Watch, settings: ClientSettings, news: Callable[[], None]) -> None:
        self._watch = watch
        self._addresses = (GROUP, *settings.broadcasts)
        self._port = settings.broadcast_port
        self._news = news
        self._heard = Heard()
        self.listens = False
        self._links: list[socket.socket] = []
        self._read_again = 0.0  # when it is read again; 0: it is

    def listen(self, wanted: bool, now: float) -> float:
        """Listen, or do so no more: beacons cost nothing while nothing is searched for.

        Returns:
            how long nothing is to be done, s.
        """
        if wanted != self.listens:
            self.listens = wanted
            if wanted:
                self._open()
            else:
                self.close()
        if not self._read_again:
            return _FOREVER
        if now >= self._read_again:
            self._read_again = 0.0
            self._watch_all(selectors.EVENT_READ)
            return _FOREVER
        return self._read_again - now

    def close(self) -> None:
        """Listen no more."""
        self._watch_all(0)
        for link in self._links:
            link.close()
        self._links.clear()
        self._read_again = 0.0

    def _open(self) -> None:
        for address in self._addresses:
            try:
                self._links.append(listen(address, self._port))
            except OSError as error:
                _log.info("beacons at %s:%d are not received: %s", address, self._port, error)
        self._watch_all(selectors.EVENT_READ)

    def _watch_all(self, events: int) -> None:
        for link in self._links:
            self._watch(link, events, self._read)

    def _read(self, events: int) -> None:
        left = _AT_ONCE
        for link in self._links:
            try:
                while left:
                    left -= 1
                    self._take(*link.recvfrom(_DATAGRAM))
            except OSError:
                # Nothing more.
                continue
        self._watch_all(0)
        self._read_again = time.monotonic() + _PAUSE

    def _take(self, data: bytes, sender: tuple[str, int]) -> None:
        if not may_be_beacon(data):
            return
        try:
            for one in datagram(data):
                if one.command == Command.BEACON and self._heard.is_news(
                    Beacon.read(read_datagram(one))
                ):
                    self._news()
        except WireError as error:
            _log.debug("a beacon of %s is ignored: %s", sender[0], error)
