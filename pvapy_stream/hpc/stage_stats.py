"""Groups of statistics from the counts of a stage and its inbox."""

from __future__ import annotations

from pvapy_stream.hpc.counts import InboxCounts, StageCounts
from pvapy_stream.status.counted import Times
from pvapy_stream.status.snapshot import BatchStats, ProcessorStats, QueueStats


def queue_stats(counts: InboxCounts) -> QueueStats:
    """Statistics of a queue."""
    return QueueStats(
        counts.received - counts.rejected, counts.rejected, counts.delivered, counts.queued
    )


def batch_stats(counts: StageCounts, waiting: int) -> BatchStats:
    """Statistics of batches; `waiting`: frames of a batch that is not complete."""
    found = counts.batches
    return BatchStats(
        found.batches, found.frames, found.timed_out, found.split, found.retried, waiting
    )


def processor_stats(
    counts: StageCounts, missed: int, unknown: int = 0, epochs: int = 1
) -> ProcessorStats:
    """Statistics of a processor.

    Args:
        counts: counts of the stage.
        missed: ids that should have arrived and did not.
        unknown: ids in jumps.
        epochs: how often ids began, the first time included.
    """
    times = Times(counts.start_time, counts.end_time, counts.first_time, counts.last_time)
    return times.rated(
        ProcessorStats(
            first_object_id=counts.first_id or 0,
            last_object_id=counts.last_id or 0,
            n_processed=counts.processed,
            n_errors=counts.errors,
            n_missed=missed,
            n_filtered=counts.filtered,
            n_skipped=counts.skipped,
            n_duplicates=counts.duplicates,
            n_unknown=unknown,
            n_repaired=counts.repaired,
            n_epochs=epochs,
        )
    )
