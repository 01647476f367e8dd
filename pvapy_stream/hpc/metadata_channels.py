"""Metadata channels: their values wait in queues that processors read from."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

import pvaccess as pva
from msgspec.structs import replace

from pvapy_stream.hpc.counts import InboxCounts
from pvapy_stream.hpc.stage_stats import queue_stats
from pvapy_stream.pva.monitor_request import monitor_request
from pvapy_stream.settings import MetadataChannel
from pvapy_stream.status.counted import rate, receiver_stats
from pvapy_stream.status.snapshot import MetadataStats
from pvapy_stream.transport.ports import ReceiverCounts

_DEFAULT_QUEUE_SIZE = 1000
_PROVIDERS = {"pva": pva.PVA, "ca": pva.CA}
_SEARCH_AGAIN_AFTER = 1.0  # s, as in transport.pva
_TELL_AFTER = 3.0  # s; a channel that is there has a value sooner

_log = logging.getLogger(__name__)


class MetadataReceiver:
    """Fills one `pvaccess.PvObjectQueue` from one channel, without any Python in between.

    Attributes:
        was_connected: whether the channel has ever been there.
        came: whether it has ever delivered a value.
        overdue: whether it has none although there was time.
        without: objects that were processed before its first value.
    """

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
        self._pv: pva.Channel | None = None
        self.was_connected = self.came = self.overdue = False
        self.without = 0
        self._started = self._last_there = self._searching_since = 0.0
        self._past_overruns = 0
        self._told_none = self._told_gone = False

    def start(self) -> None:
        self._started = time.monotonic()
        self._search()

    def _search(self) -> None:
        self._searching_since = time.monotonic()
        self._pv = pva.Channel(self.channel.name, _PROVIDERS[self.channel.provider])
        self._pv.qMonitor(self.queue, self._request)

    def keep_up(self, processed: int = 0) -> None:
        """Search again for a channel that is not there; see `transport.pva`.

        Args:
            processed: how many objects the stage has processed.
        """
        self.note(processed)
        if self._pv is None:
            return
        now = time.monotonic()
        if self.connected:
            self._last_there, self.was_connected = now, True
        elif now - max(self._last_there, self._searching_since) > _SEARCH_AGAIN_AFTER:
            self._tell_gone()
            self._close()
            self._search()
        late = not self.came and now - self._started > _TELL_AFTER
        if late and not self._told_none:
            self._told_none = True
            _log.warning("%s", self.absence)
        self.overdue = late

    def note(self, processed: int) -> None:
        """Note how many objects had to do without a value so far."""
        if not self.came:
            self.without = processed
            counts = self.queue.getCounters()
            self.came = counts["nReceived"] + counts["nRejected"] > 0

    def _tell_gone(self) -> None:
        if self.was_connected and not self._told_gone:
            self._told_gone = True
            _log.info("metadata channel %s has disconnected (logged once)", self.channel.name)

    @property
    def absence(self) -> str:
        """What to say of a channel without a value."""
        name, provider = self.channel.name, self.channel.provider
        if self.was_connected:
            return f"metadata channel {name} is connected and has no value yet"
        return (
            f"metadata channel {name} ({provider}) was never found; check its name and"
            f" EPICS_{provider.upper()}_ADDR_LIST"
        )

    @property
    def connected(self) -> bool:
        return self._pv is not None and self._pv.isConnected()

    @property
    def state(self) -> str:
        """Waiting (it never came), connected or disconnected."""
        if self.connected:
            return "connected"
        return "disconnected" if self.was_connected or self.came else "waiting"

    def stop(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._pv is not None:
            self._past_overruns += self._pv.getMonitorCounters().get("nOverruns", 0)
            self._pv.stopMonitor()
            self._pv = None

    def counts(self) -> InboxCounts:
        """Numbers of objects that arrived, were rejected, were read, and wait."""
        counts = self.queue.getCounters()
        rejected = counts["nRejected"]
        return InboxCounts(
            counts["nReceived"] + rejected, rejected, counts["nDelivered"], counts["nQueued"]
        )

    def stats(self, number: int, seconds: float) -> MetadataStats:
        """Its statistics, without the coverage; rates over `seconds`."""
        counts = self.counts()
        overruns = self._pv.getMonitorCounters().get("nOverruns", 0) if self._pv else 0
        received = ReceiverCounts(counts.received, self._past_overruns + overruns)
        return MetadataStats(
            number,
            self.channel.name,
            receiver_stats(received, counts.rejected, seconds),
            queue_stats(counts),
            self.state,
        )

    def reset_counts(self) -> None:
        """Set the counts to zero."""
        self.note(0)
        self.without = 0
        self._past_overruns = 0
        self.queue.resetCounters()
        if self._pv is not None:
            self._pv.resetMonitorCounters()


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

    def keep_up(self, processed: int) -> None:
        for receiver in self.receivers:
            receiver.keep_up(processed)

    def stop(self) -> None:
        for receiver in self.receivers:
            receiver.stop()

    def reset_counts(self) -> None:
        for receiver in self.receivers:
            receiver.reset_counts()

    def connected(self, name: str) -> bool:
        """Whether a channel is there now."""
        return any(r.connected for r in self.receivers if r.channel.name == name)

    @property
    def heard(self) -> int:
        """How many of the channels have delivered a value."""
        return sum(receiver.came or receiver.counts().received > 0 for receiver in self.receivers)

    def absences(self) -> list[str]:
        """What to say of the channels that have not delivered a value."""
        return [receiver.absence for receiver in self.receivers if not receiver.came]

    @property
    def remark(self) -> str:
        """What the status says of channels without a value; "" while they may still be found."""
        return "; ".join(receiver.absence for receiver in self.receivers if receiver.overdue)

    def stats(
        self, seconds: float, processed: int, covered: Mapping[str, tuple[int, int]]
    ) -> dict[int, MetadataStats]:
        """Statistics of each channel, by its number.

        Args:
            seconds: what rates are over.
            processed: how many objects the stage has processed.
            covered: how many objects got a value and how many did not, by channel, as far as the
                processor says so; else those count that came before the first value.
        """
        found: dict[int, MetadataStats] = {}
        for number, receiver in enumerate(self.receivers, 1):
            receiver.note(processed)
            without = receiver.without
            n_with, without = covered.get(
                receiver.channel.name, (max(0, processed - without), without)
            )
            found[number] = replace(
                receiver.stats(number, seconds),
                n_with=n_with,
                n_without=without,
                coverage=rate(n_with, n_with + without),
            )
        return found
