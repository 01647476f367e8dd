"""Hosts whose names were unknown when a client began: they are looked up again."""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Iterable

from pvapy_stream.pva.net.environment import Address, UnknownHost

FIRST = 5.0  # s; until a name is looked up again
LONGEST = 60.0  # s; it doubles up to this

_log = logging.getLogger(__name__)


class Lookup:
    """Looks names up in a thread: an answer may take longer than a client may wait.

    Args:
        unknown: the hosts.
    """

    def __init__(self, unknown: Iterable[UnknownHost]) -> None:
        self._unknown = list(unknown)
        self._known: queue.SimpleQueue[tuple[UnknownHost, Address]] = queue.SimpleQueue()
        self._pause = FIRST
        self._next = time.monotonic() + FIRST
        self._thread: threading.Thread | None = None

    def poll(self, now: float) -> list[tuple[UnknownHost, Address]]:
        """Hosts that have become known since this was last asked; the others are looked up."""
        found: list[tuple[UnknownHost, Address]] = []
        while not self._known.empty():
            host, address = self._known.get()
            self._unknown.remove(host)
            found.append((host, address))
        busy = self._thread is not None and self._thread.is_alive()
        if self._unknown and now >= self._next and not busy:
            self._next = now + self._pause
            self._pause = min(2 * self._pause, LONGEST)
            self._thread = threading.Thread(
                target=self._look_up, args=(tuple(self._unknown),), name="pva-lookup", daemon=True
            )
            self._thread.start()
        return found

    def _look_up(self, hosts: Iterable[UnknownHost]) -> None:
        for host in hosts:
            try:
                address = socket.gethostbyname(host.name)
            except OSError:
                continue
            _log.info(
                "host %s of %s is known now, and asked for channels", host.name, host.variable
            )
            self._known.put((host, (address, host.port)))
