"""Requests of clients on a channel: get, put, monitor, call. Used by the server's thread alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net.channel import Call, Channel, Put, ServiceChannel, Value
from pvapy_stream.pva.wire import operations, request, values
from pvapy_stream.pva.wire.buffers import Reader, Writer
from pvapy_stream.pva.wire.changes import read_changes, write_changes
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.operations import Reply
from pvapy_stream.pva.wire.status import OK, Status
from pvapy_stream.pva.wire.stream import Command
from pvapy_stream.pva.wire.types import AnyValue, Structure

_QUEUE = 4  # updates that wait for a client that does not say how many it wants
_LONGEST_QUEUE = 1000
_TAKEN = 2.0  # s; a put that somebody has had for so long is acknowledged


class Client(Protocol):
    """What requests need of a connection."""

    incoming: Incoming
    outgoing: Outgoing
    user: str
    host: str

    def send(self, command: int, writer: Writer) -> None:
        """Send a message, some time."""
        ...

    def wants_turn(self, monitor: MonitorRequest) -> None:
        """Give the monitor a turn to send when there is room."""
        ...

    def done_with(self, number: int) -> None:
        """The client needs a request no more."""
        ...

    def put_comes(self) -> None:
        """A put is on its way."""
        ...

    def put_ends(self) -> None:
        """A put has ended."""
        ...

    def from_any_thread(self, function: Callable[[], None]) -> None:
        """Call the function in the server's thread."""
        ...


class Request:
    """A request that was set up.

    Args:
        client: who asked.
        channel: of the request.
        number: of the request, given by the client.
        asked: the client's pvRequest.

    Attributes:
        kind: type of the structure that is sent.
    """

    command: Command

    def __init__(self, client: Client, channel: Channel, number: int, asked: AnyValue) -> None:
        self.client = client
        self.channel = channel
        self.number = number
        self.kind: Structure = request.selected(channel.kind, asked)

    def set_up(self) -> None:
        """Tell the client that it is set up, and the type of what will be sent."""
        self.reply(operations.INIT, OK, lambda w: self.client.outgoing.write(w, self.kind))

    def handle(self, flags: int, reader: Reader) -> None:
        """Do what the client wants."""
        raise NotImplementedError

    def end(self) -> None:
        """It is not needed any more."""

    def check(self, now: float) -> None:
        """Look whether something lasts too long; called twice a second."""

    def reply(
        self, flags: int, status: Status = OK, more: Callable[[Writer], object] | None = None
    ) -> None:
        """Send a reply, and what belongs to it."""
        writer = Writer()
        Reply(self.number, flags, status).write(writer)
        if more is not None:
            more(writer)
        self.client.send(self.command, writer)
        if flags & operations.DESTROY:
            self.client.done_with(self.number)

    def give(self, flags: int) -> None:
        """Send what the channel holds."""
        self.reply(
            flags,
            OK,
            lambda w: write_changes(self.kind, 1, self.channel.value, w, self.client.outgoing),
        )


class GetRequest(Request):
    """Gives what the channel holds."""

    command = Command.GET

    def handle(self, flags: int, reader: Reader) -> None:
        self.give(flags)


class PutRequest(Request):
    """Takes a structure, or gives the present one. The client puts one after the other.

    A put is acknowledged when it is finished, or when somebody has had it for a while: then it is
    taken, and a client that gave it up would send it again.
    """

    command = Command.PUT

    def __init__(self, client: Client, channel: Channel, number: int, asked: AnyValue) -> None:
        super().__init__(client, channel, number, asked)
        self._put: Put | None = None
        self._flags = 0

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
        put = Put(part, request.widened(self.kind, bits, channel.kind), self._done)
        self._put, self._flags = put, flags
        channel.expect(put)
        self.client.put_comes()
        channel.on_put(put)

    def _done(self, put: Put, status: Status) -> None:
        self.client.from_any_thread(lambda: self._finish(put, status))

    def _finish(self, put: Put, status: Status) -> None:
        self.channel.settle(put, status)
        self.client.put_ends()
        if self._put is put:
            self._put = None
            self.reply(self._flags, status)

    def check(self, now: float) -> None:
        put = self._put
        if put is None:
            return
        if put.claimed:
            if now - put.since > _TAKEN:
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


class MonitorRequest(Request):
    """Sends updates; those that wait too long are merged, and the client is told."""

    command = Command.MONITOR

    def __init__(self, client: Client, channel: Channel, number: int, asked: AnyValue) -> None:
        super().__init__(client, channel, number, asked)
        wanted = request.options(asked).get("queueSize", "")
        size = int(wanted) if wanted.isdigit() else _QUEUE
        self._size = min(max(size, 2), _LONGEST_QUEUE)
        self._waiting: deque[tuple[Value, int, int]] = deque()
        self._started = False
        # Updates that the client has room for; None: it does not say.
        self._window: int | None = None
        channel.monitors.add(self)
        self._post(channel.value, 1)

    def open_window(self, size: int) -> None:
        """The client will say what it has taken; it has room for so many."""
        self._window = size

    def handle(self, flags: int, reader: Reader) -> None:
        if flags & operations.PIPELINE:
            room = reader.number("I")
            self._window = min((self._window or 0) + room, 2**31)
        if flags & operations.STOP:
            self._started = flags & operations.START == operations.START
        self._ask()

    def end(self) -> None:
        self._started = False
        self._waiting.clear()
        self.channel.monitors.discard(self)

    def post(self, value: Value, bits: int) -> None:
        """The channel has changed."""
        bits = request.narrowed(self.channel.kind, bits, self.kind)
        if bits:
            self._post(value, bits)
            self._ask()

    def _post(self, value: Value, bits: int) -> None:
        waiting = self._waiting
        if len(waiting) < self._size:
            waiting.append((value, bits, 0))
            return
        _, before, overrun = waiting[-1]
        waiting[-1] = value, before | bits, overrun | (before & bits)

    def _ask(self) -> None:
        if self.ready:
            self.client.wants_turn(self)

    @property
    def ready(self) -> bool:
        """Whether there is something that may be sent."""
        return self._started and bool(self._waiting) and self._window != 0

    def take_turn(self) -> None:
        """Send one update."""
        if not self.ready:
            return
        value, bits, overrun = self._waiting.popleft()
        if self._window is not None:
            self._window -= 1
        writer = Writer()
        update = operations.Update(self.number, bits, value, overrun)
        update.write(self.kind, writer, self.client.outgoing)
        self.client.send(self.command, writer)
        self._ask()

    def close(self) -> None:
        """Tell the client that there will be no more."""
        self.reply(operations.DESTROY)


class CallRequest(Request):
    """Gives calls to a service, and its answers to the client. One call follows the other.

    A call is answered when it is finished, however long that takes: the client says how long it
    waits, by ending the request.
    """

    command = Command.RPC

    def __init__(self, client: Client, channel: Channel, number: int, asked: AnyValue) -> None:
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


KINDS: dict[int, type[Request]] = {
    kind.command: kind for kind in (GetRequest, PutRequest, MonitorRequest, CallRequest)
}
