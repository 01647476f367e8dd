"""Lays the ledgers of a run side by side: every published id must arrive and meet a fate.

A channel on which one ledger publishes and from which others receive is an arrow. Who receives
there is split into subscribers, each of which must get every published id: a stage alone, or all
stages of one distributor group together. Pure bookkeeping: no EPICS, no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, merged, union, wanted


@dataclass(frozen=True, slots=True)
class StageAccount:
    """One stage, with what all its incarnations wrote.

    Attributes:
        without_fate: ids that were received and of which nothing else is known.
        dropped: ids that met a fate other than processing, by that fate; skipped ones are not here.
    """

    ledger: Ledger
    without_fate: IdSet
    dropped: dict[str, IdSet]

    @property
    def name(self) -> str:
        """Such as ``consumer 2``."""
        return f"{self.ledger.stage} {self.ledger.stage_id}"

    @property
    def inputs(self) -> list[str]:
        """Channels it receives from; a stage with several lists them with commas."""
        return list(filter(None, (name.strip() for name in self.ledger.input_channel.split(","))))

    @property
    def speaks_of_ids(self) -> bool:
        """False for a stage whose objects have no ids: nothing can be said about them."""
        return bool(self.ledger.received or self.ledger.published or not self.ledger.anonymous)


@dataclass(frozen=True, slots=True)
class SubscriberAudit:
    """What became of a channel's ids at one receiver, or one group of receivers.

    Attributes:
        name: such as ``consumer 1`` or ``group g (consumer 1, consumer 2)``.
        lost: published ids that did not arrive, and so have no fate.
        noted: those of them that a receiver noted as missed.
        lost_by: ids that some members of a distributor set got and this member did not.
        unprocessed: published ids that arrived and that nobody processed.
    """

    name: str
    lost: IdSet
    noted: IdSet
    lost_by: dict[str, IdSet]
    unprocessed: IdSet


@dataclass(frozen=True, slots=True)
class ChannelAudit:
    """One channel that stages of the run publish on."""

    channel: str
    publishers: tuple[str, ...]
    published: IdSet
    subscribers: tuple[SubscriberAudit, ...]


@dataclass(frozen=True, slots=True)
class AuditResult:
    """The outcome.

    Attributes:
        published: how many ids entered the run, at stages that receive from none of the others.
        processed: how many ids were processed at the ends of the chains.
        missed: how many ids the stages noted as missed.
        without_fate: how many ids did not arrive, or vanished in a stage.
        failures: where ids have no fate, a sentence each.
        drops: where ids were not processed, a sentence each; failures only when it is strict.
        notes: what could not be looked at, a sentence each.
    """

    stages: tuple[StageAccount, ...]
    channels: tuple[ChannelAudit, ...]
    published: int
    processed: int
    missed: int
    without_fate: int
    failures: tuple[str, ...]
    drops: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    strict: bool = False

    @property
    def ok(self) -> bool:
        """Whether every id has a fate; when strict, whether every id was processed."""
        return not self.failures and not (self.strict and self.drops)

    @property
    def verdict(self) -> str:
        """The last line."""
        reasons = [*self.failures, *(self.drops if self.strict else ())]
        counts = (
            f"published {self.published}, processed {self.processed}, missed {self.missed}, "
            f"without a fate {self.without_fate}"
        )
        return f"audit: {counts}: " + ("OK" if self.ok else f"FAILED: {'; '.join(reasons)}")

    def to_dict(self) -> dict[str, Any]:
        """For JSON: id sets as lists of [first, last]."""
        return {
            "ok": self.ok,
            "strict": self.strict,
            "published": self.published,
            "processed": self.processed,
            "missed": self.missed,
            "without_fate": self.without_fate,
            "failures": list(self.failures),
            "drops": list(self.drops),
            "notes": list(self.notes),
            "stages": [_stage_dict(stage) for stage in self.stages],
            "channels": [_channel_dict(channel) for channel in self.channels],
        }


def audit(ledgers: Iterable[Ledger], strict: bool = False) -> AuditResult:
    """Audit a run.

    Args:
        ledgers: of all its stages.
        strict: an id that was not processed is a failure too.
    """
    stages = _merge_incarnations(ledgers)
    channels = tuple(
        _audit_channel(channel, stages)
        for channel in _in_order(stage.ledger.output_channel for stage in stages)
    )
    lost = sum(
        len(ids)
        for channel in channels
        for subscriber in channel.subscribers
        for ids in (subscriber.lost, *subscriber.lost_by.values())
    )
    return AuditResult(
        stages=stages,
        channels=channels,
        published=_count_published(stages),
        processed=_count_processed(stages),
        missed=sum(len(stage.ledger.missed) for stage in stages),
        without_fate=lost + sum(len(stage.without_fate) for stage in stages),
        failures=tuple(_failures(stages, channels)),
        drops=tuple(_drops(stages, channels)),
        notes=tuple(_notes(stages)),
        strict=strict,
    )


def _merge_incarnations(ledgers: Iterable[Ledger]) -> tuple[StageAccount, ...]:
    """One account a stage: ledgers of the same stage are of a process that was started again."""
    by_stage: dict[tuple[Any, ...], list[Ledger]] = {}
    for one in ledgers:
        key = (
            one.stage,
            one.stage_id,
            one.input_channel,
            one.output_channel,
            one.group,
            one.client_set,
        )
        by_stage.setdefault(key, []).append(one)
    return tuple(_account(same) for same in by_stage.values())


def _account(same: Sequence[Ledger]) -> StageAccount:
    whole = merged(same)
    # What one incarnation missed, another may have received.
    whole.missed = whole.missed - whole.received
    fates = {f"rejected ({policy})": ids for policy, ids in whole.rejected.items()}
    fates |= {f"failed ({error})": ids for error, ids in whole.failed.items()}
    fates["left at stop"] = whole.left
    dropped = {fate: ids - whole.processed for fate, ids in fates.items()}
    return StageAccount(
        whole, whole.without_fate(), {fate: ids for fate, ids in dropped.items() if ids}
    )


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, names)))


# -- channels ------------------------------------------------------------------------------------


def _audit_channel(channel: str, stages: Sequence[StageAccount]) -> ChannelAudit:
    publishers = [stage for stage in stages if stage.ledger.output_channel == channel]
    published = union(stage.ledger.published for stage in publishers)
    subscribers: dict[tuple[str, int], list[StageAccount]] = {}
    for number, stage in enumerate(stages):
        if channel in stage.inputs and stage.speaks_of_ids:
            group = stage.ledger.group
            subscribers.setdefault((group, -1 if group else number), []).append(stage)
    return ChannelAudit(
        channel,
        tuple(stage.name for stage in publishers),
        published,
        tuple(_audit_subscriber(published, members) for members in subscribers.values()),
    )


def _audit_subscriber(published: IdSet, members: Sequence[StageAccount]) -> SubscriberAudit:
    asked = wanted([member.ledger for member in members])
    expected = published if asked is None else published & asked
    lost = expected - union(member.ledger.received for member in members)
    skipped = union(member.ledger.skipped for member in members)
    processed = union(member.ledger.processed for member in members)
    names = ", ".join(member.name for member in members)
    group = members[0].ledger.group
    return SubscriberAudit(
        name=f"group {group} ({names})" if group else names,
        lost=lost,
        noted=lost & union(member.ledger.missed for member in members),
        lost_by=_lost_in_sets(published, members),
        unprocessed=(skipped & published) - processed,
    )


def _lost_in_sets(published: IdSet, members: Sequence[StageAccount]) -> dict[str, IdSet]:
    """What each member of a distributor set lacks of what was its set's."""
    lacking: dict[str, IdSet] = {}
    for name in _in_order(member.ledger.client_set for member in members):
        of_set = [member for member in members if member.ledger.client_set == name]
        others = union(m.ledger.received for m in members if m.ledger.client_set != name)
        # An initial update comes to a client whoever's turn it is; so does what a client takes
        # for missed while sets come and go.
        turns = union(
            ids
            for member in of_set
            for ids in (
                member.ledger.received - member.ledger.skipped,
                member.ledger.missed - others,
            )
        )
        arrived = union(member.ledger.received for member in of_set)
        for member in of_set:
            # What came to none of them is lost for the group, and told there.
            lacks = (turns & published & arrived) - member.ledger.received
            if lacks:
                lacking[f"{member.name} of set {name}"] = lacks
    return lacking


