"""Ways in and out by remote procedure calls: each object is the argument of one call."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.lazy import pv_object
from pvapy_stream.transport.backoff import Attempts
from pvapy_stream.transport.ports import Deliver, Publisher, PublisherCounts, ReceiverCounts

_OK = {"status": pva.INT}
_ERROR = {"status": pva.INT, "errorMessage": pva.STRING}

_log = logging.getLogger(__name__)


class RpcReceiver:
    """Serves calls on a channel and delivers their arguments.

    The reply is ``status`` 0, or -1 and an ``errorMessage`` for an object that could not be taken.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self._deliver: Deliver | None = None
        self._server: Any = None
        self._busy = threading.Lock()
        self._newest: Any = None
        self._received = self._errors = 0
        self.was_connected = False

    def start(self, deliver: Deliver, deliver_again: Deliver | None = None) -> None:
        self._deliver = deliver
        self._server = pva.RpcServer()
        self._server.registerService(self.channel, self._on_call)
        self._server.startListener()

    def _on_call(self, obj: Any) -> Any:
        # An exception that leaves this function ends the process.
        try:
            with self._busy:
                if self._deliver is None:
                    return _failure("the receiver has stopped")
                self.was_connected = True
                self._received += 1
                self._newest = obj
                self._deliver(obj)
        except Exception as error:
            self._errors += 1
            _log.exception("channel %s: an object could not be delivered", self.channel)
            return _failure(f"{type(error).__name__}: {error}")
        return pva.PvObject(_OK, {"status": 0})

    def stop(self, patience: float = 0.0) -> list[Any]:
        with self._busy:
            self._deliver = None
        server, self._server = self._server, None
        if server is not None:
            server.stopListener()
        return []

    def counts(self) -> ReceiverCounts:
        return ReceiverCounts(received=self._received, errors=self._errors)

    def reset_counts(self) -> None:
        self._received = self._errors = 0

    @property
    def connected(self) -> bool:
        """Whether there was a call; callers do not stay connected."""
        return self.was_connected and self._deliver is not None

    def keep_up(self) -> None:
        pass

    def newest(self, timeout: float) -> Any | None:
        return self._newest


def _failure(message: str) -> Any:
    return pva.PvObject(_ERROR, {"status": -1, "errorMessage": message})


class RpcPublisher(Publisher):
    """Calls a remote service with each object.

    Args:
        channel: name of the service's channel.
        limit: how long one call may last, and an object is tried again when calls fail, s.
    """

    def __init__(self, channel: str, limit: float) -> None:
        self.channel = channel
        self._client = pva.RpcClient(channel)
        # All the time for one call, which lasts as long as the other side processes: what is called
        # again after a time-out may come twice.
        self._client.setTimeout(limit)
        self._attempts = Attempts(f"cannot call channel {channel}", limit)
        self._published = 0

    def publish(self, obj: Any) -> None:
        real = pv_object(obj)
        self._attempts.make(lambda: self._call(real))
        self._published += 1

    def _call(self, obj: Any) -> None:
        reply = self._client.invoke(obj)
        if reply.hasField("status") and reply["status"]:
            # It took the object and could not use it: a second attempt would be a second object.
            self._attempts.errors += 1
            why = reply["errorMessage"] if reply.hasField("errorMessage") else reply["status"]
            raise TransportError(f"channel {self.channel} refused an object: {why}")

    def stop(self) -> None:
        self._attempts.stop()

    def counts(self) -> PublisherCounts:
        return PublisherCounts(self._published, self._attempts.errors)

    def reset_counts(self) -> None:
        self._published = self._attempts.errors = 0
