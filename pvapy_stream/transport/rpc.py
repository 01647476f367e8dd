"""Ways in and out by remote procedure calls: each object is the argument of one call."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from typing import Any

import psutil
import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.remote import RemotePublisher
from pvapy_stream.transport.serving import ServingReceiver

_OK = {"status": pva.INT}
_ERROR = {"status": pva.INT, "errorMessage": pva.STRING}

_LAST_CALLS = 2.0  # s; least time that calls under way get at the end
_TICK = 0.01  # s
_LEAVING = 0.05  # s; from the end of a connection until its thread has left our callback

# Servers whose calls did not end, and which therefore cannot be stopped.
_stuck: list[Any] = []

_log = logging.getLogger(__name__)


class RpcReceiver(ServingReceiver):
    """Serves calls on a channel and delivers their arguments.

    The reply is ``status`` 0, or -1 and an ``errorMessage`` for an object that could not be taken.
    """

    def __init__(self, channel: str) -> None:
        super().__init__(channel)
        self._server: Any = None
        self._ports: set[int] = set()

    def _open(self) -> None:
        before = _listening()
        self._server = pva.RpcServer()
        self._ports = _listening() - before
        self._server.registerService(self.channel, self._on_call)
        self._server.startListener()

    def _on_call(self, obj: Any) -> Any:
        # An exception that leaves this function ends the process; `_take` raises none.
        problem = self._take(obj)
        if problem:
            return pva.PvObject(_ERROR, {"status": -1, "errorMessage": problem})
        return pva.PvObject(_OK, {"status": 0})

    def stop(self, patience: float = 0.0) -> list[Any]:
        """Take the calls under way, and stop the server when nobody calls any more.

        The binding keeps Python from running while it stops the server, and waits for the threads
        of the connections meanwhile: one in our callback would make it wait for ever.
        """
        server, self._server = self._server, None
        ended = server is None or self._end_calls(max(patience, _LAST_CALLS))
        left = super().stop(patience)
        if server is not None and ended:
            server.stopListener()
        elif server is not None:
            _log.error(
                "channel %s: a call has no end; its server ends with the process", self.channel
            )
            _stuck.append(server)
        return left

    def _end_calls(self, patience: float) -> bool:
        """End the connections, each after its present call; False when one has no end."""
        end = time.monotonic() + patience
        while True:
            ours = [one for one in _tcp() if one.laddr.port in self._ports and one.fd >= 0]
            for one in ours:
                # No more is accepted, and none is read from: the binding closes it when its call
                # has returned. The service stays registered: the binding would destroy it
                # unprotected, with the last of the connections.
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(one.fd)) as link:
                    link.shutdown(socket.SHUT_RD)
            if not any(one.status == psutil.CONN_ESTABLISHED for one in ours):
                break
            if time.monotonic() > end:
                return False
            time.sleep(_TICK)
        time.sleep(_LEAVING)
        return True


def _tcp() -> list[Any]:
    """The TCP connections of this process."""
    process = psutil.Process()
    # The name that older versions of psutil have.
    return getattr(process, "net_connections", getattr(process, "connections", list))("tcp")


def _listening() -> set[int]:
    return {one.laddr.port for one in _tcp() if one.status == psutil.CONN_LISTEN}


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
