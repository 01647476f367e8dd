"""A monitor of a client: updates of a channel for as long as it is there, and again when it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from pvapy_stream.errors import WireError
from pvapy_stream.pva.net.client_requests import Place
from pvapy_stream.pva.net.distributor import asked_share
from pvapy_stream.pva.net.server_link import ServerLink
from pvapy_stream.pva.net.sharing import Sharing
from pvapy_stream.pva.wire import operations, request, values
from pvapy_stream.pva.wire.buffers import Buffer
from pvapy_stream.pva.wire.descriptions import Incoming
from pvapy_stream.pva.wire.operations import Reply
from pvapy_stream.pva.wire.status import Status
from pvapy_stream.pva.wire.stream import Command, StreamMessage
from pvapy_stream.pva.wire.types import AnyValue, Structure

_FLAGS_AT = 4  # first byte of the flags in the payload, after the number of the request

_log = logging.getLogger(__name__)


class Follower(Protocol):
    """Gets the events of a monitor, in the client's thread."""

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

    def unshared(self, reason: str) -> None:
        """The server cannot give a share of the updates, as asked; nothing is asked of it."""
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

    def find_out(self, link: ServerLink) -> None:
        """Find out `link.paces`, and call `step` again then."""
        ...

    def find_sharing(self, link: ServerLink, then: Callable[[Sharing], None]) -> None:
        """Find out whether the server shares updates out."""
        ...


_AGAIN = 2.0  # s; until a server that has refused a monitor is asked again
_SET_UP = 10.0  # s; a server sets a monitor up within this
_ENDS = "pvRecord is deleted"  # so pvDatabaseCPP refuses what comes as a channel is removed
_WINDOW = 4  # updates that are under way, for a request without a queue size
_LARGEST_WINDOW = 2**16


class ClientMonitor:
    """A request for updates. Used by the client's thread alone.

    With the option ``pipeline``, updates are acknowledged when the follower has taken them, and the
    server waits. Servers that do not do this right are asked without it. A server that does not
    know the distributor is never asked for a share: it would refuse, or send everything.

    Args:
        place: the channel.
        asked: the pvRequest.
        follower: gets its events.
    """

    def __init__(self, place: Watched, asked: AnyValue, follower: Follower) -> None:
        self._place = place
        self._asked = asked
        self._plain = request.without(asked, "pipeline")
        self._window = _window(asked)
        # That are acknowledged together, if they are.
        self._half = (self._window + 1) // 2 or _LARGEST_WINDOW
        self._follower = follower
        self._share = asked_share(asked) is not None
        self._sharing: ServerLink | None = None  # who was asked whether it shares updates out
        self._shares = False  # and answered that it does
        self._paced = False
        self._taken = 0  # since some were acknowledged
        self._number = 0
        self._asked_at = 0.0
        self._running = False

    def step(self) -> None:
        """Set it up if the channel is there."""
        link = self._place.link
        if link is None or self._number:
            return
        if self._window and link.paces is None:
            self._place.find_out(link)
            return
        if self._share and not self._shares:
            if self._sharing is not link:
                self._sharing = link
                self._place.find_sharing(link, self._found_sharing)
            return
        self._paced = bool(self._window and link.paces)
        self._taken = 0
        self._number = link.new_monitor(self.take)
        writer = link.writer()
        flags = operations.INIT | (operations.PIPELINE if self._paced else 0)
        operations.RequestHead(self._place.server_id, self._number, flags).write(writer)
        values.write_any(self._asked if self._paced else self._plain, writer, link.outgoing)
        if self._paced:
            writer.number("I", self._window)
        link.send(Command.MONITOR, writer)
        self._asked_at = time.monotonic()

    def check(self, now: float) -> None:
        """Connect anew if the server does not set it up."""
        link = self._place.link
        if link is None or not self._number or self._running or now - self._asked_at < _SET_UP:
            return
        # What else it answers on this connection could not be understood without that reply.
        link.close(f"it did not set up the monitor of channel {self._place.name} in {_SET_UP:g} s")

    def _found_sharing(self, found: Sharing) -> None:
        if not found.why:
            self._shares = True
            self.step()
            return
        self._follower.unshared(found.why)
        if not found.answered:
            self._sharing = None
            self._place.retry(_AGAIN)

    def take(self, found: StreamMessage, known: Incoming) -> None:
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
            self._taken += 1
            if self._taken >= self._half:
                self._acknowledge()
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
        head = operations.RequestHead(self._place.server_id, self._number, operations.START)
        head.write(writer)
        link.send(Command.MONITOR, writer)

    def _acknowledge(self) -> None:
        taken, self._taken = self._taken, 0
        link = self._place.link
        if link is None or not self._paced:
            return
        writer = link.writer()
        head = operations.RequestHead(self._place.server_id, self._number, operations.PIPELINE)
        head.write(writer)
        writer.number("I", taken)
        link.send(Command.MONITOR, writer)

    def _refused(self, status: Status | None) -> None:
        link = self._place.link
        if link is not None:
            link.end_request(self._number)
        self._number, self._running = 0, False
        if status is None:
            self._follower.lost("the server has ended the monitor")
        elif status.text == _ENDS:
            self._follower.lost("the server is about to end the channel")
        else:
            self._follower.refused(status.text or "the server gives no reason")
        self._place.retry(_AGAIN)

    def lost(self, reason: str, link: ServerLink) -> None:
        """The channel is no more on this connection."""
        link.end_request(self._number)
        self._sharing, self._shares = None, False
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


def _window(asked: AnyValue) -> int:
    """How many updates may be under way; 0: they are not acknowledged."""
    options = request.options(asked)
    if options.get("pipeline") != "true":
        return 0
    size = options.get("queueSize", "")
    wanted = int(size) if size.isascii() and size.isdigit() else _WINDOW
    return min(max(wanted, 2), _LARGEST_WINDOW)
