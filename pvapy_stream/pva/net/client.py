"""The client: one thread that searches, connects, and sends the requests of all channels."""

from __future__ import annotations

import logging
import threading

from pvapy_stream.pva.net.client_channel import ClientChannel
from pvapy_stream.pva.net.client_search import LONGEST, RETURNS, Searcher
from pvapy_stream.pva.net.environment import Address, ClientSettings
from pvapy_stream.pva.net.loop import Loop
from pvapy_stream.pva.net.server_link import ServerLink
from pvapy_stream.pva.net.server_program import ServerPrograms
from pvapy_stream.pva.wire.searching import SearchReply

_TICK = 0.5  # s; between looks for servers that do not answer

_log = logging.getLogger(__name__)


class Client:
    """Makes channels; those of one server share a connection.

    Args:
        settings: where it searches; as the environment says if not given.
    """

    def __init__(self, settings: ClientSettings | None = None) -> None:
        settings = ClientSettings.of() if settings is None else settings
        self._lock = threading.Lock()
        self._last = 0
        self._channels: dict[int, ClientChannel] = {}
        self._links: dict[Address, ServerLink] = {}
        self._next_look = 0.0
        self._loop = Loop("pva-client", self._look, self._close)
        self._searcher = Searcher(self._loop.watch, settings, self._found)
        self.call = self._loop.call
        self.ask = ServerPrograms(self.call).ask
        self._loop.start()

    # -- any thread ------------------------------------------------------------------------------

    def channel(self, name: str) -> ClientChannel:
        """A channel; it is searched for from now on."""
        with self._lock:
            self._last += 1
            made = ClientChannel(self, name, self._last)

        def begin() -> None:
            self._channels[made.number] = made
            made.search()

        self.call(begin)
        return made

    def stop(self) -> None:
        """End; channels that are not closed are lost."""
        self._loop.stop()

    # -- the client's thread ---------------------------------------------------------------------

    def search(self, channel: ClientChannel, pause: float) -> None:
        """Search for a channel."""
        if channel.number in self._channels:
            longest = RETURNS if channel.was_there else LONGEST
            self._searcher.add(channel.number, channel.name, pause, longest)

    def forget(self, channel: ClientChannel) -> None:
        """A channel is needed no more."""
        self._channels.pop(channel.number, None)
        self._searcher.remove(channel.number)

    def _found(self, number: int, reply: SearchReply) -> None:
        channel = self._channels.get(number)
        if channel is None:
            self._searcher.remove(number)
            return
        address = reply.address, reply.port
        known = self._links.get(address)
        try:
            link = known or ServerLink(self._loop.watch, address, self._forget, lambda reply: None)
        except OSError as error:
            # It is searched for as before.
            channel.why = f"no connection can be made: {error}"
            _log.warning("channel %s: %s", channel.name, channel.why)
            return
        self._searcher.remove(number)
        self._links[address] = link
        channel.open(link, reply.identity)
        if known is None:
            link.begin()

    def _forget(self, link: ServerLink, reason: str) -> None:
        if self._links.get(link.address) is link:
            del self._links[link.address]

    def _look(self, now: float) -> float:
        if now >= self._next_look:
            self._next_look = now + _TICK
            for link in list(self._links.values()):
                link.check(now)
            for channel in list(self._channels.values()):
                channel.check(now)
        return min(self._searcher.search(now), self._next_look - now)

    def _close(self) -> None:
        for channel in list(self._channels.values()):
            channel.close()
        self._channels.clear()
        for link in list(self._links.values()):
            link.close("the client ends")
        self._searcher.close()


class _Shared:
    """The client of this process, made when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: Client | None = None

    def channel(self, name: str) -> ClientChannel:
        with self._lock:
            if self._client is None:
                self._client = Client()
            return self._client.channel(name)


_shared = _Shared()


def channel(name: str) -> ClientChannel:
    """A channel of the one client of this process; it is searched for from now on."""
    return _shared.channel(name)
