"""What a stage counts, and how its statistics are reset.

No count is ever set back: receivers, inboxes, publishers and producers count from their start on.
When statistics are reset, what had been counted is noted in a `Baseline`, and what is shown since
then is a difference. So a status that is made while statistics are reset needs no lock in common
with those who count, and still shows no more processed than received:

1. Each object is counted on its way in this order: entered (inbox), delivered (inbox), published
   (output), processed (stage). Who reads these counts in the opposite order reads counts of which
   none is larger than that of a step before, whatever is counted meanwhile.
2. A baseline is made under the lock of the stage. `done` objects have their fate then, and all
   others get theirs later. The counts of the stage begin at 0, and those of the inbox are shown
   without `done`: who is counted as processed from then on was not done, so it is among those that
   are shown as entered and delivered. What was on its way counts as received since the reset.
3. The counts of the stage and the baseline are one object. Who has it once may read the rest at any
   time, also when statistics are reset meanwhile: that takes away nothing from what is read.

Objects that a processor publishes outside of `process` are published when they are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec import Struct, field

from pvapy_stream.hpc.latency import Latency
from pvapy_stream.transport.ports import PublisherCounts, ReceiverCounts


class InboxCounts(Struct, frozen=True):
    """Objects since the start, or since a baseline.

    Attributes:
        received: those that entered, and those that were rejected instead.
        delivered: handed to the stage, the one that is processed now included.
        queued: what waits now.
        busy: whether an object from the queue is processed now.
    """

    received: int = 0
    rejected: int = 0
    delivered: int = 0
    queued: int = 0
    busy: bool = False

    @classmethod
    def of(cls, delivered: int, entered: int, rejected: int, busy: bool = False) -> InboxCounts:
        """Counts that fit together; to be read in the order of the arguments, as objects arrive."""
        return cls(entered + rejected, rejected, delivered, entered - delivered, busy)

    @classmethod
    def settled(cls, done: int, rejected: int) -> InboxCounts:
        """The baseline of an inbox: what had its fate."""
        return cls(done + rejected, rejected, done)

    def since(self, base: InboxCounts) -> InboxCounts:
        """What was counted after a baseline; what waits and is busy is as it is."""
        return InboxCounts(
            self.received - base.received,
            self.rejected - base.rejected,
            self.delivered - base.delivered,
            self.queued,
            self.busy,
        )


class SourceBaseline(Struct, frozen=True):
    """What had come from one source.

    Attributes:
        receiver: counts of its receiver.
        inbox: of its part of the inbox, see `InboxCounts.settled`.
        rejected: objects that the stage rejected.
    """

    receiver: ReceiverCounts = field(default_factory=ReceiverCounts)
    inbox: InboxCounts = InboxCounts()
    rejected: int = 0


class Baseline(Struct, frozen=True):
    """What had been counted when statistics were reset; nothing at the start.

    Attributes:
        inbox: of the whole inbox.
        sources: by their channels.
        published: counts of the output.
        collected: objects that a collector had collected, and that had their fate.
        repaired: objects that were repaired.
    """

    inbox: InboxCounts = InboxCounts()
    sources: Mapping[str, SourceBaseline] = field(default_factory=dict[str, SourceBaseline])
    published: PublisherCounts = field(default_factory=PublisherCounts)
    collected: int = 0
    repaired: int = 0

    def source(self, channel: str) -> SourceBaseline:
        """What had come from a source."""
        return self.sources.get(channel) or SourceBaseline()


class BatchCounts(Struct):
    """Batches that were processed, all of them included in the others.

    Attributes:
        batches: how many.
        frames: frames in them.
        timed_out: those that were processed because their time was over.
        split: those that ended because a frame of another shape or pixel type came.
        retried: those that raised, and whose frames were then tried alone.
    """

    batches: int = 0
    frames: int = 0
    timed_out: int = 0
    split: int = 0
    retried: int = 0


class StageCounts(Struct):
    """What a stage counted since its start or last reset. Times: s since 1970, 0 for none yet.

    Attributes:
        base: what others had counted by then.
        latency: of the objects.
        batches: of a stage that processes batches.
    """

    base: Baseline = field(default_factory=Baseline)
    latency: Latency = field(default_factory=Latency)
    batches: BatchCounts = field(default_factory=BatchCounts)
    start_time: float = field(default_factory=time.time)
    end_time: float = 0.0
    first_time: float = 0.0
    last_time: float = 0.0
    first_id: int | None = None
    last_id: int | None = None
    processed: int = 0
    filtered: int = 0
    skipped: int = 0
    duplicates: int = 0
    repaired: int = 0
    errors: int = 0

    @property
    def receiving_time(self) -> float:
        """Time from the first to the last object, s."""
        return self.last_time - self.first_time
