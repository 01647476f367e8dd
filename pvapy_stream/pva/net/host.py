"""What the connection of a client needs of its server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Protocol

from pvapy_stream.pva.net.base_link import Link
from pvapy_stream.pva.net.server_channel import Channel
from pvapy_stream.pva.wire.buffers import Writer
from pvapy_stream.pva.wire.limits import Limits
from pvapy_stream.pva.wire.searching import Search


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

    def watch(self, link: socket.socket, events: int, handle: Callable[[int], None]) -> None:
        """Call a function at these events of a socket."""
        ...

    def forget(self, connection: Link) -> None:
        """The connection is closed."""
        ...

    def answer(self, search: Search) -> Writer | None:
        """The reply to a search, if there is one."""
        ...

    def answers_elsewhere(self, search: Search) -> list[Writer]:
        """Replies that name another server of the program."""
        ...