# -- sums and sentences --------------------------------------------------------------------------


def _count_published(stages: Sequence[StageAccount]) -> int:
    outputs = {stage.ledger.output_channel for stage in stages}
    sources = [stage for stage in stages if not stage.inputs]
    # A source without ledger: what is known is what came from it.
    entries = [stage for stage in stages if stage.inputs and not outputs & set(stage.inputs)]
    return _count(
        sources, lambda s: s.ledger.output_channel, lambda s: s.ledger.published
    ) + _count(
        entries,
        lambda s: s.ledger.input_channel,
        lambda s: (s.ledger.received | s.ledger.missed) - (s.ledger.skipped - s.ledger.processed),
    )


def _count_processed(stages: Sequence[StageAccount]) -> int:
    inputs = {name for stage in stages for name in stage.inputs}
    ends = [stage for stage in stages if stage.inputs and stage.ledger.output_channel not in inputs]
    return _count(ends, lambda s: s.ledger.input_channel, lambda s: s.ledger.processed)


def _count(
    stages: Sequence[StageAccount],
    channel_of: Callable[[StageAccount], str],
    ids_of: Callable[[StageAccount], IdSet],
) -> int:
    """How many ids there are on all channels together, each counted once a channel."""
    return sum(
        len(union(ids_of(stage) for stage in stages if channel_of(stage) == channel))
        for channel in _in_order(map(channel_of, stages))
    )


