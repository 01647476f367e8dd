"""Compares the ledgers of a run: every published id must arrive and have a fate.

The receivers of a channel are grouped into subscribers, each of which must get every published id:
a single stage, or all stages of one distributor group together. An id that was published twice, by
a source that was restarted, must arrive twice. What cannot be known is a failure. This module uses
no EPICS and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from msgspec import Struct

from pvapy_stream.accounting.bags import excess, layers
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, merged, union, wanted
from pvapy_stream.accounting.passes import arrived_in, holes, not_found
from pvapy_stream.accounting.witness import inputs, witnessed


class StageAccount(Struct, frozen=True):
    """The ledgers of one stage: of all its processes, and of all epochs of ids.

    Attributes:
        ledger: all its ledgers merged: an id has each fate that it has in one of them.
        parts: the single ledgers, in the order of incarnations and epochs.
        without_fate: received ids that have no fate.
        dropped: ids that were not processed, by fate; without skipped and filtered ids.
    """

    ledger: Ledger
    parts: tuple[Ledger, ...]
    without_fate: IdSet
    dropped: dict[str, IdSet]

    @property
    def name(self) -> str:
        """Such as ``consumer 2``."""
        return f"{self.ledger.stage} {self.ledger.stage_id}"

    @property
    def inputs(self) -> list[str]:
        """Channels it receives from."""
        return inputs(self.ledger)

    @property
    def speaks_of_ids(self) -> bool:
        """False for a stage whose objects have no ids; it cannot be audited."""
        return bool(self.ledger.received or self.ledger.published or not self.ledger.anonymous)

    @property
    def restarts(self) -> int:
        """How often its process was restarted."""
        return max(part.incarnation for part in self.parts) - 1 if self.parts else 0

    @property
    def left_out(self) -> int:
        """Number of epochs whose ledgers were removed: nothing was lost or dropped in them."""
        newest: dict[tuple[int, float], int] = {}
        for part in self.parts:
            if part.incarnation:
                newest[part.process] = max(part.epoch, newest.get(part.process, 0))
        kept = len({(*part.process, part.epoch) for part in self.parts if part.incarnation})
        return sum(newest.values()) - kept

    def count(self, name: str) -> int:
        """Number of ids in one of the sets, such as ``missed``, of all processes and epochs."""
        found: list[IdSet | dict[str, IdSet]] = [getattr(part, name) for part in self.parts]
        return sum(
            len(ids) if isinstance(ids, IdSet) else sum(map(len, ids.values())) for ids in found
        )


class SubscriberAudit(Struct, frozen=True):
    """The ids of a channel at one subscriber: a receiver, or a group of receivers.

    Attributes:
        name: such as ``consumer 1`` or ``group g (consumer 1, consumer 2)``.
        lost: published ids that did not arrive, and so have no fate.
        noted: lost ids that a receiver recorded as missed.
        lost_by: by member of a distributor set, ids that it lacks and other members received.
        unprocessed: published ids that arrived and that nobody processed.
        unknown: ids of which it is not known whether they were published.
        surplus: ids that were processed more often than they were published.
        doubts: why something cannot be known, one sentence each.
    """

    name: str
    lost: IdSet
    noted: IdSet
    lost_by: dict[str, IdSet]
    unprocessed: IdSet
    unknown: IdSet
    surplus: IdSet
    doubts: tuple[str, ...] = ()


class ChannelAudit(Struct, frozen=True):
    """One channel that stages of the run publish on, or receive from.

    Attributes:
        publishers: names of the stages that publish on it; empty if none of them has a ledger.
        published: ids that were published on it.
    """

    channel: str
    publishers: tuple[str, ...]
    published: IdSet
    subscribers: tuple[SubscriberAudit, ...]


def accounts(ledgers: Iterable[Ledger]) -> tuple[StageAccount, ...]:
    """One account for each stage; those of killed stages are completed from their receivers."""
    by_stage: dict[tuple[str, int, str, str, str, str], list[Ledger]] = {}
    for one in witnessed(list(ledgers)):
        key = (
            one.stage, one.stage_id, one.input_channel, one.output_channel, one.group,
            one.client_set,
        )  # fmt: skip
        by_stage.setdefault(key, []).append(one)
    return tuple(_account(same) for same in by_stage.values())


def _account(same: Sequence[Ledger]) -> StageAccount:
    parts = tuple(_parts(sorted(same, key=lambda one: (*one.process, one.epoch))))
    whole = merged(parts)
    # What one incarnation missed, another may have received.
    whole.missed = union(
        part.missed - union(o.received for o in parts if o is not part and _same_epoch(o, part))
        for part in parts
    )
    testified = union(part.processed for part in parts if part.incarnation == 0)
    # An id that was dropped, arrived again and was then processed counts as processed.
    arrived = [part.received - part.skipped for part in parts]
    short = excess(arrived, [part.processed for part in parts]) if len(parts) > 1 else None
    once = whole.processed if short is None else whole.processed - _in_several_epochs(parts, short)
    fates = {f"rejected ({policy})": ids for policy, ids in whole.rejected.items()}
    fates |= {f"failed ({error})": ids for error, ids in whole.failed.items()}
    fates["left at stop"] = whole.left
    dropped = {fate: ids - once for fate, ids in fates.items()}
    return StageAccount(
        whole,
        parts,
        union(part.without_fate() for part in parts) - testified,
        {fate: ids for fate, ids in dropped.items() if ids},
    )


def _parts(ledgers: Iterable[Ledger]) -> Iterable[Ledger]:
    """One ledger for each process and epoch; those of the acquisitions of a writer are merged.

    An id that two acquisitions requested arrived once.
    """
    for (process, _), group in groupby(ledgers, lambda one: (one.process, one.epoch)):
        found = list(group)
        if len(found) == 1 or not process[1]:
            yield from found
            continue
        whole = merged(found)
        whole.missed = whole.missed - whole.received
        whole.unknown = whole.unknown - whole.received
        yield whole


def _same_epoch(one: Ledger, other: Ledger) -> bool:
    return one.process != other.process or one.epoch == other.epoch


def _in_several_epochs(parts: Sequence[Ledger], short: IdSet) -> IdSet:
    """The ids in `short` if there are several epochs, else none."""
    return short if any(part.epoch > 1 for part in parts) else IdSet()


def in_order(names: Iterable[str]) -> list[str]:
    """Names in their order, without empty and repeated ones."""
    return list(dict.fromkeys(filter(None, names)))


# -- channels ------------------------------------------------------------------------------------


def channel_audits(stages: Sequence[StageAccount]) -> tuple[ChannelAudit, ...]:
    """Audits of all channels; those without a publisher's ledger come last."""
    outputs = in_order(stage.ledger.output_channel for stage in stages)
    entries = in_order(name for stage in stages for name in stage.inputs if name not in outputs)
    return tuple(_audit_channel(channel, stages) for channel in [*outputs, *entries])


