"""Way out: puts to a channel on another's PVA server."""

from __future__ import annotations

from typing import Any

import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.lazy import pv_object
from pvapy_stream.transport.backoff import REMOTE_ERRORS, Attempts
from pvapy_stream.transport.ports import Publisher, PublisherCounts

_PUT_TIMEOUT = 2.0  # s; one attempt


class PutPublisher(Publisher):
    """Puts each object to a remote channel, such as the input of a ``pvas`` consumer.

    Args:
        channel: name of the channel.
        limit: how long an object is tried again when the other side fails, s.
    """

    def __init__(self, channel: str, limit: float) -> None:
        self.channel = channel
        self._pv = pva.Channel(channel)
        self._pv.setTimeout(min(_PUT_TIMEOUT, limit))
        self._attempts = Attempts(f"cannot put to channel {channel}", limit)
        self._structure: dict[str, Any] | None = None
        self._published = 0

    def publish(self, obj: Any) -> None:
        real = pv_object(obj)
        self._attempts.make(lambda: self._put(real))
        self._published += 1

    def _put(self, obj: Any) -> None:
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

    def stop(self) -> None:
        self._attempts.stop()

    def counts(self) -> PublisherCounts:
        return PublisherCounts(self._published, self._attempts.errors)

    def reset_counts(self) -> None:
        self._published = self._attempts.errors = 0
