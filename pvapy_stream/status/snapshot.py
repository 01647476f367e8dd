"""The typed status of a program. Field names in camelCase are those of its status channel."""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeGuard

from msgspec import Struct, field

# Integers count from 0 on and have 64 bits, unless they are one of these.
Id = Annotated[int, "LONG"]
Number = Annotated[int, "UINT"]
# Kinds of programs, by the names of their ids: consumerId and so on.
KINDS = ("consumer", "collector", "buffer", "writer", "mirror", "simulator")
NOTHING = -1  # value in a status channel for missing ids and times

_TYPES = {
    int: "ULONG", float: "DOUBLE", str: "STRING", int | None: "LONG", float | None: "DOUBLE",
}  # fmt: skip


class ReceiverStats(Struct, frozen=True):
    """Counts of received and rejected objects."""

    n_received: int = 0
    received_rate: float = 0.0
    n_rejected: int = 0
    rejected_rate: float = 0.0
    n_errors: int = 0
    error_rate: float = 0.0
    n_overruns: int = 0
    overrun_rate: float = 0.0


class PublisherStats(Struct, frozen=True):
    """Counts of published objects."""

    n_published: int = 0
    published_rate: float = 0.0
    n_errors: int = 0
    error_rate: float = 0.0
    n_rejected: int = 0
    rejected_rate: float = 0.0


class QueueStats(Struct, frozen=True):
    """Objects that entered and left a queue; rejected ones did not enter."""

    n_received: int = 0
    n_rejected: int = 0
    n_delivered: int = 0
    n_queued: int = 0


class ProcessorStats(Struct, frozen=True):
    """Counts of processed objects; times in s since 1970, 0 for none.

    Attributes:
        n_filtered, n_skipped: dropped intentionally; initial updates and repeats.
        n_duplicates, n_unknown: arrived more than once; ids in jumps, whose fate is unknown.
        n_epochs: how often ids began, the first time included.
        n_repaired: objects that were missed and came late, as they were asked for.
    """

    runtime: float = 0.0
    start_time: float = 0.0
    end_time: float = 0.0
    receiving_time: float = 0.0
    first_object_time: float = 0.0
    last_object_time: float = 0.0
    first_object_id: Id = 0
    last_object_id: Id = 0
    n_processed: int = 0
    processed_rate: float = 0.0
    n_errors: int = 0
    error_rate: float = 0.0
    n_missed: int = 0
    missed_rate: float = 0.0
    n_filtered: int = 0
    n_skipped: int = 0
    n_duplicates: int = 0
    n_unknown: int = 0
    n_epochs: int = 0
    n_repaired: int = 0


class CollectorStats(Struct, frozen=True):
    """Counts of the reorder buffer of a collector."""

    n_collected: int = 0
    collected_rate: float = 0.0
    n_rejected: int = 0
    rejected_rate: float = 0.0
    n_missed: int = 0
    missed_rate: float = 0.0
    n_cached: int = 0


class LatencyStats(Struct, frozen=True):
    """Times from the detector until an object is processed, of a sample of n objects, s."""

    n: int = 0
    sum: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class BatchStats(Struct, frozen=True):
    """Counts of batches of frames.

    Attributes:
        n_batches, n_frames: batches that were processed, and frames in them.
        n_timed_out: batches that were processed because their time was over.
        n_split: batches that ended because a frame of another shape or pixel type came.
        n_retried: batches that raised; their frames were then tried alone.
        n_queued: frames that wait for their batch to be complete.
    """

    n_batches: int = 0
    n_frames: int = 0
    n_timed_out: int = 0
    n_split: int = 0
    n_retried: int = 0
    n_queued: int = 0


class PoolStats(Struct, frozen=True):
    """Large objects that an output in shared memory copied, as it could not send references.

    Attributes:
        n_copied_no_slot: all slots of its payload pool were in use.
        n_copied_no_memory: shared memory was too small for a pool, or full.
        n_copied_subscriber: a subscriber cannot read pools, or its queue was full.
        problem: what hinders the output now: who holds the slots, how much memory is needed, or who
            takes no objects.
    """

    n_copied_no_slot: int = 0
    n_copied_no_memory: int = 0
    n_copied_subscriber: int = 0
    problem: str = ""


class ProducerStats(Struct, frozen=True):
    """Counts of one producer of a collector."""

    producer_id: Number = 0
    channel: str = ""
    receiver_stats: ReceiverStats = ReceiverStats()
    queue_stats: QueueStats = QueueStats()


class MetadataStats(Struct, frozen=True):
    """Counts of one metadata channel.

    Attributes:
        state: waiting, connected or disconnected.
        n_with, n_without: objects with and without a value of it; `coverage` is the fraction with.
    """

    producer_id: Number = 0
    channel: str = ""
    receiver_stats: ReceiverStats = ReceiverStats()
    queue_stats: QueueStats = QueueStats()
    state: str = ""
    n_with: int = 0
    n_without: int = 0
    coverage: float = 0.0


