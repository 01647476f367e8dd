"""A monitor of a client: updates of a channel for as long as it is there, and again when it is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net.client_requests import Place
from pvapy_stream.pva.wire import operations, values
from pvapy_stream.pva.wire.buffers import Buffer
from pvapy_stream.pva.wire.descriptions import Incoming
from pvapy_stream.pva.wire.operations import Reply
from pvapy_stream.pva.wire.status import Status
from pvapy_stream.pva.wire.stream import Command, Message
from pvapy_stream.pva.wire.types import AnyValue, Structure

_FLAGS_AT = 4  # first byte of the flags in the payload, after the number of the request

_log = logging.getLogger(__name__)


class Follower(Protocol):
    """What is told of a monitor, in the client's thread."""

    def began(self, kind: Structure, known: Incoming, identity: bytes) -> None:
        """The monitor is set up.

        Args:
            kind: type of the updates.
            known: types that the server has numbered; it goes on numbering them.
            identity: of the server, another one after each of its starts; b"" if unknown.
        """
        ...

    def update(self, payload: Sequence[Buffer], big: bool) -> None:
        """An update: the payload of its message, and whether it is big-endian.

        Raises:
            WireError: it is malformed; the connection is closed.
        """
        ...

    def refused(self, reason: str) -> None:
        """The server does not give this monitor; it is asked again later."""
        ...

    def lost(self, reason: str) -> None:
        """The channel is gone; it is searched for."""
        ...


class Watched(Place, Protocol):
    """What a monitor needs of its channel."""

    @property
    def identity(self) -> bytes:
        """Of the server."""
        ...

    def retry(self, seconds: float) -> None:
        """Call `step` again after some time."""
        ...


_AGAIN = 2.0  # s; until a server that has refused a monitor is asked again


class Monitor:
    """A request for updates. Used by the client's thread alone.

    Args:
        place: the channel.
        asked: the pvRequest.
        follower: is told what happens.
    """

    def __init__(self, place: Watched, asked: AnyValue, follower: Follower) -> None:
        self._place = place
        self._asked = asked
        self._follower = follower
        self._number = 0
        self._running = False

    def step(self) -> None:
        """Set it up if the channel is there."""
        link = self._place.link
        if link is None or self._number:
            return
        self._number = link.new_monitor(self.take)
        writer = link.writer()
        operations.Request(self._place.server_id, self._number, operations.INIT).write(writer)
        values.write_any(self._asked, writer, link.outgoing)
        link.send(Command.MONITOR, writer)

    def take(self, found: Message, known: Incoming) -> None:
        """A message of the server.

        Raises:
            WireError: it is malformed.
        """
        payload = found.payload
        flags = payload[0][_FLAGS_AT] if payload and len(payload[0]) > _FLAGS_AT else -1
        if not flags:
            if not self._running:
                raise WireError(
                    f"channel {self._place.name}: its monitor has updates and is not set up"
                )
            self._follower.update(payload, found.big)
            return
        reader = found.reader()
        reply = Reply.read(reader)
        if flags & operations.DESTROY:
            self._refused(reply.status if not reply.status.done else None)
        elif flags & operations.INIT:
            if not reply.status.done:
                self._refused(reply.status)
                return
            kind = known.need(reader)
            if not isinstance(kind, Structure):
                raise WireError(f"channel {self._place.name} is no structure")
            self._follower.began(kind, known, self._place.identity)
            self._start()

    def _start(self) -> None:
        link = self._place.link
        if link is None:
            return
        self._running = True
        writer = link.writer()
        head = operations.Request(self._place.server_id, self._number, operations.START)
        head.write(writer)
        link.send(Command.MONITOR, writer)

    def _refused(self, status: Status | None) -> None:
        link = self._place.link
        if link is not None:
            link.end_request(self._number)
        self._number, self._running = 0, False
        if status is None:
            self._follower.lost("the server has ended the monitor")
        else:
            self._follower.refused(status.text or "the server gives no reason")
        self._place.retry(_AGAIN)

    def lost(self, reason: str, sent: int) -> None:
        """The channel has gone."""
        self._number, self._running = 0, False
        self._follower.lost(reason)

    def close(self, reason: str) -> None:
        """It is used no more."""
        link = self._place.link
        if link is None or not self._number:
            return
        writer = link.writer()
        operations.RequestId(self._place.server_id, self._number).write(writer)
        link.send(Command.DESTROY_REQUEST, writer)
        link.end_request(self._number)
        self._number, self._running = 0, False
