"""Groups of statistics from the counts of a program."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from pvapy_stream.accounting.account import Account
from pvapy_stream.status.snapshot import (
    PoolStats,
    ProcessorStats,
    PublisherStats,
    ReceiverStats,
)

if TYPE_CHECKING:
    from pvapy_stream.transport.ports import PublisherCounts, ReceiverCounts

Group = TypeVar("Group", bound=Struct)


def rate(count: float, seconds: float) -> float:
    """Count per second; 0 when no time has passed."""
    return count / seconds if seconds > 0 else 0.0


def rated(group: Group, seconds: float) -> Group:
    """A group with the rates of its counts, over `seconds`."""
    names = group.__struct_fields__
    counts = {name.removesuffix("s"): getattr(group, name) for name in names if name[:2] == "n_"}
    rates = {
        name: rate(counts[f"n_{name[:-5]}"], seconds) for name in names if name[-5:] == "_rate"
    }
    return replace(group, **rates)


def receiver_stats(counts: ReceiverCounts, rejected: int, seconds: float) -> ReceiverStats:
    """Statistics of a receiver and of objects rejected after it; rates over `seconds`."""
    rejected += counts.rejected
    return rated(
        ReceiverStats(counts.received, 0, rejected, 0, counts.errors, 0, counts.overruns), seconds
    )


def drop_stats(counts: ReceiverCounts) -> dict[str, int]:
    """Drops of a receiver, by the names of the status channel."""
    return {f"n{policy.title().replace('_', '')}": n for policy, n in counts.drops.items()}


def publisher_stats(counts: PublisherCounts, seconds: float) -> PublisherStats:
    """Statistics of a publisher; rates over `seconds`."""
    return rated(PublisherStats(counts.published, 0, counts.errors, 0, counts.rejected), seconds)


def pool_stats(counts: PublisherCounts, problem: str) -> PoolStats | None:
    """Statistics of the payload pools of a publisher; None if it has none.

    Args:
        counts: of the publisher.
        problem: what hinders it now, or "".
    """
    if not counts.copies:
        return None
    copied = {f"n_copied_{reason}": n for reason, n in counts.copies.items()}
    return PoolStats(**copied, problem=problem)


class Times(Struct):
    """Times at which a program began and ended, and published its first and last object.

    All in s since 1970, 0 for not yet.
    """

    start: float = 0.0
    end: float = 0.0
    first: float = 0.0
    last: float = 0.0

    @property
    def seconds(self) -> float:
        """Time from the first to the last object, s."""
        return self.last - self.first

    def rated(self, stats: ProcessorStats) -> ProcessorStats:
        """The statistics with these times, and rates over them."""
        timed = replace(
            stats,
            runtime=(self.end or time.time()) - self.start if self.start else 0.0,
            start_time=self.start,
            end_time=self.end,
            receiving_time=self.seconds,
            first_object_time=self.first,
            last_object_time=self.last,
        )
        return rated(timed, self.seconds)


def ledger_stats(account: Account, times: Times, overdue: int = 0) -> ProcessorStats:
    """Statistics of ids from the ledgers of a program without a processor.

    Args:
        account: ledgers of the program.
        times: times of the program.
        overdue: ids that are missed and not in the ledgers yet.
    """
    ledgers = account.ledgers

    def total(name: str) -> int:
        return sum(len(getattr(one, name)) for one in ledgers)

    processed = account.left_out + total("processed")
    return times.rated(
        ProcessorStats(
            first_object_id=ledgers[0].processed.first or 0,
            last_object_id=ledgers[-1].processed.last or 0,
            n_processed=processed + sum(one.anonymous for one in ledgers),
            n_missed=total("missed") + overdue,
            n_skipped=total("skipped"),
            n_duplicates=total("duplicate"),
            n_unknown=total("unknown"),
            n_epochs=account.ledger.epoch,
        )
    )
