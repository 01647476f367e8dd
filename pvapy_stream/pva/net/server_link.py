"""A client's connection to a server, shared by all its channels there."""

from __future__ import annotations

import getpass
import logging
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable
from typing import Protocol

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net.base_link import Link, Watch, keep_alive
from pvapy_stream.pva.net.environment import Address
from pvapy_stream.pva.wire import connecting
from pvapy_stream.pva.wire.buffers import Reader, Writer
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.searching import SearchReply, found_in, search_message
from pvapy_stream.pva.wire.status import Status
from pvapy_stream.pva.wire.stream import Command, Control, StreamMessage, control, message

_OPENS = 5.0  # s; for the connection, and until the server has accepted us
_ECHO = 10.0  # s without a message, after which the server is asked whether it is there
_SILENT = 40.0  # s without a message, after which the connection is closed
_NUMBER = {False: struct.Struct("<I").unpack_from, True: struct.Struct(">I").unpack_from}
_NUMBER_SIZE = 4
# To look it up for each message would cost as much as to read the number.
_MONITOR = int(Command.MONITOR)
_REPLIES = {Command.GET, Command.PUT, Command.RPC, Command.GET_FIELD}

_log = logging.getLogger(__name__)

Received = Callable[[Reader, Incoming], None]
Updated = Callable[[StreamMessage, Incoming], None]


class Opens(Protocol):
    """A channel on a connection."""

    number: int
    name: str

    def created(self, link: ServerLink, server_id: int, status: Status) -> None:
        """The server has answered."""
        ...

    def lost(self, reason: str) -> None:
        """It is no more on this connection."""
        ...


