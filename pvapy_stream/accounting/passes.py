"""Ledgers of several stages for the same pass of a source, and ids that none of them has.

A pass is one epoch of the ids of a source.
"""

from __future__ import annotations

from collections.abc import Sequence

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, union


def arrived_in(part: Ledger) -> IdSet:
    """Ids that arrived, without initial updates that were not processed."""
    return part.received - (part.skipped - part.processed)


def may_be_same_pass(one: Ledger, other: Ledger) -> bool:
    """Whether epochs of two ledgers may be the same; a process that was killed began with 1."""
    if one.process == other.process and one.stage_id == other.stage_id:
        return one.epoch == other.epoch
    same = _is_same_source(one, other)
    if same is not None:
        restarted = one.incarnation != 1 or other.incarnation != 1
        return same and (one.lap == other.lap or one.epoch == other.epoch or restarted)
    return one.epoch == other.epoch or one.incarnation != 1 or other.incarnation != 1


def _is_same_source(one: Ledger, other: Ledger) -> bool | None:
    """Whether the ids of two epochs come from one program; None where that is not known.

    A program has one name for each transport, which begins with a word for the transport.
    """
    if set(one.sources) & set(other.sources):
        return True
    transports = {name.split()[0] for name in one.sources} & {
        name.split()[0] for name in other.sources
    }
    return False if transports else None


def not_found(parts: Sequence[Ledger], name: str) -> IdSet:
    """Ids of one of the sets, such as ``missed``, that no ledger of the same pass has received."""
    return union(
        ids - union(arrived_in(other) for other in parts if may_be_same_pass(other, part))
        for part in parts
        if (ids := getattr(part, name))
    )


def holes(parts: Sequence[Ledger]) -> IdSet:
    """Ids that a source sent to stages that share its stream, and that none of them received.

    A stage cannot always know which ids of its share are lost: not after the last object that it
    received, nor before the first, nor while the number of stages changes. The ids that the other
    stages received before and after show it.

    Args:
        parts: the ledgers of all stages that share the stream.
    """
    passes: list[list[Ledger]] = []
    for part in parts:
        # It is not known which pass a restarted process received first.
        known = part.incarnation == 1
        same = (one for one in passes if known and _is_of_pass(part, one[0]))
        of_pass = next(same, None)
        if of_pass is None:
            passes.append([part])
        else:
            of_pass.append(part)
    found: list[IdSet] = []
    for of_pass in passes:
        span = _sent_to(of_pass)
        near = [one for one in parts if any(may_be_same_pass(one, part) for part in of_pass)]
        found.append(span - union(ids for one in near for ids in (arrived_in(one), one.excused)))
    return union(found)


def _is_of_pass(part: Ledger, other: Ledger) -> bool:
    return other.incarnation == 1 and may_be_same_pass(part, other)


def _sent_to(parts: Sequence[Ledger]) -> IdSet:
    """The ids that a source sent while at least one of the stages received."""
    arrived, shown = union(map(arrived_in, parts)), union(part.skipped for part in parts)
    known = [arrived.last, shown.last, *(part.newest for part in parts)]
    last = max((value for value in known if value is not None), default=None)
    first = arrived.first
    if first is None:
        before = shown.first
    else:
        before = shown.between(1, first - 1).first if first > 1 else None
    if before is not None:
        first = before + 1
    elif first is None and any(part.epoch > 1 or part.opened for part in parts):
        # They were connected before the source sent its first id.
        first = 1
    if first is None or last is None or first > last:
        return IdSet()
    return IdSet.of_range(first, last)
