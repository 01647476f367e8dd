"""What the connection of a client needs of its server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Protocol

from pvapy_stream.pva.net.channel import Channel
from pvapy_stream.pva.wire.buffers import Writer
from pvapy_stream.pva.wire.limits import Limits
from pvapy_stream.pva.wire.searching import Search


class Watched(Protocol):
    """A connection, as the server sees it."""

    link: socket.socket

    def handle(self, events: int) -> None:
        """Read and write what can be."""
        ...


class Host(Protocol):
    """The server, as a connection sees it."""

    limits: Limits

    @property
    def channels(self) -> Mapping[str, Channel]:
        """Channels by name."""
        ...

    def call(self, function: Callable[[], None]) -> None:
        """Call the function in the server's thread."""
        ...

    def watch(self, connection: Watched, events: int) -> None:
        """Call `handle` of the connection at these events."""
        ...

    def forget(self, connection: Watched) -> None:
        """The connection is closed."""
        ...

    def answer(self, search: Search) -> Writer | None:
        """The reply to a search, if there is one."""
        ...
