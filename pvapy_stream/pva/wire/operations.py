"""Messages of requests on a channel: get, put, monitor, calls, type descriptions.

A request is set up with `INIT` (and the pvRequest of the client, of any type), used, and destroyed.
The client sends the channel's number (4 bytes, the server's), the number of the request (4 bytes,
the client's), a byte of flags, and what belongs to it; the server the number of the request, the
flags, a status, and what belongs to that.
"""

from __future__ import annotations

from msgspec import Struct

from pvapy_stream.pva.wire import values
from pvapy_stream.pva.wire.buffers import Reader, Writer
from pvapy_stream.pva.wire.changes import read_bits, read_changes, write_bits, write_changes
from pvapy_stream.pva.wire.descriptions import Incoming, Outgoing
from pvapy_stream.pva.wire.status import OK, Status
from pvapy_stream.pva.wire.types import AnyValue, Structure

# Flags of requests.
INIT = 0x08
DESTROY = 0x10
GET = 0x40  # put: get what the channel holds; put-get: get what a get would give
GET_PUT = 0x80  # put-get: get what a put would change
PROCESS = 0x04
# Flags of monitors.
START = 0x44
STOP = 0x04
PIPELINE = 0x80  # with INIT: a window follows; alone: the client has room for so many more


class RequestHead(Struct, frozen=True):
    """The head of every request: channel, request, flags.

    Attributes:
        channel_id: number of the channel, given by the server.
        request_id: number of the request, given by the client.
        flags: what is asked for.
    """

    channel_id: int
    request_id: int
    flags: int

    @classmethod
    def read(cls, reader: Reader) -> RequestHead:
        """Read one from a message; what belongs to it follows."""
        return cls(reader.number("I"), reader.number("I"), reader.byte())

    def write(self, writer: Writer) -> None:
        """Write it to a message."""
        writer.number("I", self.channel_id)
        writer.number("I", self.request_id)
        writer.byte(self.flags)


class MonitorSetup(Struct, frozen=True):
    """What follows the head of a monitor that is set up.

    Attributes:
        request: the client's pvRequest.
        window: with `PIPELINE`: how many updates the client has room for; else 0.
    """

    request: AnyValue
    window: int = 0

    @classmethod
    def read(cls, flags: int, reader: Reader, known: Incoming) -> MonitorSetup:
        """Read one from a message."""
        request = values.read_any(reader, known)
        return cls(request, reader.number("I") if flags & PIPELINE else 0)

    def write(self, writer: Writer, known: Outgoing) -> None:
        """Write it to a message; the head must have `PIPELINE` if there is a window."""
        values.write_any(self.request, writer, known)
        if self.window:
            writer.number("I", self.window)


class RequestId(Struct, frozen=True):
    """A request to cancel or destroy: numbers of the channel and the request.

    Attributes:
        channel_id: number of the channel, given by the server.
        request_id: number of the request, given by the client.
    """

    channel_id: int
    request_id: int

    @classmethod
    def read(cls, reader: Reader) -> RequestId:
        """Read one from a message."""
        return cls(reader.number("I"), reader.number("I"))

    def write(self, writer: Writer) -> None:
        """Write it to a message."""
        writer.number("I", self.channel_id)
        writer.number("I", self.request_id)


class FieldQuestion(Struct, frozen=True):
    """What is the type of a channel, or of a field? As `RequestId`, and the dotted path.

    Attributes:
        channel_id: number of the channel, given by the server.
        request_id: number of the request, given by the client.
        path: of the field; "" for all.
    """

    channel_id: int
    request_id: int
    path: str

    @classmethod
    def read(cls, reader: Reader) -> FieldQuestion:
        """Read one from a message."""
        return cls(reader.number("I"), reader.number("I"), reader.string())

    def write(self, writer: Writer) -> None:
        """Write it to a message."""
        writer.number("I", self.channel_id)
        writer.number("I", self.request_id)
        writer.string(self.path)


class Reply(Struct, frozen=True):
    """The head of every reply: request, flags, status.

    Attributes:
        request_id: number of the request.
        flags: those of the request.
        status: what became of it.
    """

    request_id: int
    flags: int
    status: Status = OK

    @classmethod
    def read(cls, reader: Reader) -> Reply:
        """Read one from a message; what belongs to it follows."""
        return cls(reader.number("I"), reader.byte(), Status.read(reader))

    def write(self, writer: Writer) -> None:
        """Write it to a message."""
        writer.number("I", self.request_id)
        writer.byte(self.flags)
        self.status.write(writer)


class MonitorUpdate(Struct, frozen=True):
    """An update of a monitor: request, flags 0, bit set of changes, values, bit set of overruns.

    Attributes:
        request_id: number of the request.
        changed: bit set of the fields that changed since the update before.
        value: the structure.
        overrun: bit set of the fields that changed more than once.
    """

    request_id: int
    changed: int
    value: dict[str, object]
    overrun: int = 0

    def write(self, kind: Structure, writer: Writer, known: Outgoing) -> None:
        """Write it to a message."""
        writer.number("I", self.request_id)
        writer.byte(0)
        write_changes(kind, self.changed, self.value, writer, known)
        write_bits(self.overrun, writer)

    @classmethod
    def read(
        cls,
        request_id: int,
        kind: Structure,
        reader: Reader,
        known: Incoming,
        held: dict[str, object],
    ) -> MonitorUpdate:
        """Read one, after number of the request and flags."""
        changed, value = read_changes(kind, reader, known, held)
        # Some servers leave the overruns out.
        return cls(request_id, changed, value, read_bits(reader) if reader.rest else 0)
