"""Receiver and publisher for remote procedure calls: each object is the argument of one call."""

from __future__ import annotations

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.net.server_channel import Call, Put, ServiceChannel
from pvapy_stream.pva.put_objects import PutReader
from pvapy_stream.pva.wire.status import Status
from pvapy_stream.pva.wire.types import AnyValue, Kind, Scalar, Structure
from pvapy_stream.transport.hosted_receiver import STOPPED, HostedReceiver
from pvapy_stream.transport.remote import ChannelPublisher

_DONE = AnyValue(Structure("", (("status", Scalar(Kind.INT)),)), {"status": 0})
_FAILED = Structure("", (("status", Scalar(Kind.INT)), ("errorMessage", Scalar(Kind.STRING))))
_MOST_KINDS = 16  # structures of arguments that are remembered


class RpcReceiver(HostedReceiver):
    """Serves calls on a channel and delivers their arguments.

    The reply is ``status`` 0, or -1 and an ``errorMessage`` for an object that could not be taken.
    A call that arrives while the receiver stops gets an error: it was not taken, and may be
    repeated.
    """

    def __init__(self, channel: str) -> None:
        super().__init__(channel)
        self._readers: dict[Structure, PutReader] = {}

    def _open(self) -> None:
        super()._open()
        self._host(ServiceChannel(self.channel, self.comes))

    def _accept(self, put: Put) -> None:
        assert isinstance(put, Call)  # noqa: S101 - a service gets nothing else
        _, problem = self._take(self._object(put.argument))
        if problem == STOPPED:
            put.finish(Status.error(problem))
        elif problem:
            put.answer(AnyValue(_FAILED, {"status": -1, "errorMessage": problem}))
        else:
            put.answer(_DONE)

    def _object(self, argument: AnyValue) -> StreamObject:
        kind = argument.type
        if not isinstance(kind, Structure) or not isinstance(argument.value, dict):
            raise TransportError("the argument is no structure")
        reader = self._readers.get(kind)
        if reader is None:
            if len(self._readers) >= _MOST_KINDS:
                self._readers.clear()
            reader = self._readers[kind] = PutReader(kind)
        return reader.build(argument.value)


class RpcPublisher(ChannelPublisher):
    """Calls a remote service with each object.

    Args:
        channel: name of the service's channel.
        limit: longest time of one call, and for which an object is retried if calls fail, s.
    """

    def __init__(self, channel: str, limit: float) -> None:
        super().__init__(channel, f"cannot call channel {channel}", limit)
        # The whole time for one call, which lasts as long as the other side processes.
        self._answer = limit

    def _send(self, obj: AnyValue, patience: float) -> None:
        reply = self.remote.call_with(obj, patience, self._answer).value
        if isinstance(reply, dict) and (status := reply.get("status")):
            # It took the object and could not use it: a retry would be a second object.
            why = reply.get("errorMessage", status)
            raise TransportError(f"channel {self.channel} refused an object: {why}")