def _audit_channel(channel: str, stages: Sequence[StageAccount]) -> ChannelAudit:
    publishers = [stage for stage in stages if stage.ledger.output_channel == channel]
    return ChannelAudit(
        channel,
        tuple(stage.name for stage in publishers),
        union(stage.ledger.published for stage in publishers),
        tuple(
            _audit_subscriber(channel, publishers, members)
            for members in subscribers(channel, stages)
        ),
    )


def subscribers(channel: str, stages: Sequence[StageAccount]) -> list[list[StageAccount]]:
    """The subscribers of a channel: each a single stage, or the stages of a group."""
    found: dict[tuple[str, int], list[StageAccount]] = {}
    for number, stage in enumerate(stages):
        if channel in stage.inputs and stage.speaks_of_ids:
            group = stage.ledger.group
            found.setdefault((group, -1 if group else number), []).append(stage)
    return list(found.values())


def _audit_subscriber(
    channel: str, publishers: Sequence[StageAccount], members: Sequence[StageAccount]
) -> SubscriberAudit:
    parts = [part for member in members for part in member.parts]
    asked = wanted(parts)
    sent = [part.published for stage in publishers for part in stage.parts]
    if asked is not None:
        sent = [ids & asked for ids in sent]
    arrived = bag(members, arrived_in)
    results = bag(members, lambda part: part.processed | part.filtered)
    skipped = union(part.skipped for part in parts)
    processed = union([*results])
    missed = not_found(parts, "missed")
    lost = excess(sent, arrived) - (skipped - union(arrived))
    unknown = IdSet()
    doubts: tuple[str, ...] = ()
    known = union(sent)
    if not publishers or any(_is_open_source(stage) for stage in publishers):
        # An initial update between ids that arrived was published in this run.
        known |= skipped & _span(union(arrived))
        unknown, doubts = _unknown(members)
        unknown = unknown - missed
        doubts += tuple(doubt for stage in publishers for doubt in _doubts_of_source(stage))
        lost = lost | (missed - union(sent))
    repeated = union(part.repeated for stage in publishers for part in stage.parts)
    group = members[0].ledger.group
    names = ", ".join(in_order(member.name for member in members))
    several = [stage for stage in members if len(stage.inputs) > 1]
    all_known = publishers and not any(stage.left_out for stage in publishers)
    return SubscriberAudit(
        name=f"group {group} ({names})" if group else names,
        lost=lost,
        noted=lost & missed,
        lost_by=_lost_in_sets(union(sent), members),
        unprocessed=(skipped & known) - processed,
        unknown=unknown - union(sent),
        # A ledger of several inputs does not record which id arrived through which input, and it
        # is not known what was published in epochs whose ledgers were removed.
        surplus=excess(results, sent) - repeated if all_known and not several else IdSet(),
        doubts=doubts,
    )


