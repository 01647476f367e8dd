"""Pushes the stream unchanged, beginning with the kept messages."""

from __future__ import annotations

import logging
from typing import Any

from pvapy_stream.bsread.sockets import BsreadSender
from pvapy_stream.bsread.stored import Stored
from pvapy_stream.daq.ring import Ring
from pvapy_stream.errors import FileError

# Messages that may be in the socket: they are lost if a receiver disconnects.
_HWM = 10
_TURN = 64

_log = logging.getLogger(__name__)


class PushOutput:
    """Pushes the messages of a ring to programs that pull. For one thread.

    Args:
        ring: where the messages are.
        address: ``tcp://interface:port`` to bind; port 0 takes a free one.

    Attributes:
        address: the address that was bound.
        sent: messages that a receiver took.
        lost: messages that the ring dropped before they were pulled.

    Raises:
        TransportError: the address cannot be bound.
    """

    def __init__(self, ring: Ring[Stored], address: str) -> None:
        self._ring = ring
        self._sender = BsreadSender(address, "push", _HWM)
        self._position = 0
        self.address = self._sender.address
        self.sent = self.lost = 0

    @property
    def socket(self) -> Any:
        """The socket, to poll whether a receiver takes a message."""
        return self._sender.socket

    @property
    def waits(self) -> bool:
        """Whether there is nothing to push."""
        return self._position >= self._ring.next

    @property
    def pending(self) -> int:
        """Messages that wait to be pushed."""
        return self._ring.next - max(self._position, self._ring.first)

    def push(self) -> bool:
        """Push what receivers take now; whether they may take more at once."""
        ring = self._ring
        for _ in range(_TURN):
            if self._position < ring.first:
                self.lost += ring.first - self._position
                self._position = ring.first
            if self._position >= ring.next:
                return False
            try:
                parts = ring.get(self._position).parts()
            except FileError as error:
                self.lost += 1
                self._position += 1
                _log.error("%s", error)
                continue
            if not self._sender.offer(parts):
                return False
            self._position += 1
            self.sent += 1
        return not self.waits

    def close(self) -> None:
        """Disconnect receivers."""
        self._sender.stop()
