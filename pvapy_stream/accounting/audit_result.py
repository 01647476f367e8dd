"""The result of an audit: sums, sentences, and its form in JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pvapy_stream.accounting.bags import layers
from pvapy_stream.accounting.comparison import (
    ChannelAudit,
    StageAccount,
    accounts,
    bag,
    channel_audits,
    in_order,
    subscribers,
)
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, union

_SETS = (
    "received", "processed", "filtered", "skipped", "duplicate", "missed", "unknown", "left",
    "published",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AuditResult:
    """The result of an audit.

    Attributes:
        published: how many ids entered the run, at stages that receive from none of the others.
        processed: how many ids were processed at the ends of the chains.
        filtered: how many ids were filtered.
        missed: how many of the sent ids are missed in the ledgers.
        without_fate: how many ids did not arrive, or have no fate in a stage.
        restarts: how many processes were restarted.
        failures: where ids have no fate, and what cannot be known, one sentence each.
        drops: where ids were not processed, one sentence each; failures only if it is strict.
        notes: what could not be audited, one sentence each.
    """

    stages: tuple[StageAccount, ...]
    channels: tuple[ChannelAudit, ...]
    published: int
    processed: int
    filtered: int
    missed: int
    without_fate: int
    restarts: int
    failures: tuple[str, ...]
    drops: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    strict: bool = False

    @property
    def ok(self) -> bool:
        """Whether every id has a fate; if strict, whether every id was processed."""
        return not self.failures and not (self.strict and self.drops)

    @property
    def verdict(self) -> str:
        """The summary in one line: numbers of ids, and OK or the reasons for the failure."""
        reasons = [*self.failures, *(self.drops if self.strict else ())]
        counts = [f"published {self.published}", f"processed {self.processed}"]
        if self.filtered:
            counts.append(f"filtered {self.filtered}")
        counts += [f"missed {self.missed}", f"without a fate {self.without_fate}"]
        if self.restarts:
            counts.append(f"restarts {self.restarts}")
        verdict = "OK" if self.ok else f"FAILED: {'; '.join(reasons)}"
        return f"audit: {', '.join(counts)}: {verdict}"

    def to_dict(self) -> dict[str, object]:
        """The result as plain values for JSON; id sets are lists of [first, last]."""
        return {
            "ok": self.ok,
            "strict": self.strict,
            "published": self.published,
            "processed": self.processed,
            "filtered": self.filtered,
            "missed": self.missed,
            "without_fate": self.without_fate,
            "restarts": self.restarts,
            "failures": list(self.failures),
            "drops": list(self.drops),
            "notes": list(self.notes),
            "stages": [_stage_dict(stage) for stage in self.stages],
            "channels": [_channel_dict(channel) for channel in self.channels],
        }


def audit(
    ledgers: Iterable[Ledger], strict: bool = False, notes: Iterable[str] = ()
) -> AuditResult:
    """Audit a run.

    Args:
        ledgers: ledgers of all stages of the run.
        strict: whether an id that was not processed is a failure too.
        notes: additional notes, one sentence each.
    """
    stages = accounts(ledgers)
    channels = channel_audits(stages)
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
        filtered=sum(stage.count("filtered") for stage in stages),
        missed=sum(len(_missed(stage, channels)) for stage in stages),
        without_fate=lost + sum(len(stage.without_fate) for stage in stages),
        restarts=sum({(s.ledger.stage, s.ledger.stage_id, s.ledger.output_channel): s.restarts
                      for s in stages}.values()),
        failures=tuple(_failures(stages, channels)),
        drops=tuple(_drops(stages, channels)),
        notes=(*notes, *_notes(stages)),
        strict=strict,
    )  # fmt: skip


# -- sums ----------------------------------------------------------------------------------------


def _missed(stage: StageAccount, channels: Sequence[ChannelAudit]) -> IdSet:
    """The ids that a stage missed, without those that its source did not publish."""
    sources = [one for one in channels if one.channel in stage.inputs]
    if not sources or not all(one.publishers for one in sources):
        return stage.ledger.missed
    return stage.ledger.missed & union(one.published for one in sources)


def _count_published(stages: Sequence[StageAccount]) -> int:
    outputs = {stage.ledger.output_channel for stage in stages}
    sources = [stage for stage in stages if not stage.inputs]
    # A source without a ledger: only the ids that arrived from it are known.
    entries = [stage for stage in stages if stage.inputs and not outputs & set(stage.inputs)]
    sent = sum(
        sum(map(len, layers(p.published for s in sources if s.ledger.output_channel == name
                            for p in s.parts)))
        for name in in_order(stage.ledger.output_channel for stage in sources)
    )  # fmt: skip
    return sent + _count(entries, lambda p: (p.received | p.missed) - (p.skipped - p.processed))


def _count_processed(stages: Sequence[StageAccount]) -> int:
    read = {name for stage in stages for name in stage.inputs}
    ends = [stage for stage in stages if stage.inputs and stage.ledger.output_channel not in read]
    return _count(ends, lambda part: part.processed)


def _count(stages: Sequence[StageAccount], of: Callable[[Ledger], IdSet]) -> int:
    """Number of ids on all input channels; repeated ids count as in the subscriber with most."""
    total = 0
    for channel in in_order(stage.ledger.input_channel for stage in stages):
        here = [stage for stage in stages if stage.ledger.input_channel == channel]
        first = channel.split(",")[0].strip()
        bags = [layers(bag(members, of)) for members in subscribers(first, here)]
        depth = max(map(len, bags), default=0)
        total += sum(
            len(union(one[level] for one in bags if len(one) > level)) for level in range(depth)
        )
    return total


# -- sentences -----------------------------------------------------------------------------------


def _failures(stages: Sequence[StageAccount], channels: Sequence[ChannelAudit]) -> Iterable[str]:
    for channel in channels:
        source = ", ".join(in_order(channel.publishers)) or "a source without ledger"
        where = f"on channel {channel.channel}"
        for one in channel.subscribers:
            if one.lost:
                yield (
                    f"{_ids(one.lost)} lost between {source} and {one.name} {where}"
                    f" ({len(one.noted)} noted as missed)"
                )
            for member, ids in one.lost_by.items():
                yield f"{_ids(ids)} lost between {source} and {member} {where}"
            if one.unknown:
                yield (
                    f"{_ids(one.unknown)} unknown: it cannot be known whether they were sent"
                    f" {where}"
                )
            if one.surplus:
                yield (
                    f"{_ids(one.surplus)} processed by {one.name} more often than {source}"
                    f" published {where}"
                )
            yield from (f"{doubt} {where}" for doubt in one.doubts)
    for stage in stages:
        if stage.without_fate:
            yield f"{_ids(stage.without_fate)} received by {stage.name} without a fate"
        if n := stage.ledger.crowded:
            yield (
                f"ids of {stage.name} started again {n} times more than its ledger can record,"
                " with losses or drops each time; what was lost since then is unknown"
            )


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
    for channel in in_order(name for stage in stages for name in stage.inputs):
        if channel not in outputs:
            yield (
                f"source without ledger: {channel}; what it published is known only from its"
                " receivers: losses before the first id that arrived and after the last cannot be"
                " known"
            )
    for stage in stages:
        if stage.restarts:
            yield f"{stage.name}: started again {stage.restarts} times"
        if stage.ledger.duplicate:
            yield f"{stage.name}: {_ids(stage.ledger.duplicate)} arrived more than once"
        if stage.ledger.repaired:
            yield f"{stage.name}: {_ids(stage.ledger.repaired)} repaired"
        for reason, ids in stage.ledger.unrepairable.items():
            yield f"{stage.name}: {_ids(ids)} could not be repaired: {reason}"
        for kind, ids in stage.ledger.faults.items():
            yield f"{stage.name}: {_ids(ids)} {kind} on purpose"
        epochs = sum(part.epoch > 1 for part in stage.parts)
        if epochs:
            yield f"{stage.name}: ids started again {epochs + stage.left_out} times"
        if stage.left_out:
            yield (
                f"{stage.name}: {stage.left_out} of its epochs are not included in any number;"
                " nothing was lost or dropped in them"
            )
        if not stage.speaks_of_ids:
            yield f"{stage.name}: not audited, its {stage.ledger.anonymous} objects have no ids"
        elif not stage.ledger.received and not stage.ledger.published:
            yield f"{stage.name}: its ledger has no ids"


def _ids(ids: IdSet) -> str:
    return f"{'id' if len(ids) == 1 else f'{len(ids)} ids:'} {ids}"


# -- JSON ----------------------------------------------------------------------------------------


def _ranges(ids: IdSet) -> list[list[int]]:
    return [[start, end - 1] for start, end in ids.ranges().tolist()]


def _stage_dict(stage: StageAccount) -> dict[str, object]:
    one = stage.ledger
    plain: dict[str, object] = {
        name: getattr(one, name)
        for name in ("stage", "stage_id", "input_channel", "output_channel", "group", "client_set")
    }
    for name in _SETS:
        plain[name] = _ranges(getattr(one, name))
    for name in ("rejected", "failed", "faults", "unrepairable"):
        plain[name] = {reason: _ranges(ids) for reason, ids in getattr(one, name).items()}
    plain["asked"] = None if one.asked is None else _ranges(one.asked)
    plain["anonymous"] = one.anonymous
    plain["without_fate"] = _ranges(stage.without_fate)
    plain["restarts"] = stage.restarts
    plain["epochs"] = 1 + sum(part.epoch > 1 for part in stage.parts)
    plain["closed"] = one.closed
    return plain


def _channel_dict(channel: ChannelAudit) -> dict[str, object]:
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
                "unknown": _ranges(one.unknown),
                "surplus": _ranges(one.surplus),
                "unprocessed": _ranges(one.unprocessed),
                "doubts": list(one.doubts),
            }
            for one in channel.subscribers
        ],
    }
