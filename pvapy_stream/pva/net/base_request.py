"""What all requests of clients on a channel have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pvapy_stream.pva.net.server_channel import Channel
from pvapy_stream.pva.wire import operations, request
from pvapy_stream.pva.wire.buffers import Reader, Writer
from pvapy_stream.pva.wire.changes import write_changes
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.operations import Reply
from pvapy_stream.pva.wire.status import OK, Status
from pvapy_stream.pva.wire.stream import Command
from pvapy_stream.pva.wire.types import AnyValue, Structure


class Requester(Protocol):
    """What requests need of a connection."""

    incoming: Incoming
    outgoing: Outgoing
    user: str
    host: str

    def send(self, command: int, writer: Writer) -> None:
        """Send a message, some time."""
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

    def __init__(self, client: Requester, channel: Channel, number: int, asked: AnyValue) -> None:
        self.client = client
        self.channel = channel
        self.number = number
        self.kind: Structure = request.selected(channel.kind, asked)

    def set_up(self) -> None:
        """Reply to the client that it is set up, with the type of what will be sent."""
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
