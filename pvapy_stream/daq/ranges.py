"""Ranges of pulses from a buffer, in the past, the present or the future."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import msgspec
import zmq

from pvapy_stream.bsread.codec import ControlMessage, Decoder, Message, MessageLimits
from pvapy_stream.bsread.packing import Buffer
from pvapy_stream.bsread.sockets import LARGE
from pvapy_stream.bsread.stored import split
from pvapy_stream.daq import protocol
from pvapy_stream.daq.cursor import By, Gone
from pvapy_stream.daq.id_watch import IdWatch, Seen
from pvapy_stream.daq.ring import JUMP_NS, LATE_NS
from pvapy_stream.errors import BsreadError, SettingsError, TransportError

_TICK = 100  # ms; how soon `stop_at` and `close` are noticed
_KEEP_ALIVE = 5.0  # s
_ASK_AGAIN = 1.0  # s; how often a silent buffer is asked
# Taken messages are acknowledged together.
_ACKNOWLEDGE = protocol.WINDOW_MESSAGES // 8
_ACKNOWLEDGE_BYTES = 2**20

_log = logging.getLogger(__name__)

__all__ = ["Gone", "RangeReader", "read_range"]


def read_range(
    address: str,
    start: int | None,
    stop: int | None = None,
    *,
    by: By = "pulse_id",
    timeout: float = 10.0,
    limits: MessageLimits | None = None,
) -> RangeReader:
    """Request a range from a buffer; returns immediately, messages are received while reading.

    Args:
        address: the buffer's range port, ``tcp://host:port``.
        start: first pulse id, or time in ns; None: the next message.
        stop: the last one, included; None: until `RangeReader.stop_at` or `close`.
        by: ``pulse_id`` or ``time``.
        timeout: s without a message of the buffer after which reading fails.
        limits: maximum sizes of unpacked values.

    Raises:
        SettingsError: stop is before start, or `by` is unknown.
        TransportError: the address is invalid.
    """
    if by not in ("pulse_id", "time"):
        raise SettingsError(f"by is {by!r}; it must be 'pulse_id' or 'time'")
    if start is not None and stop is not None and stop < start:
        raise SettingsError(f"stop {stop} is before start {start}")
    return RangeReader(address, protocol.Open(by, start, stop), timeout, limits)


class RangeReader:
    """The messages of one range. One thread reads; others may call `stop_at` and `close`.

    Attributes:
        gone: requested pulses that will not arrive.
        finished: whether every pulse was delivered or is in `gone`, or the reader is closed.
        newest: newest pulse id in the buffer; None before the first.
        delivered: messages delivered.
    """

    def __init__(
        self, address: str, request: protocol.Open, timeout: float, limits: MessageLimits | None
    ) -> None:
        self.address = address
        self.gone: list[Gone] = []
        self.finished = False
        self.newest: int | None = None
        self.delivered = 0
        self._timeout = timeout
        self._decoder = Decoder(limits)
        self._header: Buffer = b""
        self._heard = time.monotonic()
        self._source_heard = float("-inf")
        self._taken = self._taken_bytes = 0
        self._said = self._heard
        self._stop: int | None = None
        self._asked = request
        self._last = request.stop
        self._by: By = request.by
        # Position from which the range is requested again after a restart of the buffer; it must
        # not depend on an outlier.
        self._taken_ids = IdWatch() if self._by == "pulse_id" else IdWatch(LATE_NS, JUMP_NS)
        self._closed = threading.Event()
        self._socket: Any = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.rcvhwm = 0  # the window bounds it
        self._socket.immediate = 1
        self._request: protocol.Open | None = request
        try:
            self._socket.connect(address)
        except (zmq.ZMQError, UnicodeError, TypeError) as error:
            self._socket.close(0)
            raise TransportError(
                f"cannot connect {address!r}: {error}; write tcp://host:port"
            ) from error

    @property
    def silent(self) -> float:
        """Seconds since the buffer last received a message from its source; may be infinite."""
        return time.monotonic() - self._source_heard

    def __enter__(self) -> RangeReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        self._end()

    def __iter__(self) -> Iterator[Message]:
        while not self.finished:
            message = self.read(_KEEP_ALIVE)
            if message is not None:
                yield message

    def stop_at(self, stop: int) -> None:
        """Set or change the last pulse id or time."""
        self._stop = stop

    def close(self) -> None:
        """End the request."""
        self._closed.set()

    def read(self, timeout: float) -> Message | None:
        """The next message; None if none arrived within `timeout` s, or the range has ended.

        Raises:
            TransportError: the buffer sent nothing for too long, or refuses the range.
        """
        deadline = time.monotonic() + timeout
        while not self.finished:
            now = time.monotonic()
            self._speak(now)
            if self._closed.is_set():
                self._end()
                break
            wait = min(max(0, round((deadline - now) * 1000)), _TICK)
            # Until the request is sent, wait for the buffer's connection too.
            asked = zmq.POLLIN if self._request is None else zmq.POLLIN | zmq.POLLOUT
            if self._socket.poll(wait, asked) & zmq.POLLIN:
                frames = self._socket.recv_multipart(copy=False)
                message = self._take([f.buffer if len(f) > LARGE else f.bytes for f in frames])
                if message is not None:
                    return message
            elif now - self._heard > self._timeout:
                self._end()
                raise TransportError(
                    f"the buffer at {self.address} sent nothing for {self._timeout:g} s; check"
                    " that it runs, and that this is its range port"
                )
            if time.monotonic() >= deadline:
                break
        return None

    def _speak(self, now: float) -> None:
        """Send pending requests, as soon as the buffer is connected."""
        if self._request is not None:
            if not self._send(self._request):
                return
            self._request = None
            self._said = now
        if self._stop is not None and self._send(protocol.StopAt(self._stop)):
            self._last, self._stop = self._stop, None
        due = self._taken >= _ACKNOWLEDGE or self._taken_bytes >= _ACKNOWLEDGE_BYTES
        patience = _ASK_AGAIN if now - self._heard > _ASK_AGAIN else _KEEP_ALIVE
        if (due or now - self._said > patience) and self._send(
            protocol.More(self._taken, self._taken_bytes)
        ):
            self._said = now
            self._taken = self._taken_bytes = 0

    def _send(self, request: protocol.Request) -> bool:
        try:
            self._socket.send(protocol.encode(request), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _take(self, parts: list[Buffer]) -> Message | None:
        self._heard = time.monotonic()
        kind, rest = parts[0], parts[1:]
        try:
            if kind == protocol.DATA:
                return self._message(rest)
            if kind == protocol.GONE:
                gone = protocol.decode_gone(rest[0])
                self.gone.append(Gone(gone.start, gone.stop, gone.reason))
            elif kind == protocol.ALIVE:
                alive = protocol.decode_alive(rest[0])
                self.newest = alive.newest
                if alive.silent is not None:
                    self._source_heard = self._heard - alive.silent
            elif kind == protocol.END:
                self._end()
            elif kind == protocol.ERROR:
                self._take_error(protocol.decode_error(rest[0]))
        except (msgspec.DecodeError, UnicodeError, IndexError) as error:
            self._end()
            raise TransportError(
                f"{self.address} does not follow the protocol of a buffer's range port: {error}"
            ) from error
        return None

    def _take_error(self, error: protocol.Error) -> None:
        if not error.forgotten:
            self._end()
            raise TransportError(f"the buffer at {self.address}: {error.error}")
        if self._request is None:
            # It has restarted: request the rest of the range.
            _log.warning("the buffer at %s has restarted", self.address)
            asked = self._asked
            newest = self._taken_ids.newest
            start = asked.start if newest is None else newest + 1
            if self._last is not None and start is not None and start > self._last:
                self._end()
                return
            self._request = protocol.Open(self._by, start, self._last)
            self._taken = self._taken_bytes = 0

    def _message(self, rest: list[Buffer]) -> Message | None:
        self._taken += 1
        self._taken_bytes += len(rest[0]) + sum(map(len, rest[3:]))
        self._header = rest[1] or self._header
        try:
            parts = [rest[0], self._header, *split(rest[2], rest[3:])]
            message = self._decoder.decode(parts)
        except (BsreadError, ValueError) as error:
            _log.error("%s: a message is malformed: %s", self.address, error)
            self._note_malformed(rest[0])
            return None
        if isinstance(message, ControlMessage):
            return None
        value = message.pulse_id if self._by == "pulse_id" else message.timestamp_ns
        last = self._stop if self._stop is not None else self._last
        if value is not None:
            if last is not None and value > last:
                # The stop was set while the message was in transfer.
                return None
            seen = self._taken_ids.see(value)
            if seen is not Seen.DOUBTED and self._by == "pulse_id":
                self.newest = max(value, self.newest or value)
        self.delivered += 1
        return message

    def _note_malformed(self, main: Buffer) -> None:
        try:
            head = self._decoder.main(main)
        except BsreadError:
            return
        if isinstance(head, ControlMessage):
            return
        value = head.pulse_id if self._by == "pulse_id" else head.timestamp_ns or 0
        self.gone.append(Gone(value, value, "malformed"))

    def _end(self) -> None:
        if not self.finished:
            self.finished = True
            self._send(protocol.Close())
            # The message needs time to be sent; this does not wait for it.
            self._socket.close(200)