class Snapshot(Struct, frozen=True):
    """The status of a program at one moment; groups that a program does not have are omitted.

    Attributes:
        kind: one of `KINDS`; "" if it is not known.
        restarts: how often it was restarted after it died.
        output_channel: several are separated by commas.
        producer_stats, metadata_stats: by their numbers, which are in the names of the fields.
        user_stats, user_types: statistics of the processor, and their PVA types.
        drop_stats: drops of the receiver, by policy.
        own: the fields of only this kind of program, annotated with `Own`.
        labels: of its metrics; for stages their kind and number.
    """

    kind: str
    id: int = 1
    input_channel: str = ""
    state: str = ""
    restarts: Number = 0
    message: str = ""
    object_id: Id = 0
    object_time: float = 0.0
    output_channel: str = ""
    control_channel: str = ""
    receiver_stats: ReceiverStats | None = None
    collector_stats: CollectorStats | None = None
    publisher_stats: PublisherStats = PublisherStats()
    queue_stats: QueueStats = QueueStats()
    processor_stats: ProcessorStats = ProcessorStats()
    latency_stats: LatencyStats = LatencyStats()
    batch_stats: BatchStats | None = None
    pool_stats: PoolStats | None = None
    producer_stats: Mapping[int, ProducerStats] = field(default_factory=dict[int, ProducerStats])
    metadata_stats: Mapping[int, MetadataStats] = field(default_factory=dict[int, MetadataStats])
    user_stats: Mapping[str, object] = field(default_factory=dict[str, Any])
    user_types: Mapping[str, object] = field(default_factory=dict[str, Any])
    drop_stats: Mapping[str, int] = field(default_factory=dict[str, int])
    own: Struct | None = None
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def inputs(self) -> tuple[str, ...]:
        """The channels it receives from, or addresses of streams."""
        producers = [one.channel for one in self.producer_stats.values()]
        return tuple(filter(None, producers or [self.input_channel]))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The channels it publishes on, or addresses of streams."""
        return tuple(filter(None, self.output_channel.split(",")))

    @property
    def started(self) -> bool:
        """Whether it has counts; a stage with counts has an input."""
        return bool(self.input_channel)

    @property
    def receivers(self) -> list[ReceiverStats]:
        """One for each input."""
        own = [self.receiver_stats] if self.receiver_stats is not None else []
        return [*own, *(one.receiver_stats for one in self.producer_stats.values())]

    def counts(self) -> dict[str, float]:
        """The common counts of all programs, with the names of tables and metrics."""
        processor, publisher, queue = self.processor_stats, self.publisher_stats, self.queue_stats
        collector, receivers = self.collector_stats or CollectorStats(), self.receivers
        return {
            "received": sum(one.n_received for one in receivers),
            "processed": processor.n_processed,
            "filtered": processor.n_filtered,
            "skipped": processor.n_skipped,
            "published": publisher.n_published,
            "duplicates": processor.n_duplicates,
            "unknown": processor.n_unknown,
            "repaired": processor.n_repaired,
            "missed": max(processor.n_missed, collector.n_missed),
            # Rejected objects are counted by the part that rejects them and by the part that
            # reports it.
            "rejected": max(
                queue.n_rejected, sum(one.n_rejected for one in receivers), collector.n_rejected
            ),
            "errors": processor.n_errors
            + publisher.n_errors
            + sum(one.n_errors for one in receivers),
            "overruns": sum(one.n_overruns for one in receivers),
            "queued": queue.n_queued + collector.n_cached,
        }


class Own(NamedTuple):
    """Annotation of a field that only one kind of program has.

    Attributes:
        metric: name of its metric, without the kind of the program; "" for none.
        kind: of the metric.
        text: help of the metric.
        channel: whether the status channel has it.
    """

    metric: str = ""
    kind: Literal["counter", "gauge"] = "counter"
    text: str = ""
    channel: bool = True


def camel(name: str) -> str:
    """The name of a field in status channels."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


@functools.cache
def _annotated(group: type[Struct]) -> dict[str, tuple[Any, tuple[object, ...]]]:
    """Type of each field, and its annotations."""
    hints = typing.get_type_hints(group, include_extras=True)
    found: dict[str, tuple[Any, tuple[object, ...]]] = {}
    for name in group.__struct_fields__:
        extras = getattr(hints[name], "__metadata__", ())
        found[name] = (hints[name].__origin__ if extras else hints[name]), extras
    return found


@functools.cache
def own_of(group: type[Struct]) -> dict[str, Own]:
    """The fields that only one kind of program has."""
    return {
        name: one
        for name, (_, extras) in _annotated(group).items()
        for one in extras
        if isinstance(one, Own)
    }


@functools.cache
def types_of(group: type[Struct]) -> dict[str, str | type[Struct]]:
    """PVA type of each field that has one, or the class of a group of fields."""
    found: dict[str, str | type[Struct]] = {}
    own = own_of(group)
    for name, (kind, extras) in _annotated(group).items():
        if name in own and not own[name].channel:
            continue
        nested = [part for part in (kind, *typing.get_args(kind)) if is_group(part)]
        named = [one for one in extras if isinstance(one, str)]
        if nested:
            found[name] = nested[0]
        elif named or kind in _TYPES:
            found[name] = named[0] if named else _TYPES[kind]
    return found


def is_group(kind: object) -> TypeGuard[type[Struct]]:
    """Whether a type is that of a group of fields."""
    return isinstance(kind, type) and issubclass(kind, Struct) and kind is not Struct
