"""Way out: puts to a channel on another's PVA server."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.backoff import REMOTE_ERRORS
from pvapy_stream.transport.remote import RemotePublisher

_PUT_TIMEOUT = 2.0  # s; one attempt


class PutPublisher(RemotePublisher):
    """Puts each object to a remote channel, such as the input of a ``pvas`` consumer.

    Args:
        channel: name of the channel.
        limit: how long an object is tried again when the other side fails, s.
    """

    def __init__(self, channel: str, limit: float) -> None:
        super().__init__(channel, f"cannot put to channel {channel}", limit)
        self._pv = pva.Channel(channel)
        self._pv.setTimeout(min(_PUT_TIMEOUT, limit))
        self._structure: dict[str, Any] | None = None
        self._searcher: threading.Thread | None = None

    def start(self) -> None:
        """Begin to search for the channel, so that it is there when the first object comes."""
        self._searcher = threading.Thread(target=self._search, name="put-search", daemon=True)
        self._searcher.start()

    def _search(self) -> None:
        # The binding searches from the first use on, however long this waits.
        with contextlib.suppress(*REMOTE_ERRORS):
            self._pv.getIntrospectionDict()

    def _send(self, obj: Any) -> None:
        if self._searcher is not None:
            # One thread at a time uses the channel; the binding returns within its time limit.
            self._searcher.join(2 * _PUT_TIMEOUT)
            self._searcher = None
        # A server that has begun anew may have another structure.
        if self._structure is None or not self._pv.isConnected():
            self._check(obj)
        try:
            self._pv.put(obj, "")
        except REMOTE_ERRORS:
            self._structure = None
            raise

    def _check(self, obj: Any) -> None:
        """Look whether the structures agree: the binding ends the process when they do not."""
        theirs: dict[str, Any] = self._pv.getIntrospectionDict()
        ours: dict[str, Any] = obj.getStructureDict()
        wrong = [name for name, kind in ours.items() if theirs.get(name) != kind]
        wrong += [name for name in theirs if name not in ours]
        if wrong:
            self._attempts.errors += 1
            raise TransportError(
                f"cannot put to channel {self.channel}: its structure differs in"
                f" {', '.join(dict.fromkeys(wrong))}; the receiving processor's"
                " getInputPvObjectType must give the structure that is sent"
            )
        self._structure = theirs
