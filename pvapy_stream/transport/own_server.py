"""The PVA server of our own that the inputs of this process share."""

from __future__ import annotations

import threading

from pvapy_stream.pva.net.channel import Channel
from pvapy_stream.pva.net.server import Server


class _Host:
    """The server of this process, which is there as long as there are channels."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._channels = 0

    def add(self, channel: Channel) -> None:
        """Serve a channel.

        Raises:
            TransportError: it is served already, or there is no port to listen at.
        """
        with self._lock:
            server = self._started()
            try:
                server.add(channel)
                self._channels += 1
            finally:
                self._end_if_idle()

    def claim_port(self) -> None:
        """Start it before a channel is there, and so before the binding's server.

        Clients behind a firewall come to the port of the environment alone, and puts to an input
        are what they come for.

        Raises:
            TransportError: there is no port to listen at.
        """
        with self._lock:
            self._started()

    def _started(self) -> Server:
        if self._server is None:
            server = Server()
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
