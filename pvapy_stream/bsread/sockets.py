"""Ways in and out over ZeroMQ: bsread messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import zmq

from pvapy_stream.bsread.packing import Buffer, MessageLimits
from pvapy_stream.errors import TransportError
from pvapy_stream.transport.ports import PublisherCounts

Mode = Literal["pull", "sub"]
SendMode = Literal["push", "pub"]

_KINDS = {"pull": zmq.PULL, "sub": zmq.SUB, "push": zmq.PUSH, "pub": zmq.PUB}
LARGE = 64 * 1024  # bytes; smaller parts are cheaper copied than kept where they came
_LARGE_MESSAGE = 512 * 1024  # bytes
_LINGER = 3000  # ms; for what was sent and is not taken yet


class BsreadInput:
    """A socket that bsread messages come from; for one thread, which polls `socket`.

    Args:
        address: ``tcp://host:port`` of the sender.
        mode: ``pull``, or ``sub`` for senders that publish.
        hwm: messages that may wait in the socket.
        limits: what a message may hold; a peer that sends larger parts is disconnected.

    Raises:
        TransportError: the address is none.
    """

    def __init__(
        self, address: str, mode: Mode = "pull", hwm: int = 100, limits: MessageLimits | None = None
    ) -> None:
        self.address = address
        self._large = False
        limits = limits or MessageLimits()
        self.socket = _socket(mode)
        self.socket.rcvhwm = hwm
        self.socket.maxmsgsize = max(limits.value, limits.data_header)
        if mode == "sub":
            self.socket.subscribe(b"")
        _open(self.socket, self.socket.connect, address)

    def receive(self) -> list[Buffer] | None:
        """The next message's parts, or None when there is none now; large ones are not copied."""
        try:
            parts = self.socket.recv_multipart(zmq.NOBLOCK, copy=not self._large)
        except zmq.Again:
            return None
        if self._large:
            parts = [part.buffer if len(part) > LARGE else part.bytes for part in parts]
        # Many small parts are received in two thirds of the time when all are copied at once.
        self._large = sum(map(len, parts)) > _LARGE_MESSAGE
        return parts

    def close(self) -> None:
        """Let the sender go."""
        self.socket.close(0)


class BsreadSender:
    """Sends messages to whoever connects; for one thread.

    Args:
        address: ``tcp://interface:port`` to bind; port 0 or ``*`` takes a free one.
        mode: ``push``, each message to one receiver, or ``pub``, to all that are there.
        hwm: messages that may wait for a receiver.
        timeout: s to wait for a receiver that takes the message.

    Raises:
        TransportError: the address cannot be bound.
    """

    def __init__(
        self, address: str, mode: SendMode = "push", hwm: int = 10, timeout: float = 0.0
    ) -> None:
        # A context of its own: only its end waits until what was sent has left.
        self._context = zmq.Context()
        self._socket = _socket(mode, self._context)
        self._socket.sndhwm = hwm
        self._socket.sndtimeo = round(timeout * 1000)
        self._published = self._errors = 0
        address = address[:-2] + ":*" if address.endswith(":0") else address
        try:
            _open(self._socket, self._socket.bind, address)
        except TransportError:
            self._context.term()
            raise
        self.address: str = self._socket.last_endpoint.decode()

    @property
    def socket(self) -> Any:
        """The socket, to poll whether it takes a message."""
        return self._socket

    def publish(self, obj: Sequence[Buffer]) -> None:
        """Send the parts of a message.

        Raises:
            TransportError: nobody took it in time; that is counted.
        """
        if not self.offer(obj):
            self._errors += 1
            raise TransportError(
                f"{self.address}: no receiver takes the message; connect one, or send slower"
            )

    def offer(self, parts: Sequence[Buffer]) -> bool:
        """Send a message unless nobody takes it in time; whether it went."""
        try:
            self._socket.send_multipart(parts, copy=False)
        except zmq.Again:
            return False
        self._published += 1
        return True

    def stop(self) -> None:
        if self._socket.closed:
            return
        self._socket.close(_LINGER)
        self._context.term()

    def counts(self) -> PublisherCounts:
        return PublisherCounts(self._published, self._errors)


def _socket(mode: str, context: Any = None) -> Any:
    socket = (context or zmq.Context.instance()).socket(_KINDS[mode])
    socket.linger = 0
    # A host that vanishes without a word is noticed.
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle = 10
    socket.tcp_keepalive_intvl = 5
    socket.tcp_keepalive_cnt = 3
    return socket


def _open(socket: Any, how: Any, address: str) -> None:
    try:
        how(address)
    except (zmq.ZMQError, TypeError, UnicodeError) as error:
        socket.close(0)
        raise TransportError(
            f"cannot {how.__name__} {address!r}: {error}; write tcp://host:port, of a free port to"
            " bind it"
        ) from error
