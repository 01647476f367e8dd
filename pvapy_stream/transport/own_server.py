"""The PVA server of our own that inputs and outputs of this process share."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable

from pvapy_stream.pva.net.loop import Loop
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.server_channel import Channel


class _Host:
    """The server of this process, which is there as long as there are channels."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._channels = 0
        self._elsewhere: dict[str, int] = {}

    def point_to(self, ports: Collection[int], names: Iterable[str]) -> None:
        """Answer searches by TCP for channels that the binding's server has.

        Clients behind a firewall, which know one port of a program, find all its channels so.

        Args:
            ports: of that server; nothing is logged if there are none.
            names: of the channels.
        """
        if ports:
            self._elsewhere.update(dict.fromkeys(filter(None, names), min(ports)))

    def add(self, channel: Channel) -> Loop:
        """Serve a channel.

        Returns:
            the loop of the server: who has its lock may use the channel.

        Raises:
            TransportError: it is served already, or there is no port to listen at.
        """
        with self._lock:
            server = self._started()
            try:
                server.add(channel)
                self._channels += 1
                return server.loop
            finally:
                self._end_if_idle()

    def claim_port(self) -> None:
        """Start it before a channel is there, and so before the binding's server.

        Clients behind a firewall come to the port of the environment alone, and the objects of
        inputs and outputs are what they come for.

        Raises:
            TransportError: there is no port to listen at.
        """
        with self._lock:
            self._started()

    def _started(self) -> Server:
        if self._server is None:
            server = Server()
            server.elsewhere = self._elsewhere
            server.start()
            self._server = server
        return self._server

    def remove(self, name: str) -> None:
        """Serve it no more."""
        with self._lock:
            if self._server is not None:
                self._server.remove(name)
                self._channels -= 1
                self._end_if_idle()

    def clients(self) -> int:
        """How many clients are connected."""
        server = self._server
        return 0 if server is None else server.clients

    def _end_if_idle(self) -> None:
        if self._server is not None and not self._channels:
            self._server.stop()
            self._server = None

    @property
    def port(self) -> int:
        """TCP port of the server; 0 if there is none."""
        server = self._server
        return 0 if server is None else server.port


host = _Host()
