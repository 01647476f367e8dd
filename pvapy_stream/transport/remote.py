"""What ways out to another's server have in common."""

from __future__ import annotations

from typing import Any

from pvapy_stream.pva.lazy import pv_object
from pvapy_stream.transport.backoff import Attempts
from pvapy_stream.transport.ports import Publisher, PublisherCounts


class RemotePublisher(Publisher):
    """Sends each object, again at growing intervals while the other side fails.

    Args:
        channel: name of the channel.
        problem: what to say when it cannot be sent.
        limit: how long an object is tried again, s.
    """

    def __init__(self, channel: str, problem: str, limit: float) -> None:
        self.channel = channel
        self._attempts = Attempts(problem, limit)
        self._published = 0

    def _send(self, obj: Any) -> None:
        """One attempt with a PvObject; raises one of `REMOTE_ERRORS` when it fails."""
        raise NotImplementedError

    def publish(self, obj: Any) -> None:
        real = pv_object(obj)
        self._attempts.make(lambda: self._send(real))
        self._published += 1

    def stop(self) -> None:
        self._attempts.stop()

    def counts(self) -> PublisherCounts:
        return PublisherCounts(self._published, self._attempts.errors)

    def reset_counts(self) -> None:
        self._published = self._attempts.errors = 0
