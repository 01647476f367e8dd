"""Accounts of a run in which stages were killed: what others can witness is put in.

A killed stage takes the last moments of its account with it. But what others received from it, it
did publish, and so did receive and process; this is written into its account before the audit.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, union


def witnessed(ledgers: Sequence[Ledger], killed: Iterable[Ledger]) -> list[Ledger]:
    """All ledgers, and for each killed stage one more with what its receivers witness.

    Args:
        ledgers: of all stages, the killed ones too.
        killed: last accounts of processes that were killed.
    """
    found: dict[str, list[Ledger]] = {}
    for one in killed:
        if one.output_channel:
            found.setdefault(one.output_channel, []).append(one)
    gathered = list(ledgers)
    # Down the stream first: what a witness of a killed stage saw may itself be witnessed.
    for channel in _downstream_first(found, ledgers):
        known = union(one.published for one in gathered if one.output_channel == channel)
        arrived = union(
            one.received - (one.skipped - one.processed)
            for one in gathered
            if channel in _inputs(one)
        )
        unknown = arrived - known
        if unknown:
            gathered += _testimonies(found[channel], unknown, gathered, found)
    return gathered


def _testimonies(
    killed: list[Ledger], ids: IdSet, ledgers: Sequence[Ledger], doubtful: Container[str]
) -> list[Ledger]:
    """The ids, as accounts of the inputs they came by; the rest with the first."""
    made: list[Ledger] = []
    # Where the account of the publisher is whole, it tells; what is left came by the others.
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
                    one.client_set, received=own, processed=own, published=own,
                )
            )  # fmt: skip
    return made


def _inputs(ledger: Ledger) -> list[str]:
    return [name.strip() for name in ledger.input_channel.split(",")]


def _downstream_first(channels: Iterable[str], ledgers: Sequence[Ledger]) -> list[str]:
    """Channels, those first that are further down."""
    depth: dict[str, int] = {}

    def depth_of(channel: str, seen: frozenset[str]) -> int:
        if channel in seen:
            return 0
        if channel not in depth:
            publishers = [one for one in ledgers if one.output_channel == channel]
            above = [name for one in publishers for name in _inputs(one) if name]
            depth[channel] = 1 + max(
                (depth_of(name, seen | {channel}) for name in above), default=0
            )
        return depth[channel]

    return sorted(channels, key=lambda channel: -depth_of(channel, frozenset()))
