"""Messages of a connection and its channels: authentication, channels, texts.

A server that accepts a connection sends the control message `SET_BYTE_ORDER` and an `Offer`; the
client answers with a `Choice`; the server says `validated` with a status. Only then are channels
created. A channel has a number of the client's and one of the server's.
"""

from __future__ import annotations

from typing import cast

from msgspec import Struct

from pvapy_stream.errors import WireError
from pvapy_stream.pva.wire import values
from pvapy_stream.pva.wire.buffers import Reader, Writer
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.status import OK, Status
from pvapy_stream.pva.wire.types import AnyValue, Kind, Scalar, Structure

ANONYMOUS = "anonymous"
CA = "ca"
_MOST = 100  # of authentications and channels in one message
_CA_TYPE = Structure("", (("user", Scalar(Kind.STRING)), ("host", Scalar(Kind.STRING))))


class Offer(Struct, frozen=True):
    """What a server says first: buffer size (4 bytes), types it keeps (2), authentications.

    Attributes:
        buffer: size of its receive buffer, bytes.
        types: how many types it keeps.
        methods: names of the authentications it knows.
    """

    buffer: int = 2**17
    types: int = 2**15 - 1
    methods: tuple[str, ...] = (ANONYMOUS, CA)

    def write(self, writer: Writer) -> None:
        """Write it to a message."""
        writer.number("i", self.buffer)
        writer.number("h", self.types)
        writer.size(len(self.methods))
        for method in self.methods:
            writer.string(method)

    @classmethod
    def read(cls, reader: Reader) -> Offer:
        """Read one from a message."""
        buffer, types = reader.number("i"), reader.number("h")
        count = _few(reader.count(1))
        return cls(buffer, types, tuple(reader.string() for _ in range(count)))


class Choice(Struct, frozen=True):
    """The client's answer: as the offer, priority (2 bytes), authentication and its data.

    Attributes:
        buffer: size of its receive buffer, bytes.
        types: how many types it keeps.
        priority: of the connection.
        method: the authentication.
        user: who the client says it is, with the authentication ``ca``.
        host: where it says it is.
    """

    buffer: int = 2**17
    types: int = 2**15 - 1
    priority: int = 0
    method: str = ANONYMOUS
    user: str = ""
    host: str = ""

    def write(self, writer: Writer, known: Outgoing) -> None:
        """Write it to a message."""
        writer.number("i", self.buffer)
        writer.number("h", self.types)
        writer.number("h", self.priority)
        writer.string(self.method)
        who: AnyValue = AnyValue()
        if self.method == CA:
            who = AnyValue(_CA_TYPE, {"user": self.user, "host": self.host})
        values.write_any(who, writer, known)

    @classmethod
    def read(cls, reader: Reader, known: Incoming) -> Choice:
        """Read one from a message."""
        numbers = reader.number("i"), reader.number("h"), reader.number("h")
        method = reader.string()
        data = values.read_any(reader, known).value if reader.rest else None
        who = cast("dict[str, object]", data) if isinstance(data, dict) else {}
        return cls(*numbers, method, _text(who, "user"), _text(who, "host"))


class ChannelRequest(Struct, frozen=True):
    """A client asks for channels: their number (2 bytes), and for each its number and name.

    Attributes:
        channels: number of each, given by the client, and name.
    """

    channels: tuple[tuple[int, str], ...]

    def write(self, writer: Writer) -> None:
        """Write it to a message."""
        writer.number("H", len(self.channels))
        for number, name in self.channels:
            writer.number("I", number)
            writer.string(name)

    @classmethod
    def read(cls, reader: Reader) -> ChannelRequest:
        """Read one from a message."""
        count = _few(reader.number("H"))
        return cls(tuple((reader.number("I"), reader.string()) for _ in range(count)))


class ChannelReply(Struct, frozen=True):
    """The server's answer: the client's number, the server's, a status.

    Attributes:
        client_id: number of the channel, given by the client.
        server_id: number of the channel, given by the server.
        status: whether there is one.
    """

    client_id: int
    server_id: int = 0
    status: Status = OK

    def write(self, writer: Writer) -> None:
        """Write it to a message."""
        writer.number("I", self.client_id)
        writer.number("I", self.server_id)
        self.status.write(writer)

    @classmethod
    def read(cls, reader: Reader) -> ChannelReply:
        """Read one from a message."""
        return cls(reader.number("I"), reader.number("I"), Status.read(reader))


class ChannelEnd(Struct, frozen=True):
    """Either side ends a channel, and the answer: the server's number of it, the client's.

    Attributes:
        server_id: number of the channel, given by the server.
        client_id: number of the channel, given by the client.
    """

    server_id: int
    client_id: int

    def write(self, writer: Writer) -> None:
        """Write it to a message."""
        writer.number("I", self.server_id)
        writer.number("I", self.client_id)

    @classmethod
    def read(cls, reader: Reader) -> ChannelEnd:
        """Read one from a message."""
        return cls(reader.number("I"), reader.number("I"))


class RequestText(Struct, frozen=True):
    """A text for the user of a request: number of the request, severity (1 byte), text.

    Attributes:
        request_id: number of the request.
        severity: 0 information, 1 warning, 2 error, 3 fatal.
        text: the text.
    """

    request_id: int
    severity: int
    text: str

    def write(self, writer: Writer) -> None:
        """Write it to a message."""
        writer.number("I", self.request_id)
        writer.byte(self.severity)
        writer.string(self.text)

    @classmethod
    def read(cls, reader: Reader) -> RequestText:
        """Read one from a message."""
        return cls(reader.number("I"), reader.byte(), reader.string())


def _text(values_: dict[str, object], name: str) -> str:
    value = values_.get(name, "")
    return value if isinstance(value, str) else ""


def _few(count: int) -> int:
    if count > _MOST:
        raise WireError(f"a message names {count} channels or authentications, more than {_MOST}")
    return count
