"""Requests of a client on a channel, each of which may be used many times."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from pvapy_stream.errors import TransportError, WireError
from pvapy_stream.pva.net.client_errors import NoAnswerError, NotSentError, RefusedError
from pvapy_stream.pva.net.server_link import ServerLink
from pvapy_stream.pva.wire import operations, values
from pvapy_stream.pva.wire.buffers import Reader, Writer
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.operations import INIT, Reply
from pvapy_stream.pva.wire.status import Status
from pvapy_stream.pva.wire.stream import Command
from pvapy_stream.pva.wire.types import AnyValue, Structure

_DECIDES = 5.0  # s; the client's thread decides within this what became of a request

Write = Callable[[Structure, Writer, Outgoing], None]
Read = Callable[[Structure, Reader, Incoming], object]


class Exchange:
    """One question to a server and its answer; without `write`, whether the request is set up.

    Attributes:
        flags: of the request.
        write: writes what belongs to it.
        read: reads what belongs to the answer.
        end_at: bytes that the connection has sent when all of it is sent.
        begun: set when it was written.
        finished: set when there is an answer or an error.
    """

    __slots__ = ("answer", "begun", "end_at", "error", "finished", "flags", "read", "write")

    def __init__(self, flags: int, write: Write | None, read: Read | None) -> None:
        self.flags = flags
        self.write = write
        self.read = read
        self.end_at = 0
        self.answer: object = None
        self.error: TransportError | None = None
        self.begun = threading.Event()
        self.finished = threading.Event()

    def finish(self, answer: object = None, error: TransportError | None = None) -> None:
        """There is an answer, or an error."""
        if not self.finished.is_set():
            self.answer, self.error = answer, error
            self.begun.set()
            self.finished.set()


class Place(Protocol):
    """What a request needs of its channel."""

    name: str

    @property
    def link(self) -> ServerLink | None:
        """The connection, while the channel is there."""
        ...

    @property
    def server_id(self) -> int:
        """The server's number of the channel."""
        ...

    @property
    def why(self) -> str:
        """Why the channel is not there."""
        ...

    def call(self, function: Callable[[], None]) -> None:
        """Call the function in the client's thread."""
        ...


class _State(Enum):
    NONE = 0
    ASKED = 1  # it is being set up
    READY = 2


