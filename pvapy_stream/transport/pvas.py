"""Way in: a channel on our own PVA server, to which remote clients put."""

from __future__ import annotations

from typing import Any

import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.serving import host_writable
from pvapy_stream.transport.serving import ServingReceiver


class PutReceiver(ServingReceiver):
    """Hosts a channel and delivers what clients put there.

    Args:
        server: PVA server; the caller starts and stops it.
        channel: name of the channel.
        prototype: an object of the structure that is received.

    Raises:
        TransportError: the name is taken on this server, or the structure cannot be served.
    """

    def __init__(self, server: pva.PvaServer, channel: str, prototype: Any) -> None:
        super().__init__(channel)
        self._server = server
        try:
            host_writable(server, channel, prototype.copy(), self._on_put)
        except (pva.PvaException, ValueError) as error:
            raise TransportError(f"cannot host input channel {channel}: {error}") from error

    def _on_put(self, obj: Any) -> None:
        self._take(obj)

    def _close(self) -> None:
        if self._server.hasRecord(self.channel):
            self._server.removeRecord(self.channel)
