"""Ways in and out by remote procedure calls: each object is the argument of one call."""

from __future__ import annotations

from typing import Any

import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.remote import RemotePublisher
from pvapy_stream.transport.serving import ServingReceiver

_OK = {"status": pva.INT}
_ERROR = {"status": pva.INT, "errorMessage": pva.STRING}


class RpcReceiver(ServingReceiver):
    """Serves calls on a channel and delivers their arguments.

    The reply is ``status`` 0, or -1 and an ``errorMessage`` for an object that could not be taken.
    """

    def __init__(self, channel: str) -> None:
        super().__init__(channel)
        self._server: Any = None

    def _open(self) -> None:
        self._server = pva.RpcServer()
        self._server.registerService(self.channel, self._on_call)
        self._server.startListener()

    def _on_call(self, obj: Any) -> Any:
        # An exception that leaves this function ends the process; `_take` raises none.
        _, problem = self._take(obj)
        if problem:
            return pva.PvObject(_ERROR, {"status": -1, "errorMessage": problem})
        return pva.PvObject(_OK, {"status": 0})

    def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stopListener()


class RpcPublisher(RemotePublisher):
    """Calls a remote service with each object.

    Args:
        channel: name of the service's channel.
        limit: how long one call may last, and an object is tried again when calls fail, s.
    """

    def __init__(self, channel: str, limit: float) -> None:
        super().__init__(channel, f"cannot call channel {channel}", limit)
        self._client = pva.RpcClient(channel)
        # All the time for one call, which lasts as long as the other side processes: what is called
        # again after a time-out may come twice.
        self._client.setTimeout(limit)

    def _send(self, obj: Any) -> None:
        reply = self._client.invoke(obj)
        if reply.hasField("status") and reply["status"]:
            # It took the object and could not use it: a second attempt would be a second object.
            self._attempts.errors += 1
            why = reply["errorMessage"] if reply.hasField("errorMessage") else reply["status"]
            raise TransportError(f"channel {self.channel} refused an object: {why}")
