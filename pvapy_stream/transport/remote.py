"""Common part of publishers to the server of another program."""

from __future__ import annotations

from typing import Any

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.lazy import StreamObject, pv_object, time_of
from pvapy_stream.pva.net import client
from pvapy_stream.pva.net.client_channel import ClientChannel
from pvapy_stream.pva.put_objects import PutWriter
from pvapy_stream.transport.backoff import Attempts
from pvapy_stream.transport.ports import Publisher, PublisherCounts


class RemotePublisher(Publisher):
    """Sends each object, with retries at growing intervals while the other side fails.

    Args:
        channel: name of the channel.
        problem: message if it cannot be sent.
        limit: longest time for which an object is retried, s.
    """

    def __init__(self, channel: str, problem: str, limit: float) -> None:
        self.channel = channel
        self._attempts = Attempts(problem, limit)
        self._published = 0

    def _prepare(self, obj: StreamObject) -> object:
        """The form in which an object is sent."""
        return pv_object(obj)

    def _send(self, obj: Any, patience: float) -> None:
        """One attempt.

        Args:
            obj: result of `_prepare`.
            patience: longest wait for the other side, s.

        Raises:
            TransportError: it failed; one of `backoff.AGAIN` if it may be repeated.
        """
        raise NotImplementedError

    def publish(self, obj: StreamObject) -> None:
        ready = self._prepare(obj)
        self._attempts.make(lambda patience: self._send(ready, patience), time_of(obj))
        self._published += 1

    def stop(self) -> None:
        self._attempts.stop()

    def counts(self) -> PublisherCounts:
        return PublisherCounts(self._published, self._attempts.errors)


class ChannelPublisher(RemotePublisher):
    """Sends to a channel of another PVA server, which is searched for from the start."""

    def __init__(self, channel: str, problem: str, limit: float) -> None:
        super().__init__(channel, problem, limit)
        self._remote: ClientChannel | None = None
        self._writer = PutWriter()

    @property
    def remote(self) -> ClientChannel:
        """The channel."""
        if self._remote is None:
            self._remote = client.channel(self.channel)
        return self._remote

    def start(self) -> None:
        _ = self.remote

    def _prepare(self, obj: StreamObject) -> object:
        try:
            return self._writer.write(obj)
        except (ValueError, TypeError, KeyError) as error:
            raise TransportError(
                f"an object for channel {self.channel} cannot be sent: {error}"
            ) from error

    def stop(self) -> None:
        super().stop()
        if self._remote is not None:
            self._remote.close()
