"""Filtered ids of a mirror's source: not missed, and passed on."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pvaccess as pva

from pvapy_stream.transport.filtered_ids import Filtered, FilteredChannel, FilteredReceiver
from pvapy_stream.transport.ports import Return


class FilteredRelay:
    """Receives the filtered ids of a source, and passes them on.

    The mirror's own channel for them exists once the source is known to be a stage.

    Args:
        source: the channel that is mirrored.
        mirror: the channel that is shown.
        server: the binding's server for the mirror.
        take: called with new ids, in the binding's thread.
        hosted: called with the name of the mirror's own channel when it exists.
    """

    def __init__(
        self,
        source: str,
        mirror: str,
        server: pva.PvaServer,
        take: Callable[[Filtered], None],
        hosted: Callable[[str], None],
    ) -> None:
        self._mirror = mirror
        self._server = server
        self._take = take
        self._hosted = hosted
        self._receiver = FilteredReceiver(source, self._hear)
        self._channel: FilteredChannel | None = None
        self._untold: list[Filtered] = []
        self._lock = threading.Lock()

    def _hear(self, news: Filtered) -> None:
        self._take(news)
        with self._lock:
            self._untold.append(news)

    def keep_up(self, connected: bool) -> None:
        """Search for the source's channel and pass on; called a few times a second."""
        self._receiver.keep_up(connected)
        if not self._receiver.found:
            return
        if self._channel is None:
            self._channel = FilteredChannel(self._server, self._mirror)
            self._hosted(self._channel.name)
        with self._lock:
            untold, self._untold = self._untold, []
        for news in untold:
            self._channel.pass_on(news.ids, news.handled, news.published)

    def settled(self, how: Return) -> Return:
        """How the source reconnected, see `FilteredReceiver.settled`."""
        return self._receiver.settled(how)

    def stop(self) -> None:
        """Stop receiving."""
        self._receiver.stop()
