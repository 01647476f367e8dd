"""Accounts of a run in which stages were killed: what others can witness is put in.

A killed stage takes the last moments of its account with it. But what others received from it, it
did publish, and so did receive and process. This is put beside its ledgers before the audit.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from pvapy_stream.accounting.bags import excess
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, union


def witnessed(ledgers: Sequence[Ledger]) -> list[Ledger]:
    """All ledgers, and for each killed stage one more with what its receivers witness."""
    found: dict[str, list[Ledger]] = {}
    for one in ledgers:
        if not one.closed and one.output_channel:
            found.setdefault(one.output_channel, []).append(one)
    gathered = list(ledgers)
    # Down the stream first: what a witness of a killed stage saw may itself be witnessed.
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
    """The ids, as accounts of the inputs they came by; the rest with the first."""
    made: list[Ledger] = []
    # Where the account of the publisher is whole, it decides; what is left came by the others.
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
    """Channels a stage receives from; one with several lists them with commas."""
    return [name for part in ledger.input_channel.split(",") if (name := part.strip())]


def _downstream_first(channels: Iterable[str], ledgers: Sequence[Ledger]) -> list[str]:
    """Channels, those first that are further down."""
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
