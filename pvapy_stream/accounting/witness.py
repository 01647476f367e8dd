"""Completes the ledgers of killed stages from the ledgers of their receivers.

The last entries of a killed stage are lost. But ids that others received from it were published,
and therefore received and processed. The audit gets these ids as an additional ledger of the stage.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from pvapy_stream.accounting.bags import excess
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, union


def witnessed(ledgers: Sequence[Ledger]) -> list[Ledger]:
    """All ledgers, and for each killed stage one more with the ids its receivers have from it."""
    found: dict[str, list[Ledger]] = {}
    for one in ledgers:
        if not one.closed and one.output_channel:
            found.setdefault(one.output_channel, []).append(one)
    gathered = list(ledgers)
    # Downstream first: a receiver of a killed stage may be completed by its own receivers.
    for channel in _downstream_first(found, ledgers):
        known = [one.published for one in gathered if one.output_channel == channel]
        subscribers: dict[tuple[str, int, str], list[IdSet]] = {}
        for one in gathered:
            if channel in inputs(one):
                name = ("", 0, one.group) if one.group else (one.stage, one.stage_id, "")
                arrived = one.received - (one.skipped - one.processed)
                subscribers.setdefault(name, []).append(arrived)
        unknown = union(excess(arrived, known) for arrived in subscribers.values())
        if unknown:
            gathered += _testimonies(found[channel], unknown, gathered, found)
    return gathered


def _testimonies(
    killed: list[Ledger], ids: IdSet, ledgers: Sequence[Ledger], doubtful: Container[str]
) -> list[Ledger]:
    """Ledgers with these ids, one for each input; ids of unknown input are in the last one."""
    made: list[Ledger] = []
    # Inputs whose publishers have complete ledgers first; other ids came through the last input.
    whole_last = sorted(killed, key=lambda one: one.input_channel in doubtful)
    by_input = {one.input_channel: one for one in whole_last}
    left = ids
    for number, (channel, one) in enumerate(by_input.items(), 1):
        came = union(other.published for other in ledgers if other.output_channel == channel)
        own = left if number == len(by_input) else left & came
        left = left - own
        if own:
            made.append(
                Ledger(
                    one.stage, one.stage_id, one.input_channel, one.output_channel, one.group,
                    one.client_set, received=own if one.input_channel else IdSet(),
                    processed=own if one.input_channel else IdSet(), published=own, incarnation=0,
                )
            )  # fmt: skip
    return made


def inputs(ledger: Ledger) -> list[str]:
    """Input channels of a stage; several are separated by commas."""
    return [name for part in ledger.input_channel.split(",") if (name := part.strip())]


def _downstream_first(channels: Iterable[str], ledgers: Sequence[Ledger]) -> list[str]:
    """The channels, from downstream to upstream."""
    depth: dict[str, int] = {}

    def depth_of(channel: str, seen: frozenset[str]) -> int:
        if channel in seen:
            return 0
        if channel not in depth:
            publishers = [one for one in ledgers if one.output_channel == channel]
            above = [name for one in publishers for name in inputs(one)]
            depth[channel] = 1 + max(
                (depth_of(name, seen | {channel}) for name in above), default=0
            )
        return depth[channel]

    return sorted(channels, key=lambda channel: -depth_of(channel, frozenset()))
