"""What a collector knows of one producer, and what came from it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.hpc.counts import InboxCounts, SourceBaseline
from pvapy_stream.hpc.stage_stats import queue_stats
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.status.counted import receiver_stats
from pvapy_stream.status.snapshot import ProducerStats
from pvapy_stream.transport.filtered_ids import Filtered, FilteredReceiver
from pvapy_stream.transport.ports import Identified, Receiver


class Arrival:
    """An object and the producer it came from."""

    __slots__ = ("obj", "ours", "producer")

    def __init__(self, producer: int, obj: StreamObject, ours: bool = False) -> None:
        self.producer = producer
        self.obj = obj
        # Whether it may be kept: the binding reuses what a monitor delivers.
        self.ours = ours

    def copy(self) -> Arrival:
        return self if self.ours else Arrival(self.producer, self.obj.copy(), True)


class Producer:
    """What is known of one producer."""

    receiver: Receiver
    filters: FilteredReceiver

    def __init__(self, number: int, channel: str, ledger: Ledger) -> None:
        self.number = number
        self.channel = channel
        self.account = Account(ledger)
        self.to_skip = 0
        self.newest: int | None = None
        # The object that was skipped at first, until another comes.
        self.initial: int | None = None
        self.rejected = 0
        # Names the program that it was when it returned last; None: it did not.
        self.program: str | None = None
        # Its part of the inbox.
        self.arrived = self.refused = self.taken = 0
        # What it said to have filtered, before all that it published by then has arrived.
        self.passed: Filtered | None = None
        self.left: Sequence[StreamObject] = []

    @property
    def present_program(self) -> str:
        """Names the program that its present objects come from; "" if it is not known."""
        if self.program is not None:
            return self.program
        return self.receiver.first_source if isinstance(self.receiver, Identified) else ""

    def queue_counts(self) -> InboxCounts:
        """What of the inbox is its own, since the start."""
        # Against the stream: what comes meanwhile may not seem to be less.
        taken, refused = self.taken, self.refused
        return InboxCounts.of(taken, self.arrived - refused, refused)

    def stats(self, seconds: float, base: SourceBaseline) -> ProducerStats:
        """What came from it since a baseline; rates over `seconds`."""
        rejected = self.rejected - base.rejected
        inbox = self.queue_counts().since(base.inbox)
        counts = replace(self.receiver.counts().since(base.receiver), received=inbox.received)
        return ProducerStats(
            self.number,
            self.channel,
            receiver_stats(counts, rejected, seconds),
            queue_stats(inbox),
        )
