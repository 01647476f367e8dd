"""Headers, and what cuts a stream of bytes into messages.

A header has eight bytes: 0xCA, the version, flags, the command, and the size of the payload (four
bytes). Flags: 1 control message, whose size is a value and which has no payload; 0x10 first,
0x30 middle, 0x20 last segment of a message; 0x40 sent by a server; 0x80 big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from pvapy_stream.errors import WireError
from pvapy_stream.pva.wire.buffers import Buffer, Reader, Writer
from pvapy_stream.pva.wire.limits import DEFAULT, Limits
from pvapy_stream.pva.wire.pool import Pool

VERSION = 2
HEADER = 8

_MAGIC = 0xCA
_CONTROL = 0x01
_SEGMENT, _FIRST, _LAST = 0x30, 0x10, 0x20
_FROM_SERVER = 0x40
_BIG = 0x80
_NOT_PLAIN = _CONTROL | _SEGMENT | _BIG
_ROOM = 2**16  # bytes; messages that fit come in batches, larger ones are received in place
_LEAST, _MOST = 2 * _ROOM, 8 * _ROOM  # bytes that are received at once
_SMALL = 4096  # bytes; segments of fewer are joined
_OWN_SEGMENT = 2**16  # bytes; arrays of so many are sent in a segment of their own
_MIDDLE = _FROM_SERVER | _SEGMENT
_pack_head = struct.Struct("<4BI").pack
_UNPACK_LITTLE = struct.Struct("<4BI").unpack_from


class Command(IntEnum):
    """Commands of application messages."""

    BEACON = 0x00
    VALIDATION = 0x01
    ECHO = 0x02
    SEARCH = 0x03
    SEARCH_REPLY = 0x04
    AUTHENTICATION = 0x05
    ACCESS_RIGHTS = 0x06
    CREATE_CHANNEL = 0x07
    DESTROY_CHANNEL = 0x08
    VALIDATED = 0x09
    GET = 0x0A
    PUT = 0x0B
    PUT_GET = 0x0C
    MONITOR = 0x0D
    ARRAY = 0x0E
    DESTROY_REQUEST = 0x0F
    PROCESS = 0x10
    GET_FIELD = 0x11
    MESSAGE = 0x12
    MULTIPLE_DATA = 0x13
    RPC = 0x14
    CANCEL_REQUEST = 0x15
    ORIGIN_TAG = 0x16


class Control(IntEnum):
    """Commands of control messages; their value is in the header."""

    MARK = 0x00
    ACKNOWLEDGE_MARK = 0x01
    SET_BYTE_ORDER = 0x02
    ECHO = 0x03
    ECHO_REPLY = 0x04


# Not frozen, which would take a microsecond for each.
@dataclass(slots=True)
class StreamMessage:
    """A message, all its segments together.

    Attributes:
        command: what it is; a number that `Command` or `Control` need not have.
        control: whether it is a control message.
        big: whether it is big-endian.
        from_server: whether a server sent it.
        value: of a control message.
        payload: of an application message, in chunks.
    """

    command: int
    control: bool
    big: bool
    from_server: bool
    value: int = 0
    payload: tuple[Buffer, ...] = ()

    def reader(self, limits: Limits = DEFAULT) -> Reader:
        """What reads the payload."""
        return Reader(self.payload, self.big, limits)


@dataclass(frozen=True, slots=True)
class _Header:
    flags: int
    command: int
    size: int


class Assembler:
    """Cuts received bytes into messages, and joins segments.

    Bytes are put where `space` says, for instance by `socket.recv_into`, and `received` gives the
    messages that are complete. Payloads look into the memory that was given; it is used again when
    nothing refers to it, so arrays in them may be kept. A payload of 64 KiB or more is received in
    memory of its own. After a `WireError` the stream cannot be read on.

    Args:
        limits: of what is received.
    """

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self._limits = limits
        self._pool = Pool()
        self._size = _LEAST  # of the next scratch
        self._scratch = np.empty(self._size, np.uint8).data
        self._start = self._end = 0
        self._header: _Header | None = None  # of the payload that is received in place
        self._large = memoryview(b"")
        self._filled = 0
        self._first: _Header | None = None  # of a message of which segments are missing
        self._segments: list[Buffer] = []
        self._gathered = 0

    @property
    def idle(self) -> bool:
        """Whether no message is incomplete."""
        return self._header is None and self._first is None and self._start == self._end

    def space(self) -> memoryview:
        """Where the next bytes are to be put; never empty."""
        if self._header is not None:
            return self._large[self._filled :]
        if len(self._scratch) - self._end < _ROOM:
            self._new_scratch()
        return self._scratch[self._end :]

    def _new_scratch(self) -> None:
        # What is left is less than a message that fits.
        rest = self._scratch[self._start : self._end]
        self._scratch = self._pool.take(self._size)
        self._scratch[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def received(self, count: int) -> list[StreamMessage]:
        """Messages that are complete now that `count` bytes were put into `space`.

        Raises:
            WireError: what came is no message, or exceeds the limits.
        """
        made: list[StreamMessage] = []
        if self._header is not None:
            self._filled += count
            if self._filled < len(self._large):
                return made
            header, self._header = self._header, None
            self._finish(header, self._large.toreadonly(), made)
            return made
        self._end += count
        if self._end == len(self._scratch):
            # There is more than fits.
            self._size = min(2 * self._size, _MOST)
        while self._end - self._start >= HEADER and self._header is None:
            if self._whole(made):
                continue
            header = self._head()
            if not header.flags & _CONTROL and not self._payload(header, made):
                break
            if header.flags & _CONTROL:
                self._start += HEADER
                made.append(_message(header))
        return made

    def _whole(self, made: list[StreamMessage]) -> bool:
        """Take a message without segments that is here, as most are; False if it is no such."""
        scratch, start = self._scratch, self._start
        magic, version, flags, command, size = _UNPACK_LITTLE(scratch, start)
        if magic != _MAGIC or not version or flags & _NOT_PLAIN or self._first is not None:
            return False
        end = start + HEADER + size
        if end > self._end or size > self._limits.message:
            return False
        self._start = end
        payload = scratch[start + HEADER : end].toreadonly()
        made.append(StreamMessage(command, False, False, bool(flags & _FROM_SERVER), 0, (payload,)))
        return True

    def feed(self, data: Buffer) -> list[StreamMessage]:
        """Messages that are complete with these bytes, which are copied."""
        made: list[StreamMessage] = []
        rest = memoryview(data)
        while len(rest):
            space = self.space()
            count = min(len(space), len(rest))
            space[:count] = rest[:count]
            made += self.received(count)
            rest = rest[count:]
        return made

    def _head(self) -> _Header:
        magic, version, flags, command = self._scratch[self._start : self._start + 4]
        if magic != _MAGIC:
            raise WireError(f"a message begins with 0x{magic:02X}, not with 0x{_MAGIC:02X}")
        if not version:
            raise WireError("version 0 of the protocol is not spoken")
        order = ">" if flags & _BIG else "<"
        (size,) = struct.unpack_from(f"{order}I", self._scratch, self._start + 4)
        if not flags & _CONTROL:
            self._check(_Header(flags, command, size))
        return _Header(flags, command, size)

    def _check(self, header: _Header) -> None:
        """Look at what is announced, before memory is taken for it."""
        total = self._gathered + header.size
        if total > self._limits.message:
            raise WireError(
                f"a message of {total} bytes is announced, more than {self._limits.message}"
            )
        first, segment = self._first, header.flags & _SEGMENT
        begins = segment in (0, _FIRST)
        if begins and first is not None:
            raise WireError("a message begins before the segments of another have ended")
        if not begins and (first is None or first.command != header.command):
            raise WireError("a segment belongs to no message")

    def _payload(self, header: _Header, made: list[StreamMessage]) -> bool:
        """Take the payload; False if more bytes are needed in the scratch."""
        at = self._start + HEADER
        here = self._end - at
        if here >= header.size:
            payload = self._scratch[at : at + header.size].toreadonly()
            self._start = at + header.size
            self._finish(header, payload, made)
            return True
        if header.size + HEADER <= _ROOM:
            return False
        # Not touched before it is filled, so an announcement alone takes no memory.
        self._large = self._pool.take(header.size)
        self._large[:here] = self._scratch[at : self._end]
        self._header, self._filled = header, here
        self._start = self._end
        return True

    def _finish(self, header: _Header, payload: Buffer, made: list[StreamMessage]) -> None:
        segment = header.flags & _SEGMENT
        if not segment:
            made.append(_message(header, (payload,)))
            return
        if segment == _FIRST:
            self._first = header
        last = self._segments[-1] if self._segments else b""
        if isinstance(last, bytearray) and len(payload) < _SMALL and len(last) < _ROOM:
            last += payload
        else:
            self._segments.append(bytearray(payload) if len(payload) < _SMALL else payload)
        self._gathered += len(payload)
        if segment == _LAST:
            made.append(_message(self._first or header, tuple(self._segments)))
            self._first, self._segments, self._gathered = None, [], 0


def _message(header: _Header, payload: tuple[Buffer, ...] = ()) -> StreamMessage:
    flags = header.flags
    control = bool(flags & _CONTROL)
    return StreamMessage(
        header.command,
        control,
        bool(flags & _BIG),
        bool(flags & _FROM_SERVER),
        header.size if control else 0,
        payload,
    )


def message(command: int, payload: Writer, server: bool = False) -> list[Buffer]:
    """A message in parts, to be sent one after the other.

    Args:
        command: what it is.
        payload: of the message.
        server: whether a server sends it.
    """
    flags = (_BIG if payload.big else 0) | (_FROM_SERVER if server else 0)
    order = ">" if payload.big else "<"
    header = struct.pack(f"{order}4BI", _MAGIC, VERSION, flags, command, len(payload))
    first, *rest = payload.parts() or [b""]
    if len(first) < _SMALL:
        return [header + first, *rest]
    return [header, first, *rest]


def segments(
    command: int, payloads: Sequence[Buffer], big: bool = False, server: bool = False
) -> list[Buffer]:
    """A message in at least two segments with these payloads."""
    made: list[Buffer] = []
    order = ">" if big else "<"
    for number, payload in enumerate(payloads):
        place = _FIRST if not number else _LAST if number == len(payloads) - 1 else _SEGMENT
        flags = place | (_BIG if big else 0) | (_FROM_SERVER if server else 0)
        made += [struct.pack(f"{order}4BI", _MAGIC, VERSION, flags, command, len(payload)), payload]
    return made


def head(command: int, size: int, first: bool = False) -> bytes:
    """Header of a little-endian message of a server.

    Args:
        command: what it is.
        size: of the payload, or of that of the first segment.
        first: whether it is a first segment.
    """
    return _pack_head(_MAGIC, VERSION, _FROM_SERVER | (_FIRST if first else 0), command, size)


def lay_out(
    command: int, parts: Sequence[Buffer], before: int
) -> tuple[int, bool, list[Buffer], int]:
    """The payload of a server's message, in segments if it has large arrays.

    Each array of 64 KiB or more is a segment of its own: it can be received where it is wanted.

    Args:
        command: of the message.
        parts: of the payload; the first and the last one are small.
        before: bytes of the payload that come before.

    Returns:
        size of the payload of the first segment, or of the message; whether there are segments;
        what is sent after the first header and what comes before; bytes of the whole message.
    """
    made: list[Buffer] = []
    small: list[Buffer] = []  # to be joined
    first = begins = 0  # the first segment; where in `made` the one that is open begins
    size = before  # of the segment that is open
    total = HEADER + before
    for part in parts:
        length = len(part)
        total += length
        if length < _SMALL:
            small.append(part)
            size += length
            continue
        if small:
            made.append(b"".join(small))
            small.clear()
        if length < _OWN_SEGMENT:
            made.append(part)
            size += length
            continue
        if not first:
            first = size
        elif size:
            made.insert(begins, _pack_head(_MAGIC, VERSION, _MIDDLE, command, size))
            total += HEADER
        made += [_pack_head(_MAGIC, VERSION, _MIDDLE, command, length), part]
        total += HEADER
        begins, size = len(made), 0
    if small:
        made.append(b"".join(small))
    if not first:
        return size, False, made, total
    made.insert(begins, _pack_head(_MAGIC, VERSION, _FROM_SERVER | _LAST, command, size))
    return first, True, made, total + HEADER


def control(command: int, value: int = 0, big: bool = False, server: bool = False) -> bytes:
    """A control message."""
    flags = _CONTROL | (_BIG if big else 0) | (_FROM_SERVER if server else 0)
    return struct.pack(f"{'>' if big else '<'}4BI", _MAGIC, VERSION, flags, command, value)
