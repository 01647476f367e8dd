"""One client's connection to a server. Used by whoever has the loop's lock."""

from __future__ import annotations

import logging
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net.base_link import AT_ONCE, MUCH, Link, after
from pvapy_stream.pva.net.base_request import Request
from pvapy_stream.pva.net.host import Host
from pvapy_stream.pva.net.requests import KINDS
from pvapy_stream.pva.net.server_channel import Channel
from pvapy_stream.pva.net.server_monitor import MonitorRequest
from pvapy_stream.pva.wire import connecting, operations, values
from pvapy_stream.pva.wire.buffers import Buffer, Reader, Writer
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.operations import INIT
from pvapy_stream.pva.wire.searching import TCP, Search
from pvapy_stream.pva.wire.status import OK, Status
from pvapy_stream.pva.wire.stream import Command, Control, StreamMessage, control, message
from pvapy_stream.pva.wire.types import AnyValue, Structure, Type

_HANDSHAKE = 10.0  # s; until a client has said who it is
_STALLED = 30.0  # s; a client that stops in a message, or takes nothing of what waits for it
_CHANNELS = 2000  # of one client
_REQUESTS = 4000  # of one client
_TRIES = 4  # to send an update at once
_TOGETHER = 2**19  # bytes that are gathered; a client receives as many at once
_PUTS = 16  # under way of one client; then it is not read from

_log = logging.getLogger(__name__)


