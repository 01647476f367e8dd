"""The account of a writer: which pulses it asked for, which came, and which did not."""

from __future__ import annotations

from collections.abc import Iterable

from pvapy_stream.accounting.idset import Comb, IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.daq.pulses import PulseAccount
from pvapy_stream.daq.states import Range

_LAST = 2**63 - 2  # as far as ids go
_NOT_WRITTEN = "not written"


def channel_of(stream: str) -> str:
    """A stream as the other end names it: PVA channels have no scheme there."""
    return stream.removeprefix("pva://").replace("buffer://", "tcp://", 1)


def enter(
    ledger: Ledger,
    asked: Range,
    pulses: PulseAccount,
    lost: Iterable[tuple[int, int]],
    unwritten: Iterable[tuple[int, int]],
) -> None:
    """Enter an acquisition into its program's account; nothing for one that was not started.

    Args:
        ledger: the account.
        asked: the acquisition's range.
        pulses: what came.
        lost: ranges of ids that did not come.
        unwritten: ranges of ids that the file did not take.
    """
    if asked.start is None:
        return
    wanted = IdSet()
    wanted.add_range(*_limits(asked, pulses))
    came = pulses.came & wanted
    failed = _ids(unwritten, 1) & came
    ledger.asked = (ledger.asked or IdSet()) | wanted
    ledger.received.update(came)
    ledger.processed.update(came - failed)
    ledger.missed.update(_ids(lost, pulses.step) - came)
    if failed:
        ledger.failed.setdefault(_NOT_WRITTEN, IdSet()).update(failed)


def _limits(asked: Range, pulses: PulseAccount) -> tuple[int, int]:
    """First and last id that it asked for, as far as that is known now."""
    start, stop = asked.start, asked.stop
    first = start.pulse_id if start else None
    if first is None:
        # From a moment on: those before the first that came were not meant.
        oldest = start is not None and start.time_ns == 0
        first = 0 if oldest else pulses.lowest
    if first is None:
        return 0, -1
    if stop is None:
        return first, _LAST
    last = pulses.last if stop.pulse_id is None else stop.pulse_id
    return first, first - 1 if last is None else last


def _ids(ranges: Iterable[tuple[int, int]], step: int) -> IdSet:
    found = IdSet()
    for first, last in ranges:
        found.add_comb(Comb(first, 1, step, (last - first) // step + 1))
    return found
