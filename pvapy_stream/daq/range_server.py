"""Gives ranges of the ring to readers, each at its own pace."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import Any

import msgspec
import zmq

from pvapy_stream.bsread.stored import Stored
from pvapy_stream.daq import protocol
from pvapy_stream.daq.cursor import Gone, RangeCursor
from pvapy_stream.daq.ring import Ring
from pvapy_stream.errors import FileError, TransportError

# What one reader gets before the next one's turn.
_TURN_MESSAGES = 32
_TURN_BYTES = 8 * 2**20
_LARGEST_REQUEST = 4096  # bytes
_MOST_REQUESTS = 100  # in a turn
_FORGET_AFTER = 60.0  # s without a word of a reader
_INT64 = range(-(2**63), 2**63)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Reader:
    """One reader and its range.

    Attributes:
        messages, nbytes: what it still has room for, as it says.
        under_way: bytes sent that it has not acknowledged.
    """

    identity: bytes
    cursor: RangeCursor[Stored]
    messages: int
    nbytes: int
    heard: float
    answered: float = float("-inf")
    header: bytes | None = None
    under_way: int = 0


class RangeServer:
    """Serves ranges on a socket. For one thread.

    Args:
        ring: where the messages are.
        address: ``tcp://interface:port`` to bind; port 0 takes a free one.
        most_readers: at a time.
        window: bytes that may be on their way to one reader.

    Attributes:
        address: the address that was bound.
        sent: messages given to readers.
        errors: requests refused, and messages that could not be read from disk.

    Raises:
        TransportError: the address cannot be bound.
    """

    def __init__(
        self,
        ring: Ring[Stored],
        address: str,
        most_readers: int = 100,
        window: int = protocol.WINDOW_BYTES,
    ) -> None:
        self._ring = ring
        self._window = window
        self._most_readers = most_readers
        self._readers: dict[bytes, _Reader] = {}
        self.sent = self.errors = 0
        self.socket: Any = zmq.Context.instance().socket(zmq.ROUTER)
        self.socket.linger = 0
        # What may be under way is bounded by what readers ask for.
        self.socket.sndhwm = 0
        self.socket.router_mandatory = 1
        self.socket.maxmsgsize = _LARGEST_REQUEST
        address = address[:-2] + ":*" if address.endswith(":0") else address
        try:
            self.socket.bind(address)
        except (zmq.ZMQError, UnicodeError) as error:
            self.socket.close(0)
            raise TransportError(
                f"cannot bind {address!r} for ranges: {error}; write tcp://interface:port"
            ) from error
        self.address: str = self.socket.last_endpoint.decode()

    @property
    def readers(self) -> int:
        """Number of readers."""
        return len(self._readers)

    def close(self) -> None:
        """Let all readers go."""
        self._readers.clear()
        self.socket.close(0)

    def take_requests(self, now: float) -> None:
        """Do what readers ask for."""
        for _ in range(_MOST_REQUESTS):
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                request = protocol.decode_request(parts[-1])
                self._do(parts[0], request, now)
            except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
                self.errors += 1
                text = f"the request cannot be understood: {error}"
                self._send(parts[0], protocol.ERROR, protocol.encode(protocol.Error(text)))

    def _do(self, identity: bytes, request: protocol.Request, now: float) -> None:
        reader = self._readers.get(identity)
        if isinstance(request, protocol.Open):
            self._open(identity, request, now)
        elif reader is None:
            if isinstance(request, (protocol.More, protocol.StopAt)):
                # It was forgotten, or the buffer has started again since.
                text = "there is no open range; request one"
                error = protocol.Error(text, forgotten=True)
                self._send(identity, protocol.ERROR, protocol.encode(error))
        elif isinstance(request, protocol.Close):
            del self._readers[identity]
        else:
            reader.heard = now
            if isinstance(request, protocol.More):
                reader.messages += max(request.messages, 0)
                reader.nbytes += max(request.nbytes, 0)
                reader.under_way = max(0, reader.under_way - max(request.nbytes, 0))
            elif request.stop in _INT64:
                reader.cursor.set_stop(request.stop)

    def _open(self, identity: bytes, request: protocol.Open, now: float) -> None:
        start, stop = request.start, request.stop
        if any(end is not None and end not in _INT64 for end in (start, stop)):
            raise ValueError("start and stop must fit into 64 bits")
        if start is not None and stop is not None and stop < start:
            raise ValueError(f"stop {stop} is before start {start}")
        if identity not in self._readers and len(self._readers) >= self._most_readers:
            raise ValueError(f"there are already {self._most_readers} readers")
        cursor = RangeCursor(self._ring, request.by, start, stop)
        self._readers[identity] = _Reader(identity, cursor, request.messages, request.nbytes, now)

    def serve(self, now: float, silent: float | None) -> bool:
        """Give each reader its next messages; whether there is more to give at once.

        Args:
            now: s, on the ring's clock.
            silent: s since the last message of the source; None: never.
        """
        more = False
        for reader in list(self._readers.values()):
            if now - reader.heard > _FORGET_AFTER:
                _log.warning("a reader sent nothing for %.0f s and is removed", _FORGET_AFTER)
                self._forget(reader)
                continue
            if now - reader.answered > protocol.ALIVE_PERIOD:
                reader.answered = now
                alive = protocol.Alive(self._ring.pulses.newest, silent)
                self._send(reader.identity, protocol.ALIVE, protocol.encode(alive))
            more = self._turn(reader, now) or more
        return more

    def _turn(self, reader: _Reader, now: float) -> bool:
        cursor, left = reader.cursor, _TURN_BYTES
        for _ in range(_TURN_MESSAGES):
            if not self._has_room(reader) or left <= 0:
                break
            try:
                item = cursor.take(now)
            except FileError as error:
                self._skip(reader, error)
                continue
            if isinstance(item, Stored):
                size = self._give(reader, item)
                left -= size
            elif isinstance(item, Gone):
                self._tell_gone(reader, item)
            elif cursor.finished or cursor.waits:
                break
        if cursor.finished:
            self._send(reader.identity, protocol.END)
            self._forget(reader)
            return False
        return self._has_room(reader) and not cursor.waits

    def _has_room(self, reader: _Reader) -> bool:
        # What a reader asks for is its own limit; the window is that of our memory.
        return reader.messages > 0 and reader.nbytes > 0 and reader.under_way < self._window

    def _give(self, reader: _Reader, message: Stored) -> int:
        header = b"" if reader.header is message.header else message.header
        reader.header = message.header
        size = message.nbytes
        reader.messages -= 1
        reader.nbytes -= size
        reader.under_way += size
        self.sent += 1
        self._send(
            reader.identity, protocol.DATA, message.main, header, message.lengths, *message.blobs
        )
        return size

    def _tell_gone(self, reader: _Reader, gone: Gone) -> None:
        reply = protocol.GoneReply(gone.start, gone.stop, gone.reason)
        self._send(reader.identity, protocol.GONE, protocol.encode(reply))

    def _skip(self, reader: _Reader, error: FileError) -> None:
        """Pass over a message that cannot be read from disk."""
        self.errors += 1
        if self.errors == 1:
            _log.error("%s", error)
        value = reader.cursor.last_value
        self._tell_gone(reader, Gone(value, value, "dropped"))

    def _forget(self, reader: _Reader) -> None:
        self._readers.pop(reader.identity, None)

    def _send(self, identity: bytes, *parts: Any) -> None:
        # A reader that has gone without a word cannot be reached: its range goes with it.
        try:
            self.socket.send_multipart((identity, *parts), zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:
            with contextlib.suppress(KeyError):
                del self._readers[identity]
