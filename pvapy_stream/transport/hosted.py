"""Publisher: a channel on the program's PVA server, which any number of clients monitor."""

from __future__ import annotations

import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.lazy import StreamObject, pv_object
from pvapy_stream.pva.serving import host_readonly
from pvapy_stream.transport.ports import Publisher, PublisherCounts


class HostedPublisher(Publisher):
    """Publishes on one channel of a server that the caller owns.

    The channel exists after `open`, or after the first published object.
    """

    def __init__(self, server: pva.PvaServer, channel: str) -> None:
        self.channel = channel
        self._server = server
        self._open = False
        self._published = 0
        self._errors = 0

    def open(self, prototype: StreamObject) -> None:
        """Add the channel with an object of the structure that will be published.

        Raises:
            TransportError: the name is taken on this server, or the structure cannot be served.
        """
        try:
            # The server shares the object, so it gets a copy of the caller's.
            host_readonly(self._server, self.channel, pv_object(prototype).copy())
        except (pva.PvaException, ValueError) as error:
            raise TransportError(f"cannot host channel {self.channel}: {error}") from error
        self._open = True

    def publish(self, obj: StreamObject) -> None:
        if not self._open:
            self.open(obj)
        try:
            # Not updateUnchecked: it costs the same, and ends the process if structures differ.
            self._server.update(self.channel, pv_object(obj))
        except Exception as error:
            self._errors += 1
            hint = (
                "; a channel keeps the structure of its first object (see getOutputPvObjectType)"
                if "definitions" in str(error)
                else ""
            )
            raise TransportError(
                f"cannot publish on channel {self.channel}: {error}{hint}"
            ) from error
        self._published += 1

    def stop(self) -> None:
        if self._open:
            self._open = False
            self._server.removeRecord(self.channel)

    def counts(self) -> PublisherCounts:
        return PublisherCounts(self._published, self._errors)
