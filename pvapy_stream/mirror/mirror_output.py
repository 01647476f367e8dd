"""The channel that a mirror publishes; its structure follows that of the source."""

from __future__ import annotations

import logging

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.convert import type_of
from pvapy_stream.pva.lazy import StreamObject, pv_object
from pvapy_stream.pva.wire.types import Structure
from pvapy_stream.settings.channel_map import MirrorEntry
from pvapy_stream.transport.ports import Publisher

_LOG_EVERY = 1000

_log = logging.getLogger(__name__)


class MirrorOutput:
    """Publishes the objects of one source.

    Args:
        entry: what is mirrored.
        publisher: publisher that only this object uses.
    """

    def __init__(self, entry: MirrorEntry, publisher: Publisher) -> None:
        self._entry = entry
        self._publisher = publisher
        self._kind: Structure | None = None
        self._changes = 0

    def show(self, obj: StreamObject) -> None:
        """Show an object that is no update: it opens the channel.

        If the channel has another structure, clients connect again.

        Raises:
            TransportError: it cannot be published.
        """
        kind = type_of(pv_object(obj))
        if self._kind is not None:
            self._take_away()
        self._publisher.open(obj)
        self._kind = kind

    def publish(self, obj: StreamObject, late: bool = False) -> None:
        """Publish an object; if it has another structure, clients reconnect.

        Args:
            obj: the object.
            late: whether it follows larger ids of the same epoch.

        Raises:
            TransportError: it cannot be published.
        """
        try:
            self._publisher.publish_late(obj) if late else self._publisher.publish(obj)
        except TransportError:
            kind = type_of(pv_object(obj))
            if kind == self._kind:
                raise
            self._open_anew(obj, kind)
        if self._kind is None:
            self._kind = type_of(pv_object(obj))

    def _open_anew(self, obj: StreamObject, kind: Structure) -> None:
        self._take_away()
        self._publisher.publish(obj)
        self._kind = kind

    def _take_away(self) -> None:
        self._changes += 1
        if self._changes == 1 or self._changes % _LOG_EVERY == 0:
            _log.warning(
                "channel %s: structure of %s has changed; clients must reconnect (%d times so far)",
                self._entry.mirror,
                self._entry.source,
                self._changes,
            )
        self._publisher.stop()

    def lacks(self, obj: StreamObject) -> bool:
        """Whether the channel is not there yet, or has another structure than this object."""
        return self._kind is None or type_of(pv_object(obj)) != self._kind

    @property
    def opened(self) -> bool:
        """Whether the channel is there."""
        return self._kind is not None

    @property
    def subscribers(self) -> int:
        """Number of subscribers, if it is known."""
        return self._publisher.subscribers

    @property
    def knows_clients(self) -> bool:
        """Whether they are known one by one."""
        return self._publisher.knows_subscribers

    @property
    def rejected(self) -> int:
        """Deliveries to single subscribers that were dropped."""
        return self._publisher.counts().rejected

    def finish(self, patience: float) -> None:
        """Give subscribers up to `patience` s to take the last objects; then close."""
        self._publisher.finish(patience)
        self._publisher.stop()
