"""Requests of clients on a channel: get, put, call; monitors are in `monitor`.

Used by whoever has the lock of the server's loop.
"""

from __future__ import annotations

from collections.abc import Callable

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net.base_request import Request, Requester
from pvapy_stream.pva.net.past_request import make_monitor
from pvapy_stream.pva.net.server_channel import Call, Channel, Put, ServiceChannel
from pvapy_stream.pva.wire import operations, request, values
from pvapy_stream.pva.wire.buffers import Reader
from pvapy_stream.pva.wire.changes import read_changes
from pvapy_stream.pva.wire.status import Status
from pvapy_stream.pva.wire.stream import Command
from pvapy_stream.pva.wire.types import AnyValue

_TAKEN = 2.0  # s; a put that somebody has had for so long is acknowledged


class GetRequest(Request):
    """Gives what the channel holds."""

    command = Command.GET

    def handle(self, flags: int, reader: Reader) -> None:
        self.give(flags)


class PutRequest(Request):
    """Takes a structure, or gives the present one. The client puts one after the other.

    A put is acknowledged when it is finished, or when somebody has had it for a while: then it is
    taken, and a client that gave it up would send it again. A client that asks for ``block=true``
    gets no reply before the end, where the channel has such puts.
    """

    command = Command.PUT

    def __init__(self, client: Requester, channel: Channel, number: int, asked: AnyValue) -> None:
        super().__init__(client, channel, number, asked)
        self._put: Put | None = None
        self._flags = 0
        self._waits = channel.blocks and request.options(asked).get("block") == "true"

    def handle(self, flags: int, reader: Reader) -> None:
        if flags & operations.GET:
            self.give(flags)
            return
        channel = self.channel
        bits, part = read_changes(self.kind, reader, self.client.incoming, channel.base)
        if channel.on_put is None or not channel.may_put(self.client.user, self.client.host):
            self.reply(flags, Status.error(f"put to {channel.name} is not allowed"))
            return
        # A client that puts again has given the put before up.
        if self._put is not None and not self._withdraw():
            self.reply(flags, Status.error("a put of this request is still under way"))
            return
        if self.kind is not channel.kind:
            part = request.merged(channel.base, part)
        wide = request.widened(self.kind, bits, channel.kind)
        put = Put(part, wide, self._done, self._waits)
        self._put, self._flags = put, flags
        channel.expect(put)
        self.client.put_comes()
        channel.on_put(put)

    def _done(self, put: Put, status: Status) -> None:
        self.client.from_any_thread(lambda: self._finish(put, status))

    def _finish(self, put: Put, status: Status) -> None:
        self.channel.settle(put, status)
        put.forget()
        self.client.put_ends()
        if self._put is put:
            self._put = None
            self.reply(self._flags, status)

    def check(self, now: float) -> None:
        put = self._put
        if put is None:
            return
        if put.claimed:
            if not put.waits and now - put.since > _TAKEN:
                self._put = None
                self.reply(self._flags)
        elif now - put.since > self.channel.patience and self._withdraw():
            self.channel.late += 1
            text = f"nobody took the put to {self.channel.name} in {self.channel.patience:g} s"
            self.reply(self._flags, Status.error(text))

    def _withdraw(self) -> bool:
        """Take the put back; False if somebody has it. It is answered by who calls this."""
        put, self._put = self._put, None
        if put is None or put.withdraw():
            if put is not None:
                put.finish(Status.error("withdrawn"))
            return True
        self._put = put
        return False

    def end(self) -> None:
        if not self._withdraw():
            self._put = None


class CallRequest(Request):
    """Gives calls to a service, and its answers to the client. One call follows the other.

    A call is answered when it is finished, however long that takes: the client says how long it
    waits, by ending the request.
    """

    command = Command.RPC

    def __init__(self, client: Requester, channel: Channel, number: int, asked: AnyValue) -> None:
        super().__init__(client, channel, number, AnyValue())
        if not isinstance(channel, ServiceChannel):
            raise WireError(f"{channel.name} cannot be called")
        self._on_call = channel.on_call
        self._call: Call | None = None
        self._flags = 0

    def set_up(self) -> None:
        self.reply(operations.INIT)

    def handle(self, flags: int, reader: Reader) -> None:
        argument = values.read_any(reader, self.client.incoming)
        # A client that calls again has given the call before up.
        self.end()
        self._call, self._flags = Call(argument, self._done), flags
        self.client.put_comes()
        self._on_call(self._call)

    def _done(self, call: Put, status: Status) -> None:
        self.client.from_any_thread(lambda: self._finish(call, status))

    def _finish(self, call: Put, status: Status) -> None:
        call.forget()
        self.client.put_ends()
        if self._call is None or self._call is not call:
            return
        answer, self._call = self._call.returned or AnyValue(), None
        if status.done:
            self.reply(
                self._flags, status, lambda w: values.write_any(answer, w, self.client.outgoing)
            )
        else:
            self.reply(self._flags, status)

    def end(self) -> None:
        call, self._call = self._call, None
        if call is not None and call.withdraw():
            call.finish(Status.error("withdrawn"))


KINDS: dict[int, Callable[..., Request]] = {
    Command.MONITOR: make_monitor,
    **{kind.command: kind for kind in (GetRequest, PutRequest, CallRequest)},
}
