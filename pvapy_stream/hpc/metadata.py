"""Metadata channels: their values wait in queues that processors read from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pvaccess as pva

from pvapy_stream.pva.request import monitor_request
from pvapy_stream.settings import MetadataChannel

_DEFAULT_QUEUE_SIZE = 1000
_PROVIDERS = {"pva": pva.PVA, "ca": pva.CA}
_SEARCH_AGAIN_AFTER = 1.0  # s, as in transport.pva


class MetadataReceiver:
    """Fills one `pvaccess.PvObjectQueue` from one channel, without any Python in between."""

    def __init__(
        self, channel: MetadataChannel, server_queue_size: int, receiver_queue_size: int
    ) -> None:
        self.channel = channel
        self.queue = pva.PvObjectQueue(
            receiver_queue_size if receiver_queue_size >= 0 else _DEFAULT_QUEUE_SIZE
        )
        # A CA channel gives its value alone unless asked for its time too.
        fields = "value,timeStamp" if channel.provider == "ca" else ""
        self._request = monitor_request(fields, queue_size=server_queue_size)
        self._pv: Any = None
        self._searching_since = 0.0

    def start(self) -> None:
        self._searching_since = time.monotonic()
        self._pv = pva.Channel(self.channel.name, _PROVIDERS[self.channel.provider])
        self._pv.qMonitor(self.queue, self._request)

    def keep_up(self) -> None:
        """Search again for a channel that is not there; see `transport.pva`."""
        if (
            self._pv is not None
            and not self.connected
            and time.monotonic() - self._searching_since > _SEARCH_AGAIN_AFTER
        ):
            self._pv.stopMonitor()
            self.start()

    @property
    def connected(self) -> bool:
        return self._pv is not None and self._pv.isConnected()

    def stop(self) -> None:
        if self._pv is not None:
            self._pv.stopMonitor()
            self._pv = None

    def counts(self) -> dict[str, int]:
        """The queue's counters: nReceived, nRejected, nDelivered, nQueued."""
        return self.queue.getCounters()


class Metadata:
    """All metadata channels of a stage."""

    def __init__(
        self, channels: Sequence[MetadataChannel], server_queue_size: int, receiver_queue_size: int
    ) -> None:
        self.receivers = [
            MetadataReceiver(channel, server_queue_size, receiver_queue_size)
            for channel in channels
        ]
        self.queues = {receiver.channel.name: receiver.queue for receiver in self.receivers}

    def start(self) -> None:
        for receiver in self.receivers:
            receiver.start()

    def keep_up(self) -> None:
        for receiver in self.receivers:
            receiver.keep_up()

    def stop(self) -> None:
        for receiver in self.receivers:
            receiver.stop()

    @property
    def heard(self) -> int:
        """How many of the channels have delivered a value."""
        return sum(receiver.counts()["nReceived"] > 0 for receiver in self.receivers)

    def missing(self) -> list[str]:
        """Names of channels that are not connected."""
        return [receiver.channel.name for receiver in self.receivers if not receiver.connected]

    def stats(self) -> dict[str, dict[str, Any]]:
        """Counters of each channel, as the status channel names them."""
        return {
            f"metadataStats_{number}": {
                "channel": receiver.channel.name,
                "queueStats": receiver.counts(),
            }
            for number, receiver in enumerate(self.receivers, 1)
        }
