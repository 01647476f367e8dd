"""Datagrams that find servers: searches, replies, beacons, and the tag of what is passed on."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from pvapy_stream.errors import WireError
from pvapy_stream.pva.wire import values
from pvapy_stream.pva.wire.buffers import Buffer, Reader, Writer
from pvapy_stream.pva.wire.descriptions import Incoming
from pvapy_stream.pva.wire.limits import Limits
from pvapy_stream.pva.wire.stream import HEADER, Assembler, Command, StreamMessage, message

ANY = "0.0.0.0"  # noqa: S104 - means: where the datagram came from
TCP = "tcp"
REPLY_REQUIRED = 0x01
UNICAST = 0x80  # the server that gets it passes it on to others on its host

_DATAGRAM = 65535
_LIMITS = Limits(message=_DATAGRAM, string=4096, fields=100, registry=100, values=1000, depth=4)
_MAPPED = bytes(10) + b"\xff\xff"


def write_address(writer: Writer, address: str) -> None:
    """An IPv4 or IPv6 address, as 16 bytes."""
    parsed = ipaddress.ip_address(address)
    writer.raw(parsed.packed if parsed.version == 6 else _MAPPED + parsed.packed)


def read_address(reader: Reader) -> str:
    """An address of 16 bytes; all 0, or an IPv4 address of 0, is `ANY`."""
    raw = bytes(reader.take(16))
    if not any(raw):
        return ANY
    if raw.startswith((_MAPPED, bytes(12))):
        return str(ipaddress.IPv4Address(raw[12:]))
    return str(ipaddress.IPv6Address(raw))


class Search(Struct, frozen=True):
    """A question who serves channels.

    Number (4 bytes), flags (1), 3 unused, address and port of who wants the reply, protocols,
    number of names (2), and for each a number (4) and the name.

    Attributes:
        sequence: number of the search.
        flags: `REPLY_REQUIRED`, `UNICAST`.
        address: where the reply is to be sent.
        port: where the reply is to be sent.
        protocols: that the client speaks; any if there are none.
        channels: number and name of each; none asks which servers there are.
    """

    sequence: int
    flags: int
    address: str
    port: int
    protocols: tuple[str, ...] = (TCP,)
    channels: tuple[tuple[int, str], ...] = ()

    def write(self, writer: Writer) -> None:
        """Write it to a message."""
        writer.number("I", self.sequence)
        writer.byte(self.flags)
        writer.raw(bytes(3))
        write_address(writer, self.address)
        writer.number("H", self.port)
        writer.size(len(self.protocols))
        for protocol in self.protocols:
            writer.string(protocol)
        writer.number("H", len(self.channels))
        for number, name in self.channels:
            writer.number("I", number)
            writer.string(name)

    @classmethod
    def read(cls, reader: Reader) -> Search:
        """Read one from a message."""
        sequence, flags = reader.number("I"), reader.byte()
        reader.take(3)
        address, port = read_address(reader), reader.number("H")
        protocols = tuple(reader.string() for _ in range(reader.count(1)))
        count = reader.number("H")
        if 5 * count > reader.rest:
            raise WireError(f"a search for {count} channels ends too early")
        channels = tuple((reader.number("I"), reader.string()) for _ in range(count))
        return cls(sequence, flags, address, port, protocols, channels)

    def passed_on(self, sender: str) -> Search:
        """The search as the server that got it passes it on to others on its host."""
        address = sender if self.address == ANY else self.address
        return replace(self, flags=self.flags & ~UNICAST, address=address)


class SearchReply(Struct, frozen=True):
    """A server's answer to a search.

    Its identity (12 bytes), number of the search, its address and port, protocol, whether it serves
    the channels (1 byte), how many (2), and their numbers (4 each).

    Attributes:
        identity: of the server, 12 bytes.
        sequence: number of the search.
        address: of the server; `ANY`: where the reply came from.
        port: of the server.
        found: whether it serves the channels.
        channels: numbers of channels in the search.
        protocol: that the server speaks.
    """

    identity: bytes
    sequence: int
    address: str
    port: int
    found: bool
    channels: tuple[int, ...] = ()
    protocol: str = TCP

    def write(self, writer: Writer) -> None:
        """Write it to a message."""
        writer.raw(self.identity)
        writer.number("I", self.sequence)
        write_address(writer, self.address)
        writer.number("H", self.port)
        writer.string(self.protocol)
        writer.byte(1 if self.found else 0)
        writer.number("H", len(self.channels))
        for number in self.channels:
            writer.number("I", number)

    @classmethod
    def read(cls, reader: Reader) -> SearchReply:
        """Read one from a message."""
        identity, sequence = bytes(reader.take(12)), reader.number("I")
        address, port, protocol = read_address(reader), reader.number("H"), reader.string()
        found, count = reader.byte() != 0, reader.number("H")
        if 4 * count > reader.rest:
            raise WireError(f"a reply for {count} channels ends too early")
        channels = tuple(reader.number("I") for _ in range(count))
        return cls(identity, sequence, address, port, found, channels, protocol)


class Beacon(Struct, frozen=True):
    """A server says that it is there.

    Identity (12 bytes), flags (1), number (1), changes (2), address and port, protocol, and a value
    of any type.

    Attributes:
        identity: of the server, 12 bytes; another one after each start.
        sequence: number of the beacon, 0 to 255.
        changes: how often its channels changed, 0 to 65535.
        address: of the server; `ANY`: where the beacon came from.
        port: of the server.
        protocol: that the server speaks.
    """

    identity: bytes
    sequence: int
    changes: int
    address: str
    port: int
    protocol: str = TCP

    def write(self, writer: Writer) -> None:
        """Write it to a message."""
        writer.raw(self.identity)
        writer.byte(0)
        writer.byte(self.sequence)
        writer.number("H", self.changes)
        write_address(writer, self.address)
        writer.number("H", self.port)
        writer.string(self.protocol)
        writer.byte(0xFF)  # no state of the server

    @classmethod
    def read(cls, reader: Reader) -> Beacon:
        """Read one from a message."""
        identity = bytes(reader.take(12))
        reader.byte()
        sequence, changes = reader.byte(), reader.number("H")
        made = cls(
            identity, sequence, changes, read_address(reader), reader.number("H"), reader.string()
        )
        if reader.rest:
            values.read_any(reader, Incoming())
        return made


def datagram(data: Buffer) -> list[StreamMessage]:
    """The messages of a datagram.

    Raises:
        WireError: it is malformed; segments and what is cut off are, too.
    """
    assembler = Assembler(_LIMITS)
    found = assembler.feed(data)
    if not assembler.idle:
        raise WireError("a datagram holds a part of a message")
    return found


def read_datagram(found: StreamMessage) -> Reader:
    """What reads the payload of a message of a datagram."""
    return found.reader(_LIMITS)


def search_message(
    channels: Mapping[int, str],
    port: int = 0,
    flags: int = 0,
    big: bool = False,
    address: str = ANY,
) -> bytes:
    """A message that searches for channels.

    Args:
        channels: names by number.
        port: where replies are to be sent; 0 over TCP, where they come on the same connection.
        flags: `REPLY_REQUIRED`, `UNICAST`.
        big: whether it is big-endian.
        address: where replies are to be sent; `ANY`: where it comes from.
    """
    writer = Writer(big)
    named = tuple(channels.items())
    Search(secrets.randbits(32), flags, address, port, channels=named).write(writer)
    return b"".join(message(Command.SEARCH, writer))


def found_in(messages: Iterable[StreamMessage], sender: str) -> list[SearchReply]:
    """Replies of a server that serves what was searched for; their address is never `ANY`.

    Args:
        messages: that came from the server; others than replies are passed over.
        sender: address they came from.

    Raises:
        WireError: a reply is malformed.
    """
    made: list[SearchReply] = []
    for one in messages:
        if one.control or one.command != Command.SEARCH_REPLY:
            continue
        reply = SearchReply.read(read_datagram(one))
        if reply.found:
            made.append(replace(reply, address=sender) if reply.address == ANY else reply)
    return made


def origin_tag(address: str, big: bool = False) -> bytes:
    """The message before a search that is passed on: address it came in at, 16 bytes."""
    writer = Writer(big)
    write_address(writer, address)
    made = b"".join(message(Command.ORIGIN_TAG, writer))
    assert len(made) == HEADER + 16  # noqa: S101 - what the protocol says
    return made
