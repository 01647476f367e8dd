"""The accounts of a collector, and what its status shows."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from pvapy_stream.accounting.account import Account
from pvapy_stream.hpc.counts import Baseline, InboxCounts, SourceBaseline
from pvapy_stream.hpc.producer import Producer
from pvapy_stream.hpc.reorder import Released, ReorderBuffer
from pvapy_stream.hpc.runner import StageRunner
from pvapy_stream.hpc.stage_stats import queue_stats
from pvapy_stream.status.counted import rated
from pvapy_stream.status.snapshot import CollectorStats
from pvapy_stream.transport.ports import Receiver, ReceiverCounts


class CollectorStatus(StageRunner):
    """The part of a collector that is asked for its accounts and statistics.

    Attributes:
        sources: the producers, by their numbers.
        buffer: holds objects until no smaller id can come.
        released: what the buffer has released, in their order.
        collected: how many objects were put into the buffer, or came too late for it.
    """

    sources: dict[Any, Producer]
    buffer: ReorderBuffer
    released: deque[Released]
    collected: int

    @property
    def accounts(self) -> list[Account]:
        return [source.account for source in self.sources.values()]

    @property
    def missed(self) -> int:
        """Number of ids that should have arrived from a producer and did not."""
        return self.count_missed(source.filters for source in self.sources.values())

    def baseline(self, came: Mapping[str, ReceiverCounts]) -> Baseline:
        held = self.buffer.held() + Counter(one.producer for one in self.released)
        sources: dict[str, SourceBaseline] = {}
        n_later = 0
        for number, source in self.sources.items():
            later = held[number] + self.stage.unsettled(source.account)
            n_later += later
            sources[source.channel] = SourceBaseline(
                came[source.channel],
                InboxCounts.settled(source.taken - later, source.refused),
                source.rejected,
            )
        done = sum(one.inbox.delivered for one in sources.values())
        return Baseline(
            InboxCounts.settled(done, self.inbox.counts().rejected),
            sources,
            self.published(),
            self.collected - n_later,
        )

    def own_stats(self, seconds: float, base: Baseline) -> dict[str, Any]:
        # Against the stream: what came later may not seem to be more.
        collected, cached = self.collected - base.collected, len(self.buffer)
        rejected = sum(
            source.rejected - base.source(source.channel).rejected
            for source in self.sources.values()
        )
        counted = CollectorStats(
            n_collected=collected, n_rejected=rejected, n_missed=self.missed, n_cached=cached
        )
        return {
            "collector_stats": rated(counted, seconds),
            "queue_stats": queue_stats(self.inbox.counts().since(base.inbox)),
            "producer_stats": {
                number: source.stats(seconds, base.source(source.channel))
                for number, source in self.sources.items()
            },
        }

    @property
    def phase(self) -> str:
        if self.paused:
            return "paused"
        receivers = [source.receiver for source in self.sources.values()]
        if any(receiver.connected for receiver in receivers):
            return "running"
        return "disconnected" if any(r.was_connected for r in receivers) else "waiting"

    @property
    def heard(self) -> int:
        return sum(source.receiver.counts().received > 0 for source in self.sources.values())

    def absent(self) -> list[str]:
        return [s.channel for s in self.sources.values() if not s.receiver.was_connected]

    def receivers(self) -> dict[str, Receiver]:
        return {s.channel: s.receiver for s in self.sources.values()}