class ClientRequest:
    """A request that is set up when it is needed, and again after each reconnection.

    One exchange follows the other. An exchange waits for the channel, and is sent once: what has
    not left this host when the connection ends waits for the next one; of what has left it, nobody
    knows whether it was done.

    Args:
        place: the channel.
        command: `Command.GET`, `PUT` or `RPC`.
        asked: the pvRequest.

    Attributes:
        held: the structure as it came last since it was set up, of a get.
    """

    def __init__(self, place: Place, command: Command, asked: AnyValue) -> None:
        self._place = place
        self._command = command
        self._asked = asked
        self._state = _State.NONE
        self._number = 0
        self._kind = Structure()
        self.held: dict[str, object] | None = None
        self._waiting: deque[Exchange] = deque()
        self._current: Exchange | None = None

    # -- any thread ------------------------------------------------------------------------------

    def set_up(self, timeout: float) -> Structure:
        """Wait until it is set up; the type that the server sends.

        Raises:
            NotSentError: the channel is not there within `timeout` s.
            RefusedError: the server has no such request.
        """
        answer = self._ask(Exchange(0, None, None), timeout, timeout)
        assert isinstance(answer, Structure)  # noqa: S101 - `step` gives nothing else
        return answer

    def ask(self, flags: int, write: Write, read: Read, begin: float, answer: float) -> object:
        """Send a question, and wait for the answer.

        Args:
            flags: of the request.
            write: writes what belongs to it, in the client's thread.
            read: reads what belongs to the answer, in the client's thread.
            begin: how long it may wait for the channel, s.
            answer: how long the answer may take, s.

        Raises:
            NotSentError: it was never sent.
            NoAnswerError: it was sent, and there is no answer.
            RefusedError: the server has answered that it does not do it.
        """
        return self._ask(Exchange(flags, write, read), begin, answer)

    def _ask(self, exchange: Exchange, begin: float, answer: float) -> object:
        def start() -> None:
            self._waiting.append(exchange)
            self.step()

        self._place.call(start)
        if exchange.begun.wait(begin):
            exchange.finished.wait(answer)
        if not exchange.finished.is_set():
            self._place.call(lambda: self._give_up(exchange))
            if not exchange.finished.wait(_DECIDES):
                raise NoAnswerError("the thread of the PVA client does not answer")
        if exchange.error is not None:
            raise exchange.error
        return exchange.answer

    # -- the client's thread ---------------------------------------------------------------------

    def step(self) -> None:
        """Do what can be done now."""
        link = self._place.link
        while link is not None and self._waiting and self._current is None:
            if self._state is _State.NONE:
                self._begin(link)
            if self._state is not _State.READY:
                return
            exchange = self._waiting.popleft()
            if exchange.finished.is_set():
                continue
            if exchange.write is None:
                exchange.finish(self._kind)
            else:
                self._send(exchange, exchange.write, link)

    def _begin(self, link: ServerLink) -> None:
        self._number = link.new_request(self._received)
        self._state = _State.ASKED
        writer = link.writer()
        operations.RequestHead(self._place.server_id, self._number, INIT).write(writer)
        values.write_any(self._asked, writer, link.outgoing)
        link.send(self._command, writer)

    def _send(self, exchange: Exchange, write: Write, link: ServerLink) -> None:
        writer = link.writer()
        known = link.outgoing.count
        self._head(exchange, writer)
        try:
            write(self._kind, writer, link.outgoing)
        except (TransportError, WireError) as error:
            # The server has not received the types that were numbered for it.
            link.outgoing.forget(known)
            if isinstance(error, WireError):
                error = TransportError(f"channel {self._place.name}: {error}")
            exchange.finish(error=error)
            return
        self._current = exchange
        exchange.end_at = link.send(self._command, writer)
        exchange.begun.set()

    def _head(self, exchange: Exchange, writer: Writer) -> None:
        operations.RequestHead(self._place.server_id, self._number, exchange.flags).write(writer)

    def _received(self, reader: Reader, known: Incoming) -> None:
        reply = Reply.read(reader)
        if reply.flags & INIT:
            self._was_set_up(reply, reader, known)
        else:
            self._answered(reply.status, reader, known)
        self.step()

    def _answered(self, status: Status, reader: Reader, known: Incoming) -> None:
        exchange, self._current = self._current, None
        if exchange is None:
            return
        if not status.done:
            exchange.finish(error=RefusedError(status.text))
            return
        try:
            exchange.finish(exchange.read and exchange.read(self._kind, reader, known))
        except WireError as error:
            exchange.finish(error=NoAnswerError(f"the answer cannot be read: {error}"))
            raise

    def _was_set_up(self, reply: Reply, reader: Reader, known: Incoming) -> None:
        if not reply.status.done:
            self._state = _State.NONE
            refused, self._waiting = self._waiting, deque()
            for exchange in refused:
                exchange.finish(error=RefusedError(reply.status.text))
            return
        self._state = _State.READY
        self.held = None
        if self._command != Command.RPC:
            kind = known.need(reader)
            if not isinstance(kind, Structure):
                raise WireError(f"channel {self._place.name} is no structure")
            self._kind = kind

    def lost(self, reason: str, link: ServerLink) -> None:
        """The channel is no more on this connection.

        Args:
            reason: why.
            link: the connection, on which answers may still come: they are those of nobody.
        """
        link.end_request(self._number)
        self._state = _State.NONE
        exchange, self._current = self._current, None
        if exchange is None:
            return
        if link.sent < exchange.end_at:
            # A server does nothing with a part of a message.
            exchange.begun.clear()
            self._waiting.appendleft(exchange)
        else:
            exchange.finish(error=NoAnswerError(f"the connection broke ({reason})"))

    def _give_up(self, exchange: Exchange) -> None:
        link = self._place.link
        if exchange is not self._current or link is None:
            if exchange in self._waiting:
                self._waiting.remove(exchange)
            why = "it did not answer in time" if link else self._place.why
            exchange.finish(error=NotSentError(why))
            return
        if link.sent < exchange.end_at:
            # All of it has to go, or nothing: the end of the connection decides for nothing.
            exchange.finish(error=NotSentError("the server takes nothing"))
            link.close("the server takes nothing")
            return
        exchange.finish(error=NoAnswerError("it gave no answer in time"))
        self._current = None
        self._state = _State.NONE
        writer = link.writer()
        operations.RequestId(self._place.server_id, self._number).write(writer)
        link.send(Command.DESTROY_REQUEST, writer)
        link.end_request(self._number)
        self.step()

    def close(self, reason: str) -> None:
        """It is used no more."""
        exchange, self._current = self._current, None
        if exchange is not None:
            link = self._place.link
            sent = link is not None and link.sent >= exchange.end_at
            exchange.finish(error=(NoAnswerError if sent else NotSentError)(reason))
        for one in self._waiting:
            one.finish(error=NotSentError(reason))
        self._waiting.clear()


class FieldRequest(ClientRequest):
    """Asks for the type of a channel; it is not set up."""

    def _begin(self, link: ServerLink) -> None:
        self._number = link.new_request(self._received)
        self._state = _State.READY

    def _head(self, exchange: Exchange, writer: Writer) -> None:
        operations.FieldQuestion(self._place.server_id, self._number, "").write(writer)

    def _received(self, reader: Reader, known: Incoming) -> None:
        reader.number("I")
        self._answered(Status.read(reader), reader, known)
        self.step()