class Connection(Link):
    """Reads what a client wants and sends what it is given.

    Args:
        host: the server.
        link: connected, and does not block.
        peer: address and port of the client.
    """

    def __init__(self, host: Host, link: socket.socket, peer: str) -> None:
        super().__init__(host.watch, link, f"client {peer}", host.limits)
        self.user = ""
        self.host = peer.partition(":")[0]
        self.incoming = Incoming()
        self.outgoing = Outgoing()
        self._host = host
        self._turns: deque[MonitorRequest] = deque()
        self._has_turn: set[MonitorRequest] = set()
        self._channels: dict[int, Channel] = {}
        self._client_ids: dict[int, int] = {}
        self._requests: dict[int, tuple[int, Request]] = {}
        self._next_channel = 1
        self._puts = 0
        self._valid = False
        self._gathers = False  # messages for one call of the kernel
        self._began = time.monotonic()
        self._simple: dict[int, Callable[[Reader], None]] = {
            Command.CREATE_CHANNEL: self._create,
            Command.DESTROY_CHANNEL: self._destroy,
            Command.DESTROY_REQUEST: self._end_request,
            Command.CANCEL_REQUEST: self._cancel,
            Command.GET_FIELD: self._field,
        }

    def begin(self) -> None:
        """Greet the client."""
        self.enqueue([control(Control.SET_BYTE_ORDER, server=True)])
        writer = Writer()
        connecting.Offer().write(writer)
        self.send(Command.VALIDATION, writer)

    def ended(self, reason: str) -> None:
        # What the client waits for is withdrawn.
        for _, request in self._requests.values():
            request.end()
        self._requests.clear()
        for channel in self._channels.values():
            channel.clients.discard(self)
        self._channels.clear()
        self._turns.clear()
        self._host.forget(self)

    def check(self, now: float) -> None:
        """Close it if the client is too slow, and look after its requests."""
        for _, request in list(self._requests.values()):
            request.check(now)
        if self._gathers:
            # Who gathered it is busy with something else.
            self.flush()
        if not self._valid and now - self._began > _HANDSHAKE:
            self.close(f"the client did not say who it is within {_HANDSHAKE:g} s")
        elif self.waiting and now - self.sent_at > _STALLED:
            self._give_up(f"took nothing for {_STALLED:g} s")
        elif (
            not self.assembler.idle
            and self.events & selectors.EVENT_READ
            and now - self.read_at > _STALLED
        ):
            self._give_up(f"stopped in a message for {_STALLED:g} s")

    def _give_up(self, why: str) -> None:
        # Updates that wait for it are lost.
        _log.warning("%s %s; its connection is closed", self.peer, why)
        self.close(f"the client {why}")

    # -- what requests need ----------------------------------------------------------------------

    def send(self, command: int, writer: Writer) -> None:
        """Send a message, as soon as the client takes it."""
        self.enqueue(message(command, writer, server=True))

    def wants_turn(self, monitor: MonitorRequest) -> None:
        """Let a monitor send when there is room."""
        if monitor not in self._has_turn and not self.closed:
            self._has_turn.add(monitor)
            self._turns.append(monitor)
            self.watch()

    @property
    def clear(self) -> bool:
        """Whether nothing waits to be sent, but for what is gathered."""
        return (self._gathers or not self._out) and not self._turns

    def gather(self, parts: list[Buffer], size: int) -> None:
        """Send a message with those that follow; only if it is clear.

        It is sent by `flush`, or with what makes much of it.
        """
        if self.closed:
            return
        self._gathers = True
        self.keep(parts, size)
        if self.enqueued - self.sent >= _TOGETHER or len(self._out) >= AT_ONCE:
            self.flush()

    def send_now(self, parts: list[Buffer], size: int) -> None:
        """Send a message at once, as far as the client takes it; only if it is clear."""
        if len(parts) > AT_ONCE or self.closed:
            self.enqueue(parts)
            return
        if self._gathers:
            self.gather(parts, size)
            self.flush()
            return
        rest = parts
        try:
            # The client may take more while it is sent: to come back later costs far more.
            for _ in range(_TRIES):
                sent = self.link.sendmsg(rest)
                size -= sent
                if not size:
                    self.sent_at = time.monotonic()
                    return
                rest = after(rest, sent)
        except BlockingIOError:
            pass
        except OSError as error:
            self.close(str(error))
            return
        self.enqueue(rest)

    def flush(self) -> None:
        """Send what waits, as far as the client takes it."""
        self._gathers = False
        self.handle(selectors.EVENT_WRITE)

    def handle(self, events: int) -> None:
        super().handle(events)
        if events == selectors.EVENT_READ and self._turns and not self.unsent:
            # The client has made room.
            super().handle(selectors.EVENT_WRITE)

    def done_with(self, number: int) -> None:
        """The client needs a request no more."""
        self._requests.pop(number, None)

    def put_comes(self) -> None:
        self._puts += 1

    def put_ends(self) -> None:
        self._puts -= 1
        self.watch()

    def from_any_thread(self, function: Callable[[], None]) -> None:
        self._host.call(function)

    # -- bytes -----------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        return self._puts >= _PUTS or self.waiting > MUCH

    @property
    def eager(self) -> bool:
        return bool(self._turns)

    def fill(self) -> None:
        while self._turns and self.waiting < MUCH:
            monitor = self._turns.popleft()
            self._has_turn.discard(monitor)
            monitor.take_turn()

    # -- messages --------------------------------------------------------------------------------

    def take(self, found: StreamMessage) -> None:
        if found.control:
            if found.command == Control.ECHO:
                self.enqueue([control(Control.ECHO_REPLY, found.value, server=True)])
            return
        command, reader = found.command, found.reader(self._host.limits)
        if command == Command.ECHO:
            writer = Writer()
            writer.raw(bytes(reader.take(reader.rest)))
            self.send(command, writer)
        elif command == Command.VALIDATION:
            self._validate(reader)
        elif command == Command.SEARCH:
            self._search(reader)
        elif not self._valid:
            raise WireError(f"command 0x{command:02X} comes before the client has said who it is")
        elif command in self._simple:
            self._simple[command](reader)
        elif command in _REQUEST_COMMANDS:
            self._request(command, reader)
        # What is unknown may be of a later version, and is passed over.

    def _validate(self, reader: Reader) -> None:
        choice = connecting.Choice.read(reader, self.incoming)
        self.outgoing = Outgoing(max(choice.types, 0))
        self.user = choice.user
        known = choice.method in (connecting.ANONYMOUS, connecting.CA, "")
        status = OK if known else Status.error(f"authentication {choice.method} is unknown")
        writer = Writer()
        status.write(writer)
        self.send(Command.VALIDATED, writer)
        self._valid = known

    def _search(self, reader: Reader) -> None:
        search = Search.read(reader)
        if search.protocols and TCP not in search.protocols:
            return
        elsewhere = self._host.answers_elsewhere(search)
        own = self._host.answer(search)
        for writer in elsewhere if own is None else [own, *elsewhere]:
            self.send(Command.SEARCH_REPLY, writer)

    def _create(self, reader: Reader) -> None:
        for client_id, name in connecting.ChannelRequest.read(reader).channels:
            channel = self._host.channels.get(name)
            status, number = OK, 0
            if channel is None:
                status = Status.error(f"there is no channel {name} here")
            elif len(self._channels) >= _CHANNELS:
                status = Status.error(f"a client may have {_CHANNELS} channels")
            else:
                number, self._next_channel = self._next_channel, self._next_channel + 1
                self._channels[number] = channel
                channel.clients.add(self)
                self._client_ids[number] = client_id
            writer = Writer()
            connecting.ChannelReply(client_id, number, status).write(writer)
            self.send(Command.CREATE_CHANNEL, writer)

    def _destroy(self, reader: Reader) -> None:
        end = connecting.ChannelEnd.read(reader)
        self._end_channel(end.server_id)
        writer = Writer()
        end.write(writer)
        self.send(Command.DESTROY_CHANNEL, writer)

    def drop(self, channel: Channel) -> None:
        """The server has the channel no more."""
        for number, own in list(self._channels.items()):
            if own is channel:
                writer = Writer()
                connecting.ChannelEnd(number, self._client_ids[number]).write(writer)
                self._end_channel(number)
                self.send(Command.DESTROY_CHANNEL, writer)

    def _end_channel(self, number: int) -> None:
        gone = self._channels.pop(number, None)
        if gone is not None and gone not in self._channels.values():
            gone.clients.discard(self)
        self._client_ids.pop(number, None)
        for request_id, (channel, request) in list(self._requests.items()):
            if channel == number:
                del self._requests[request_id]
                request.end()

    def _end_request(self, reader: Reader) -> None:
        end = operations.RequestId.read(reader)
        _, request = self._requests.pop(end.request_id, (0, None))
        if request is not None:
            request.end()

    def _cancel(self, reader: Reader) -> None:
        end = operations.RequestId.read(reader)
        _, request = self._requests.get(end.request_id, (0, None))
        if request is not None and not isinstance(request, MonitorRequest):
            request.end()

    def _field(self, reader: Reader) -> None:
        asked = operations.FieldQuestion.read(reader)
        channel = self._channels.get(asked.channel_id)
        kind: Type | None = channel.kind if channel else None
        for name in filter(None, asked.path.split(".")):
            kind = kind.get(name) if isinstance(kind, Structure) else None
        status = OK if kind is not None else Status.error(f"there is no field {asked.path!r}")
        writer = Writer()
        writer.number("I", asked.request_id)
        status.write(writer)
        if kind is not None:
            self.outgoing.write(writer, kind)
        self.send(Command.GET_FIELD, writer)

    def _request(self, command: int, reader: Reader) -> None:
        head = operations.RequestHead.read(reader)
        if head.flags & INIT:
            self._set_up(command, head, reader)
            return
        _, request = self._requests.get(head.request_id, (0, None))
        if request is None or request.command != command:
            if command != Command.MONITOR:
                # A monitor's last words may cross the end of its channel.
                self._refuse(command, head, f"request {head.request_id} was not set up")
            return
        if head.flags & operations.DESTROY and command == Command.MONITOR:
            del self._requests[head.request_id]
            request.end()
            return
        request.handle(head.flags, reader)

    def _set_up(self, command: int, head: operations.RequestHead, reader: Reader) -> None:
        window = 0
        if command == Command.MONITOR:
            setup = operations.MonitorSetup.read(head.flags, reader, self.incoming)
            asked, window = setup.request, setup.window
        else:
            asked: AnyValue = values.read_any(reader, self.incoming)
        channel, kind = self._channels.get(head.channel_id), KINDS.get(command)
        if channel is None:
            self._refuse(command, head, f"channel {head.channel_id} is unknown")
        elif kind is None:
            name = Command(command).name.lower().replace("_", "-")
            self._refuse(command, head, f"this server has no {name}")
        elif head.request_id in self._requests:
            self._refuse(command, head, f"request {head.request_id} is in use")
        elif len(self._requests) >= _REQUESTS:
            self._refuse(command, head, f"a client may have {_REQUESTS} requests")
        else:
            try:
                request = kind(self, channel, head.request_id, asked)
            except WireError as error:
                self._refuse(command, head, str(error))
                return
            if isinstance(request, MonitorRequest) and head.flags & operations.PIPELINE:
                request.open_window(window)
            self._requests[head.request_id] = head.channel_id, request
            request.set_up()

    def _refuse(self, command: int, head: operations.RequestHead, text: str) -> None:
        writer = Writer()
        operations.Reply(head.request_id, head.flags, Status.error(text)).write(writer)
        self.send(command, writer)


_REQUEST_COMMANDS = {*KINDS, Command.PUT_GET, Command.ARRAY, Command.PROCESS}
