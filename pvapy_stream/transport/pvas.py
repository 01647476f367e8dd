"""Way in: a channel on our own PVA server, to which remote clients put."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

import pvaccess as pva

from pvapy_stream.errors import PvapyStreamError, TransportError
from pvapy_stream.pva.convert import type_of, value_of
from pvapy_stream.pva.net.channel import Channel, Put
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.put_objects import PutReader
from pvapy_stream.pva.serving import may_put
from pvapy_stream.pva.wire.status import OK, Status
from pvapy_stream.transport.ports import ReceiverCounts
from pvapy_stream.transport.serving import ServingReceiver

_ENDS = 2.0  # s; the thread has nothing more to do

_log = logging.getLogger(__name__)


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


class PutReceiver(ServingReceiver):
    """Hosts a channel and delivers what clients put there.

    A client's put is acknowledged when the object has been delivered: a slow stage makes its
    clients wait. A put that has waited for too long is refused, and counted as an overrun.

    Args:
        server: the stage's other PVA server; it must not have a channel of this name.
        channel: name of the channel.
        prototype: an object of the structure that is received.

    Raises:
        TransportError: the name is taken in this program, or the structure cannot be served.
    """

    def __init__(self, server: pva.PvaServer, channel: str, prototype: Any) -> None:
        super().__init__(channel)
        if server.hasRecord(channel):
            raise TransportError(f"cannot host input channel {channel}: it is the name of another")
        try:
            kind = type_of(prototype)
            self._reader = PutReader(kind)
            value = value_of(prototype, kind)
        except (pva.PvaException, TypeError, ValueError) as error:
            raise TransportError(f"cannot host input channel {channel}: {error}") from error
        self._puts: queue.SimpleQueue[Put | None] = queue.SimpleQueue()
        self._served = Channel(channel, kind, value, self._puts.put, may_put)
        self._late_before = 0
        self._thread = threading.Thread(target=self._run, name=f"puts {channel}", daemon=True)
        host.add(self._served)
        self._hosted = True

    def _open(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while (put := self._puts.get()) is not None:
            if put.claim():
                put.finish(self._taken(put))

    def _taken(self, put: Put) -> Status:
        try:
            obj = self._reader.read(put.value)
        except PvapyStreamError as error:
            self._errors += 1
            _log.warning("channel %s: a put is refused: %s", self.channel, error)
            return Status.error(str(error))
        # One that was taken and could not be used is not to be put again.
        taken, problem = self._take(obj)
        return OK if taken else Status.error(problem)

    def _close(self) -> None:
        if self._hosted:
            self._hosted = False
            host.remove(self.channel)
            self._puts.put(None)
            if self._thread.ident:
                self._thread.join(_ENDS)

    def counts(self) -> ReceiverCounts:
        late = self._served.late - self._late_before
        return ReceiverCounts(self._received, late, self._errors)

    def reset_counts(self) -> None:
        super().reset_counts()
        self._late_before = self._served.late
