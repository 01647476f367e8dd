"""Receiver: a hosted PVA channel, to which remote clients put."""

from __future__ import annotations

import pvaccess as pva

from pvapy_stream.errors import ObjectError, TransportError
from pvapy_stream.pva.convert import type_of, value_of
from pvapy_stream.pva.net.server_channel import Channel, Put
from pvapy_stream.pva.put_objects import PutReader
from pvapy_stream.pva.serving import may_put
from pvapy_stream.pva.wire.status import OK, Status
from pvapy_stream.transport.hosted_receiver import HostedReceiver
from pvapy_stream.transport.own_server import host
from pvapy_stream.transport.ports import ReceiverCounts

__all__ = ["PutReceiver", "host"]


class PutReceiver(HostedReceiver):
    """Hosts a channel and delivers the objects that clients put to it.

    A client's put is acknowledged when the object has been delivered: a slow stage makes its
    clients wait. A put that has waited for too long is refused, and counted as an overrun.

    Args:
        server: the program's other PVA server, if it has one, which must not have the channel.
        channel: name of the channel.
        prototype: an object of the structure that is received.

    Raises:
        TransportError: the name is taken in this program, or the structure cannot be served.
    """

    def __init__(self, server: pva.PvaServer | None, channel: str, prototype: pva.PvObject) -> None:
        super().__init__(channel)
        if server is not None and server.hasRecord(channel):
            raise TransportError(
                f"cannot host input channel {channel}: another channel has this name"
            )
        try:
            kind = type_of(prototype)
            self._reader = PutReader(kind)
            value = value_of(prototype, kind)
        except (pva.PvaException, ObjectError, TypeError, ValueError) as error:
            raise TransportError(f"cannot host input channel {channel}: {error}") from error
        self._served = Channel(channel, kind, value, self.comes, may_put)
        self._host(self._served)

    def _accept(self, put: Put) -> None:
        # An object that was taken and could not be used must not be put again.
        taken, problem = self._take(self._reader.read(put.value))
        put.finish(OK if taken else Status.error(problem))

    def counts(self) -> ReceiverCounts:
        return ReceiverCounts(self._received, self._served.late, self._errors)
