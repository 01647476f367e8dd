"""The server: one thread that listens, reads, writes, and answers searches."""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable, Mapping

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.net.base_link import Link, keep_alive, let_arrive
from pvapy_stream.pva.net.connection import Connection
from pvapy_stream.pva.net.datagrams import Datagrams
from pvapy_stream.pva.net.environment import SERVER_PORT, Address, ServerSettings
from pvapy_stream.pva.net.loop import Loop
from pvapy_stream.pva.net.server_channel import Channel, Value
from pvapy_stream.pva.net.server_rpc import NAME, server_channel
from pvapy_stream.pva.wire.buffers import Writer
from pvapy_stream.pva.wire.limits import DEFAULT, Limits
from pvapy_stream.pva.wire.searching import ANY, REPLY_REQUIRED, Search, SearchReply

_CONNECTIONS = 500
_TICK = 0.5  # s; between looks for clients that are too slow
_LAST = 5.0  # s; for what is under way to clients at the end

_log = logging.getLogger(__name__)


class Server:
    """Serves channels to PVAccess clients.

    Channels may be added and removed by any thread, before the start too.

    Args:
        settings: where it listens; as the environment says if not given.
        limits: of what each client may send.
        version: for clients that ask.
        connections: how many clients it has at most.

    Attributes:
        port: TCP; 0 before the start.
        identity: 12 bytes; others after each start.
        elsewhere: TCP ports of channels that another server of this program has. Clients that
            search by TCP get, as they ask one server of a program only.
    """

    def __init__(
        self,
        settings: ServerSettings | None = None,
        limits: Limits = DEFAULT,
        version: str = "",
        connections: int = _CONNECTIONS,
    ) -> None:
        self.limits = limits
        self.port = 0
        self.identity = os.urandom(12)
        self.elsewhere: Mapping[str, int] = {}
        self._other_identity = os.urandom(12)
        self._settings = ServerSettings.of() if settings is None else settings
        self._most = connections
        # Replaced when it changes: other threads look into it.
        self._channels: dict[str, Channel] = {NAME: server_channel(self._names, version)}
        self._lock = threading.Lock()
        self._changes = 0
        self._connections: set[Connection] = set()
        self._listener: socket.socket | None = None
        self._datagrams: Datagrams | None = None
        self._next_look = 0.0
        self._cannot_accept = ""  # why nobody is accepted until the next look
        self.loop = Loop("pva-server", self._look, self._close)
        self.call = self.loop.call
        self.watch = self.loop.watch

    # -- any thread ------------------------------------------------------------------------------

    @property
    def channels(self) -> Mapping[str, Channel]:
        """Channels by name, ``server`` too."""
        return self._channels

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def start(self) -> None:
        """Listen.

        Raises:
            TransportError: there is no port to listen at.
        """
        self._listener = self._listen()
        self.port = self._listener.getsockname()[1]
        self._datagrams = Datagrams(self._settings, self.answer)
        self.watch(self._listener, selectors.EVENT_READ, self._accept)
        for link in self._datagrams.sockets:
            self.watch(link, selectors.EVENT_READ, self._reader(link))
        self.loop.start()

    def stop(self) -> None:
        """End; clients get a message."""
        self.loop.stop()

    def add(self, channel: Channel) -> None:
        """Serve a channel.

        Raises:
            TransportError: there is one of this name.
        """
        with self._lock:
            if channel.name in self._channels:
                raise TransportError(f"channel {channel.name} is served by this program already")
            self._channels = {**self._channels, channel.name: channel}
        self.call(self._changed)

    def remove(self, name: str) -> None:
        """Remove a channel; its clients get a message."""
        with self._lock:
            channel = self._channels.get(name)
            self._channels = {key: one for key, one in self._channels.items() if key != name}
        if channel is not None:
            self.call(lambda: self._drop(channel))

    def update(self, channel: Channel, value: Value, bits: int = 1) -> None:
        """Replace the structure of a channel; see `Channel.update`."""
        self.call(lambda: channel.update(value, bits))

    def _names(self) -> list[str]:
        return [name for name in self._channels if name != NAME]

    # -- the server's thread ---------------------------------------------------------------------

    def answer(self, search: Search) -> Writer | None:
        """The reply to a search, if there is one."""
        found = tuple(number for number, name in search.channels if name in self._channels)
        if not found and search.channels and not search.flags & REPLY_REQUIRED:
            return None
        # Asked for none, a server says only that it is there.
        numbers = found or tuple(number for number, _ in search.channels)
        writer = Writer()
        address, port = self._where
        SearchReply(self.identity, search.sequence, address, port, bool(found), numbers).write(
            writer
        )
        return writer

    def answers_elsewhere(self, search: Search) -> list[Writer]:
        """Replies to a search by TCP that name another server of this program."""
        ports: dict[int, list[int]] = {}
        for number, name in search.channels:
            if name not in self._channels and (port := self.elsewhere.get(name)):
                ports.setdefault(port, []).append(number)
        made: list[Writer] = []
        for port, numbers in ports.items():
            made.append(Writer())
            SearchReply(
                self._other_identity, search.sequence, self._where[0], port, True, tuple(numbers)
            ).write(made[-1])
        return made

    def forget(self, connection: Link) -> None:
        """A connection is closed."""
        self._connections = {one for one in self._connections if one is not connection}

    @property
    def _where(self) -> Address:
        interfaces = self._settings.interfaces
        return (interfaces[0] if len(interfaces) == 1 else ANY), self.port

    def _listen(self) -> socket.socket:
        host, why = self._where[0], ""
        for port in (self._settings.port, 0):
            link = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                link.bind((host, port))
                link.listen(128)
            except OSError as error:
                link.close()
                if port and error.errno in (errno.EADDRINUSE, errno.EACCES):
                    why = error.strerror
                    continue
                raise TransportError(
                    f"cannot serve PVA channels at {host}:{port}: {error}; check"
                    " EPICS_PVAS_INTF_ADDR_LIST"
                ) from error
            link.setblocking(False)
            if why:
                self._tell_of_other_port(why, link.getsockname()[1])
            return link
        raise TransportError(f"cannot serve PVA channels at {host}: no port is free")

    def _tell_of_other_port(self, why: str, port: int) -> None:
        # Of several programs of a host, all but one are at other ports than the usual one.
        chosen = self._settings.port != SERVER_PORT
        _log.log(
            logging.WARNING if chosen else logging.INFO,
            "port %d of EPICS_PVAS_SERVER_PORT cannot be used: %s; channels are served at port %d"
            " instead, where clients that have only name servers (EPICS_PVA_NAME_SERVERS) do not"
            " look for them",
            self._settings.port, why, port,
        )  # fmt: skip

    def _look(self, now: float) -> float:
        if now >= self._next_look:
            self._next_look = now + _TICK
            for connection in list(self._connections):
                connection.check(now)
            if self._cannot_accept and self._listener is not None:
                self.watch(self._listener, selectors.EVENT_READ, self._accept)
        if self._datagrams is None:
            return _TICK
        return self._datagrams.beacon(now, self.identity, self._changes, self._where)

    def _reader(self, link: socket.socket) -> Callable[[int], None]:
        def read(events: int) -> None:
            if self._datagrams is not None:
                self._datagrams.read(link)

        return read

    def _accept(self, events: int) -> None:
        if self._listener is None:
            return
        try:
            link, peer = self._listener.accept()
        except OSError as error:
            # It would wait there all the time, and take all of ours.
            self.watch(self._listener, 0, self._accept)
            if str(error) != self._cannot_accept:
                self._cannot_accept = str(error)
                _log.warning("a client cannot be accepted: %s", error)
            return
        self._cannot_accept = ""
        if len(self._connections) >= self._most:
            _log.warning("client %s is refused: there are %d", peer[0], self._most)
            link.close()
            return
        try:
            link.setblocking(False)
            keep_alive(link)
        except OSError:
            # It has gone already.
            link.close()
            return
        connection = Connection(self, link, f"{peer[0]}:{peer[1]}")
        self._connections.add(connection)
        connection.begin()

    def _changed(self) -> None:
        self._changes += 1
        if self._datagrams is not None:
            self._datagrams.beacon_soon()

    def _drop(self, channel: Channel) -> None:
        self._changed()
        for connection in list(self._connections):
            connection.drop(channel)

    def _close(self) -> None:
        if self._datagrams is not None:
            # First: it would get searches that are meant for other servers of the host.
            self._datagrams.close()
        connections = list(self._connections)
        for connection in connections:
            connection.handle(selectors.EVENT_WRITE)
        let_arrive([one.link for one in connections if not one.closed], _LAST)
        for connection in connections:
            connection.close("the server ends")
        if self._listener is not None:
            self._listener.close()
