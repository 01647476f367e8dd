"""Publisher that uses several publishers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.ports import Publisher, PublisherCounts

if TYPE_CHECKING:
    from pvapy_stream.pva.lazy import StreamObject


class BothPublisher(Publisher):
    """Publishes each object with all publishers; a failure of one does not affect the others."""

    takes_lazy = True

    def __init__(self, ways: Sequence[Publisher]) -> None:
        self._ways = ways
        self.knows_subscribers = all(way.knows_subscribers for way in ways)

    @property
    def subscribers(self) -> int:
        return sum(way.subscribers for way in self._ways)

    @property
    def clients(self) -> int:
        return sum(way.clients for way in self._ways)

    def start(self) -> None:
        for way in self._ways:
            way.start()

    def open(self, prototype: StreamObject) -> None:
        for way in self._ways:
            way.open(prototype)

    def publish(self, obj: StreamObject) -> None:
        failure: TransportError | None = None
        for way in self._ways:
            try:
                way.publish(obj)
            except TransportError as error:
                failure = error
        if failure is not None:
            raise failure

    def reserve(self, nbytes: int) -> object | None:
        for way in self._ways:
            memory = way.reserve(nbytes)
            if memory is not None:
                return memory
        return None

    def finish(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        for way in self._ways:
            way.finish(max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        for way in self._ways:
            way.stop()

    def counts(self) -> PublisherCounts:
        """Published objects of the first publisher; errors, rejections and copies of all."""
        counts = [way.counts() for way in self._ways]
        copies: Counter[str] = Counter()
        for one in counts:
            copies.update(one.copies)
        return PublisherCounts(
            counts[0].published,
            sum(c.errors for c in counts),
            sum(c.rejected for c in counts),
            copies,
        )

    @property
    def problem(self) -> str:
        return "; ".join(filter(None, (way.problem for way in self._ways)))