def _span(ids: IdSet) -> IdSet:
    first, last = ids.first, ids.last
    return IdSet() if first is None or last is None else IdSet.of_range(first, last)


def bag(members: Sequence[StageAccount], of: Callable[[Ledger], IdSet]) -> list[IdSet]:
    """Id sets of the members of a subscriber: an id is in as many sets as it arrived.

    Members of one distributor set receive the same ids, which count once.
    """
    found: list[IdSet] = []
    for name in dict.fromkeys(member.ledger.client_set for member in members):
        replicas = [
            layers(of(part) for part in member.parts)
            for member in members
            if member.ledger.client_set == name
        ]
        if name:
            depth = max(map(len, replicas), default=0)
            found += [union(one[k] for one in replicas if len(one) > k) for k in range(depth)]
        else:
            found += [ids for one in replicas for ids in one]
    return found


def _is_open_source(stage: StageAccount) -> bool:
    """Whether a source was killed: its ledger may lack the ids that it published last."""
    return not stage.inputs and any(not part.closed for part in stage.parts)


def _doubts_of_source(stage: StageAccount) -> Iterable[str]:
    """Why it is not known what a killed source published, one sentence for each process.

    Its ledger may lack its last ids. If a later process sent the same ids again and they were lost,
    they may be mistaken for ids of the killed process that arrived.
    """
    parts = [part for part in stage.parts if part.incarnation]
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        if not part.closed and (following is None or following.process != part.process):
            last = part.published.last
            when = "before it published any id" if last is None else f"after id {last}"
            yield (
                f"{stage.name} was killed {when}, according to its ledger, or still runs; what it"
                " published then is known only from its receivers"
            )


def _unknown(members: Sequence[StageAccount]) -> tuple[IdSet, tuple[str, ...]]:
    """Ids that a source without complete ledger may or may not have published, and why."""
    received = union(part.received for member in members for part in member.parts)
    between: list[IdSet] = []
    doubts: list[str] = []
    for member in members:
        parts = [part for part in member.parts if part.incarnation]
        there = {part.incarnation for part in parts}
        doubts += [
            f"{member.name}: the ledger of its process {number} is missing; what that process"
            " received is unknown"
            for number in range(1, member.restarts + 2)
            if number not in there
        ]
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            if following is not None and following.process == part.process:
                continue
            last = part.received.last
            first = None
            if following is not None:
                # A process that ended in order and was restarted received nothing in between.
                came = following.received
                first = (came if part.closed else came - following.skipped).first
            if last is not None and first is not None and first > last:
                between.append(IdSet.of_range(last + 1, first - 1))
            elif not part.closed:
                where = "before it received any id" if last is None else f"after id {last}"
                doubts.append(f"{member.name} was killed {where}; what it received then is unknown")
    own = not_found([part for member in members for part in member.parts], "unknown")
    return own | (union(between) - received) | _holes(members), tuple(doubts)


def _holes(members: Sequence[StageAccount]) -> IdSet:
    """Ids that no member of a group has, see `holes`."""
    if not members[0].ledger.group or any(member.left_out for member in members):
        # The ids of an epoch whose ledger was removed are not known.
        return IdSet()
    return holes([part for member in members for part in member.parts if part.incarnation])


def _lost_in_sets(published: IdSet, members: Sequence[StageAccount]) -> dict[str, IdSet]:
    """By member of a distributor set, ids that were sent to its set and that it lacks."""
    lacking: dict[str, IdSet] = {}
    for name in in_order(member.ledger.client_set for member in members):
        of_set = [member for member in members if member.ledger.client_set == name]
        others = union(m.ledger.received for m in members if m.ledger.client_set != name)
        # The ids that were sent to this set. Initial updates are not among them: every client
        # receives them. Nor are ids that another set received: a client may count them as missed
        # while the number of sets changes.
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
            # Ids that no member received are lost by the whole group, and reported there.
            lacks = (turns & published & arrived) - member.ledger.received
            if lacks:
                lacking[f"{member.name} of set {name}"] = lacks
    return lacking