def _failures(stages: Sequence[StageAccount], channels: Sequence[ChannelAudit]) -> Iterable[str]:
    for channel in channels:
        source = ", ".join(channel.publishers)
        for subscriber in channel.subscribers:
            if subscriber.lost:
                noted = len(subscriber.noted)
                yield (
                    f"{_ids(subscriber.lost)} lost between {source} and {subscriber.name} on "
                    f"channel {channel.channel} ({noted} noted as missed)"
                )
            for member, ids in subscriber.lost_by.items():
                yield f"{_ids(ids)} lost between {source} and {member} on channel {channel.channel}"
    for stage in stages:
        if stage.without_fate:
            yield f"{_ids(stage.without_fate)} received by {stage.name} and never heard of again"


def _drops(stages: Sequence[StageAccount], channels: Sequence[ChannelAudit]) -> Iterable[str]:
    for stage in stages:
        for fate, ids in stage.dropped.items():
            yield f"{_ids(ids)} {fate} by {stage.name}"
    for channel in channels:
        for subscriber in channel.subscribers:
            if subscriber.unprocessed:
                ids = _ids(subscriber.unprocessed)
                yield f"{ids} skipped as initial update by {subscriber.name}"


def _notes(stages: Sequence[StageAccount]) -> Iterable[str]:
    outputs = {stage.ledger.output_channel for stage in stages}
    for channel in _in_order(name for stage in stages for name in stage.inputs):
        if channel not in outputs:
            yield f"source without ledger: {channel}; what it published is known from its receivers"
    for stage in stages:
        if not stage.speaks_of_ids:
            yield f"{stage.name}: not audited, its {stage.ledger.anonymous} objects have no ids"
        elif not stage.ledger.received and not stage.ledger.published:
            yield f"{stage.name}: there is no id in its ledger"


def _ids(ids: IdSet) -> str:
    return f"{'id' if len(ids) == 1 else f'{len(ids)} ids:'} {ids}"


# -- JSON ----------------------------------------------------------------------------------------


def _ranges(ids: IdSet) -> list[list[int]]:
    return [[start, end - 1] for start, end in ids.ranges().tolist()]


def _stage_dict(stage: StageAccount) -> dict[str, Any]:
    one = stage.ledger
    plain: dict[str, Any] = {
        name: getattr(one, name)
        for name in ("stage", "stage_id", "input_channel", "output_channel", "group", "client_set")
    }
    for name in ("received", "processed", "skipped", "missed", "left", "published"):
        plain[name] = _ranges(getattr(one, name))
    for name in ("rejected", "failed"):
        plain[name] = {reason: _ranges(ids) for reason, ids in getattr(one, name).items()}
    plain["asked"] = None if one.asked is None else _ranges(one.asked)
    plain["anonymous"] = one.anonymous
    plain["without_fate"] = _ranges(stage.without_fate)
    return plain


def _channel_dict(channel: ChannelAudit) -> dict[str, Any]:
    return {
        "channel": channel.channel,
        "publishers": list(channel.publishers),
        "published": _ranges(channel.published),
        "subscribers": [
            {
                "name": one.name,
                "lost": _ranges(one.lost),
                "noted_as_missed": _ranges(one.noted),
                "lost_by": {name: _ranges(ids) for name, ids in one.lost_by.items()},
            }
            for one in channel.subscribers
        ],
    }
