"""Headers, and what cuts a stream of bytes into messages.

A header has eight bytes: 0xCA, the version, flags, the command, and the size of the payload (four
bytes). Flags: 1 control message, whose size is a value and which has no payload; 0x10 first,
0x30 middle, 0x20 last segment of a message; 0x40 sent by a server; 0x80 big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from msgspec import Struct

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
_ROOM = 2**16  # bytes; less is no place to receive messages of unknown length in
_LEAST, _MOST = 2 * _ROOM, 8 * _ROOM  # bytes that are received at once
_SMALL = 4096  # bytes; segments of fewer are joined
_FEW = 3  # parts
# Bytes; arrays of so many are sent in a segment of their own. Smaller ones are received where other
# messages are, and to put segments together would cost more than their pixels.
_OWN_SEGMENT = _MOST - _ROOM
_MIDDLE = _FROM_SERVER | _SEGMENT
_pack_head = struct.Struct("<4BI").pack
_pack_begin = struct.Struct("<4BIIB").pack
_UNPACK_LITTLE = struct.Struct("<4BI").unpack_from
_UNPACK_SIZE_BIG = struct.Struct(">I").unpack_from
_SIZE_AT = 4
_NOTHING = memoryview(b"")


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
class StreamMessage(Struct):
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


class Assembler:
    """Cuts received bytes into messages, and joins segments.

    Bytes are put where `space` says, for instance by `socket.recv_into`, and `received` gives the
    messages that are complete. Payloads look into the memory that was given; it is used again when
    nothing refers to it, so arrays in them may be kept. That memory holds several messages, as many
    as come at once, and its end is that of a message if all are as long as the one before: none is
    copied from one piece of memory to the next. A payload of more than 512 KiB is received in
    memory of its own. After a `WireError` the stream cannot be read on.

    Args:
        limits: of what is received.
    """

    def __init__(self, limits: Limits = DEFAULT) -> None:
        self._limits = limits
        self._pool = Pool()
        self._size = _LEAST  # that the next scratch is to have
        self._scratch = np.empty(self._size, np.uint8).data
        self._shown = self._scratch.toreadonly()
        self._start = self._end = 0
        self._needed = HEADER  # bytes from `_start` on, before more can be taken
        self._period = 0  # bytes of the last message with all its segments; 0: it is not known
        self._passed = 0  # bytes of the present one in segments that were taken
        self._large: memoryview | None = None  # a payload that is received in place
        self._large_head = (0, 0)  # flags and command of it
        self._filled = 0
        self._first: int | None = None  # command of a message of which segments are missing
        self._segments: list[Buffer] = []
        self._gathered = 0

    @property
    def idle(self) -> bool:
        """Whether no message is incomplete."""
        return self._large is None and self._first is None and self._start == self._end

    def space(self) -> memoryview:
        """Where the next bytes are to be put; never empty."""
        if self._large is not None:
            return self._large[self._filled :]
        left = len(self._scratch) - self._end
        between = self._start == self._end and self._first is None
        if self._start + self._needed > len(self._scratch) or (
            between and left < min(self._period or _ROOM, _ROOM)
        ):
            self._new_scratch()
        return self._scratch[self._end :]

    def _new_scratch(self) -> None:
        rest = self._shown[self._start : self._end]
        period = self._period
        size = max(round(self._size / period), 1) * period if 0 < period <= _MOST else self._size
        # Segments that were taken are left behind.
        size -= self._passed if self._passed < size else 0
        if not rest:
            # Nothing refers to it if what was in it is done with.
            self._scratch = self._shown = _NOTHING
        scratch = self._pool.take(max(size, self._needed))
        scratch[: len(rest)] = rest
        self._scratch, self._shown = scratch, scratch.toreadonly()
        self._start, self._end = 0, len(rest)

    def received(self, count: int) -> list[StreamMessage]:
        """Messages that are complete now that `count` bytes were put into `space`.

        Raises:
            WireError: what came is no message, or exceeds the limits.
        """
        made: list[StreamMessage] = []
        if self._large is not None:
            self._filled += count
            if self._filled == len(self._large):
                large, self._large = self._large, None
                self._take(*self._large_head, large.toreadonly(), made)
            return made
        shown, start, end = self._shown, self._start, self._end + count
        self._end = end
        if end == len(shown):
            # There is more than fits.
            self._size = min(2 * self._size, _MOST)
        most = self._limits.message
        self._needed = HEADER
        while end - start >= HEADER:
            magic, version, flags, command, size = _UNPACK_LITTLE(shown, start)
            if flags & _BIG:
                (size,) = _UNPACK_SIZE_BIG(shown, start + _SIZE_AT)
            if magic != _MAGIC or not version:
                raise WireError(_no_message(magic))
            if flags & _CONTROL:
                start += HEADER
                made.append(
                    StreamMessage(
                        command, True, bool(flags & _BIG), bool(flags & _FROM_SERVER), size
                    )
                )
                continue
            plain = not flags & _SEGMENT and self._first is None
            if not plain or size > most:
                # Before memory is taken for it.
                self._check(flags, command, size)
            stop = start + HEADER + size
            if stop > end:
                self._start = start
                self._await(flags, command, size)
                return made
            payload = shown[start + HEADER : stop]
            if plain:
                self._period = stop - start
                big, from_server = bool(flags & _BIG), bool(flags & _FROM_SERVER)
                made.append(StreamMessage(command, False, big, from_server, 0, (payload,)))
            else:
                self._take(flags, command, payload, made)
            start = stop
        self._start = start
        return made

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

    def _check(self, flags: int, command: int, size: int) -> None:
        """Look at what is announced."""
        total = self._gathered + size
        if total > self._limits.message:
            raise WireError(
                f"a message of {total} bytes is announced, more than {self._limits.message}"
            )
        first, segment = self._first, flags & _SEGMENT
        begins = segment in (0, _FIRST)
        if begins and first is not None:
            raise WireError("a message begins before the segments of another have ended")
        if not begins and first != command:
            raise WireError("a segment belongs to no message")

    def _await(self, flags: int, command: int, size: int) -> None:
        """Prepare for the rest of a payload."""
        self._needed = HEADER + size
        if self._needed <= _MOST:
            return
        at = self._start + HEADER
        here = self._end - at
        # Not touched before it is filled, so an announcement alone takes no memory.
        self._large = self._pool.take(size)
        self._large[:here] = self._shown[at : self._end]
        self._large_head, self._filled = (flags, command), here
        self._start, self._needed = self._end, HEADER

    def _take(self, flags: int, command: int, payload: Buffer, made: list[StreamMessage]) -> None:
        """Take a payload that may be a segment."""
        segment = flags & _SEGMENT
        self._passed += HEADER + len(payload)
        if segment == _FIRST:
            self._first = command
        if segment:
            small = len(payload) < _SMALL
            last = self._segments[-1] if self._segments else b""
            if small and isinstance(last, bytearray) and len(last) < _ROOM:
                last += payload
            else:
                self._segments.append(bytearray(payload) if small else payload)
            self._gathered += len(payload)
            if segment != _LAST:
                return
        parts = tuple(self._segments) if segment else (payload,)
        made.append(
            StreamMessage(command, False, bool(flags & _BIG), bool(flags & _FROM_SERVER), 0, parts)
        )
        self._period, self._passed = self._passed, 0
        self._first, self._segments, self._gathered = None, [], 0


def _no_message(magic: int) -> str:
    if magic != _MAGIC:
        return f"a message begins with 0x{magic:02X}, not with 0x{_MAGIC:02X}"
    return "version 0 of the protocol is not spoken"


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


def begin(command: int, size: int, first: bool, request: int, flags: int) -> bytes:
    """Begin of a little-endian message of a server that belongs to a request: header and number.

    Args:
        command: what it is.
        size: of the payload, or of that of the first segment.
        first: whether it is a first segment.
        request: number of the request.
        flags: that follow it.
    """
    kind = _FROM_SERVER | (_FIRST if first else 0)
    return _pack_begin(_MAGIC, VERSION, kind, command, size, request, flags)


def lay_out(
    command: int, parts: Sequence[Buffer], before: int
) -> tuple[int, bool, list[Buffer], int]:
    """The payload of a server's message, in segments if it has large arrays.

    Each array of 448 KiB or more is a segment of its own: it can be received where it is wanted.

    Args:
        command: of the message.
        parts: of the payload; the first and the last one are small.
        before: bytes of the payload that come before.

    Returns:
        size of the payload of the first segment, or of the message; whether there are segments;
        what is sent after the first header and what comes before; bytes of the whole message.
    """
    if len(parts) <= _FEW and (size := before + sum(map(len, parts))) < _OWN_SEGMENT:
        # It is not worth while to join what is small.
        return size, False, list(parts), HEADER + size
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