class ServerLink(Link):
    """Connects to a server. Used by the client's thread alone.

    Args:
        watch: as `Loop.watch`.
        address: of the server.
        forget: called when it is closed.
        found: called with its replies to searches.

    Attributes:
        valid: whether the server has accepted us.
        paces: whether it waits for clients that acknowledge updates; None: not known yet.
        callbacks: called when that is known.
    """

    def __init__(
        self,
        watch: Watch,
        address: Address,
        forget: Callable[[ServerLink, str], None],
        found: Callable[[SearchReply], None],
    ) -> None:
        link = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        link.setblocking(False)
        super().__init__(watch, link, "server {}:{}".format(*address))
        self.address = address
        self.valid = False
        self.paces: bool | None = None
        self.callbacks: list[Callable[[], None]] = []
        self.incoming = Incoming()
        self.outgoing = Outgoing()
        self._forget = forget
        self._found = found
        self._big = False
        self._connected = False
        self._began = time.monotonic()
        self._echoed_at = self._began
        self._channels: dict[int, Opens] = {}
        self._requests: dict[int, Received] = {}
        self._monitors: dict[int, Updated] = {}
        self._last_request = 0

    def begin(self) -> None:
        """Connect."""
        try:
            keep_alive(self.link)
            self.link.connect(self.address)
        except BlockingIOError:
            pass
        except OSError as error:
            self.close(str(error))
            return
        self.watch()

    # -- for channels and requests ---------------------------------------------------------------

    def writer(self) -> Writer:
        """For a message, in the order that the server wants."""
        return Writer(self._big)

    def send(self, command: int, writer: Writer) -> int:
        """Send a message; how many bytes the connection has sent when it is sent."""
        self.enqueue(message(command, writer))
        return self.enqueued

    def create(self, channel: Opens) -> None:
        """Create a channel, as soon as the server has accepted us."""
        self._channels[channel.number] = channel
        if self.valid:
            writer = self.writer()
            connecting.ChannelRequest(((channel.number, channel.name),)).write(writer)
            self.send(Command.CREATE_CHANNEL, writer)

    def end_channel(self, channel: Opens, server_id: int | None) -> None:
        """A channel is needed no more."""
        if self._channels.pop(channel.number, None) is not None and server_id is not None:
            writer = self.writer()
            connecting.ChannelEnd(server_id, channel.number).write(writer)
            self.send(Command.DESTROY_CHANNEL, writer)

    @property
    def idle(self) -> bool:
        """Whether no channel is on it."""
        return not self._channels

    def new_request(self, received: Received) -> int:
        """The number of a new request; its replies are given to the function."""
        self._last_request += 1
        self._requests[self._last_request] = received
        return self._last_request

    def new_monitor(self, updated: Updated) -> int:
        """The number of a new monitor; its messages are given to the function."""
        self._last_request += 1
        self._monitors[self._last_request] = updated
        return self._last_request

    def end_request(self, number: int) -> None:
        """Replies to it are passed over."""
        self._requests.pop(number, None)
        self._monitors.pop(number, None)

    def search(self, names: dict[int, str]) -> None:
        """Ask a name server for channels."""
        self.enqueue([search_message(names, big=self._big)])

    def check(self, now: float) -> None:
        """Look whether the server is still there."""
        if not self.valid and now - self._began > _OPENS:
            self.close("it did not accept the connection in time")
        elif self.valid and now - self.read_at > _SILENT:
            self.close(f"it said nothing for {_SILENT:g} s")
        elif self.valid and now - max(self.read_at, self._echoed_at) > _ECHO:
            self._echoed_at = now
            self.send(Command.ECHO, self.writer())

    # -- bytes and messages ----------------------------------------------------------------------

    @property
    def eager(self) -> bool:
        # That a connection is there shows by its being writable.
        return not self._connected

    def handle(self, events: int) -> None:
        if not self._connected:
            if error := self.link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.close(os.strerror(error))
                return
            self._connected = bool(events & selectors.EVENT_WRITE)
        super().handle(events)

    def not_taken(self, reason: str) -> None:
        # A server that has ended takes no acknowledgement. What it had sent is still here.
        _log.debug("%s takes nothing more: %s", self.peer, reason)
        self.only_read()

    def ended(self, reason: str) -> None:
        self.valid = False
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.lost(reason)
        self._requests.clear()
        self._monitors.clear()
        self._forget(self, reason)

    def take(self, found: StreamMessage) -> None:
        if found.command == _MONITOR and not found.control:
            payload = found.payload
            if not payload or len(payload[0]) < _NUMBER_SIZE:
                raise WireError("a message of a monitor ends too early")
            (number,) = _NUMBER[found.big](payload[0])
            updated = self._monitors.get(number)
            if updated is not None:
                updated(found, self.incoming)
            return
        if found.control:
            if found.command == Control.SET_BYTE_ORDER:
                self._big = found.big
            elif found.command == Control.ECHO:
                self.enqueue([control(Control.ECHO_REPLY, found.value, self._big)])
            return
        command, reader = found.command, found.reader()
        if command in _REPLIES:
            self._reply(reader)
        elif command == Command.VALIDATION:
            self._choose(connecting.Offer.read(reader))
        elif command == Command.VALIDATED:
            self._accepted(Status.read(reader))
        elif command == Command.CREATE_CHANNEL:
            reply = connecting.ChannelReply.read(reader)
            channel = self._channels.get(reply.client_id)
            if channel is not None:
                if not reply.status.done:
                    del self._channels[reply.client_id]
                channel.created(self, reply.server_id, reply.status)
        elif command == Command.DESTROY_CHANNEL:
            channel = self._channels.pop(connecting.ChannelEnd.read(reader).client_id, None)
            if channel is not None:
                channel.lost("the server has the channel no more")
        elif command == Command.SEARCH_REPLY:
            for one in found_in([found], self.address[0]):
                self._found(one)

    def _reply(self, reader: Reader) -> None:
        # The number of the request comes first, and is read again with the rest.
        received = self._requests.get(reader.peek("I"))
        if received is not None:
            received(reader, self.incoming)

    def _choose(self, offer: connecting.Offer) -> None:
        self.outgoing = Outgoing(max(offer.types, 0))
        writer = self.writer()
        if connecting.CA in offer.methods:
            choice = connecting.Choice(
                method=connecting.CA, user=_user(), host=socket.gethostname()
            )
        else:
            choice = connecting.Choice()
        choice.write(writer, self.outgoing)
        self.send(Command.VALIDATION, writer)

    def _accepted(self, status: Status) -> None:
        if not status.done:
            self.close(f"it does not accept the connection: {status.text}")
            return
        self.valid = True
        for channel in list(self._channels.values()):
            self.create(channel)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # The user of this process has no name.
        return ""
