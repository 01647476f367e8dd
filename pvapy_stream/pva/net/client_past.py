"""A client's request for updates that a server published before, see `pva.net.past_request`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pvapy_stream.pva.net.client_monitor import ClientMonitor, Follower, Watched
from pvapy_stream.pva.net.kept_updates import OFFERED
from pvapy_stream.pva.wire import operations
from pvapy_stream.pva.wire.descriptions import Incoming
from pvapy_stream.pva.wire.operations import Reply
from pvapy_stream.pva.wire.stream import StreamMessage
from pvapy_stream.pva.wire.types import AnyValue

NOT_OFFERED = "its server keeps no past"

_FLAGS_AT = 4  # first byte of the flags in the payload, after the number of the request


class PastFollower(Follower, Protocol):
    """Gets the events of such a request, in the client's thread."""

    def ended(self, text: str) -> None:
        """All was sent that there is; the text names what there is no more."""
        ...


class PastMonitor(ClientMonitor):
    """A monitor that is set up once, and ends by itself.

    Args:
        place: the channel.
        asked: the pvRequest, with the ids.
        follower: gets its events.
        remove: called when the channel need not keep it any more.
    """

    def __init__(
        self,
        place: Watched,
        asked: AnyValue,
        follower: PastFollower,
        remove: Callable[[PastMonitor], None],
    ) -> None:
        super().__init__(place, asked, follower)
        self._past_follower = follower
        self._remove = remove

    def take(self, found: StreamMessage, known: Incoming) -> None:
        payload = found.payload
        flags = payload[0][_FLAGS_AT] if payload and len(payload[0]) > _FLAGS_AT else 0
        if flags:
            reader = found.reader()
            status = Reply.read(reader).status
            if flags & operations.DESTROY and status.done:
                self.close("all was sent")
                self._remove(self)
                self._past_follower.ended(status.text)
                return
            if flags & operations.INIT and status.done and status.text != OFFERED:
                # It is a plain monitor there: the option is not known. The type must be read, as
                # others may refer to it.
                known.need(reader)
                self.close(NOT_OFFERED)
                self._remove(self)
                self._past_follower.refused(NOT_OFFERED)
                return
        super().take(found, known)
