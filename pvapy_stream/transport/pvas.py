"""Way in: a channel on our own PVA server, to which remote clients put."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.ports import Deliver, ReceiverCounts

_log = logging.getLogger(__name__)


class PutReceiver:
    """Hosts a channel and delivers what clients put there.

    Args:
        server: PVA server; the caller starts and stops it.
        channel: name of the channel.
        prototype: an object of the structure that is received.

    Raises:
        TransportError: the name is taken on this server, or the structure cannot be served.
    """

    def __init__(self, server: pva.PvaServer, channel: str, prototype: Any) -> None:
        self.channel = channel
        self._server = server
        self._deliver: Deliver | None = None
        self._busy = threading.Lock()
        self._newest: Any = None
        self._received = self._errors = 0
        self.was_connected = False
        try:
            server.addRecord(channel, prototype.copy(), self._on_put)
        except (pva.PvaException, ValueError) as error:
            raise TransportError(f"cannot host input channel {channel}: {error}") from error

    def _on_put(self, obj: Any) -> None:
        # Clients have threads of their own in the server.
        with self._busy:
            if self._deliver is None:
                return
            self.was_connected = True
            self._received += 1
            self._newest = obj
            try:
                self._deliver(obj)
            except Exception:
                self._errors += 1
                _log.exception("channel %s: an object could not be delivered", self.channel)

    def start(self, deliver: Deliver, deliver_again: Deliver | None = None) -> None:
        self._deliver = deliver

    def stop(self, patience: float = 0.0) -> list[Any]:
        with self._busy:
            self._deliver = None
        if self._server.hasRecord(self.channel):
            self._server.removeRecord(self.channel)
        return []

    def counts(self) -> ReceiverCounts:
        return ReceiverCounts(received=self._received, errors=self._errors)

    def reset_counts(self) -> None:
        self._received = self._errors = 0

    @property
    def connected(self) -> bool:
        """Whether a client has put anything; the binding does not tell who is connected."""
        return self.was_connected and self._deliver is not None

    def keep_up(self) -> None:
        pass

    def newest(self, timeout: float) -> Any | None:
        return self._newest
