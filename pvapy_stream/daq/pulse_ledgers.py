"""The ledgers of a writer: which pulses were requested, received and saved."""

from __future__ import annotations

from dataclasses import dataclass, field

from pvapy_stream.accounting.idset import Comb, IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import JUMP
from pvapy_stream.daq.pulses import Epoch, Lost, PulseAccount
from pvapy_stream.daq.states import RangeState
from pvapy_stream.transport.registry import image_stream

KIND, STAGE_ID = "writer", 1

_LAST = 2**63 - 2  # as far as ids go
NOT_WRITTEN = "not written"
DAMAGED = "damaged value"


@dataclass(frozen=True, slots=True)
class Fates:
    """Fates of the pulses that were taken.

    Attributes:
        unwritten: pulses that are not flushed to the file.
        saved: pulses that are in the closed file; None if that is not known.
        damaged: pulses with a damaged value, whose other values are in the file.
        discarded: whether all were discarded, as requested.
        over: whether nothing more will be written.
    """

    unwritten: IdSet = field(default_factory=IdSet)
    saved: IdSet | None = None
    damaged: IdSet = field(default_factory=IdSet)
    discarded: bool = False
    over: bool = False


def channel_of(stream: str) -> str:
    """The name of a stream at its other end, where channels of images have no scheme."""
    images = image_stream(stream)
    return images[1] if images else stream.replace("buffer://", "tcp://", 1)


def wanted_by(asked: RangeState, pulses: PulseAccount) -> IdSet:
    """The ids that an acquisition requested, as far as they are known."""
    wanted = IdSet()
    if asked.start is not None:
        wanted.add_range(*_limits(asked, pulses))
    return wanted


def enter(ledgers: list[Ledger], asked: RangeState, pulses: PulseAccount, fates: Fates) -> None:
    """Add an acquisition to its program's ledgers; nothing for one that was not started.

    Args:
        ledgers: the account, a ledger for each epoch of ids; more are added when needed.
        asked: the acquisition's range.
        pulses: received pulses.
        fates: fates of the pulses.
    """
    if asked.start is None:
        return
    wanted = wanted_by(asked, pulses)
    stop = asked.stop.pulse_id if asked.stop else None
    lost = pulses.lost_by_epoch(stop if fates.over else None)
    # The newest pulses are those that wait.
    unwritten = fates.unwritten.copy()
    for number in reversed(range(len(pulses.epochs))):
        while len(ledgers) <= number:
            ledgers.append(ledgers[-1].next_epoch())
        ledger, epoch = ledgers[number], pulses.epochs[number]
        ledger.asked = (ledger.asked or IdSet()) | wanted
        came = (epoch.came if number else epoch.came | pulses.odd) & wanted
        waiting = came & unwritten
        unwritten.remove(waiting)
        _enter_epoch(ledger, epoch, came, waiting, fates)
        _enter_lost(ledger, lost[number], pulses.step, came)


def _enter_epoch(ledger: Ledger, epoch: Epoch, came: IdSet, waiting: IdSet, fates: Fates) -> None:
    ledger.received.update(came)
    ledger.duplicate.update(epoch.again & came)
    if fates.discarded:
        ledger.filtered.update(came)
        return
    failed = waiting
    if fates.saved is not None:
        failed = failed | (came - fates.saved)
    damaged = (came & fates.damaged) - failed
    ledger.processed.update(came - failed - damaged)
    for kind, ids in ((NOT_WRITTEN, failed), (DAMAGED, damaged)):
        # Pulses that wait for a flush have no fate yet.
        if ids and (fates.over or kind == DAMAGED):
            ledger.failed.setdefault(kind, IdSet()).update(ids)


def _enter_lost(ledger: Ledger, lost: Lost, step: int, came: IdSet) -> None:
    for first, last in lost:
        # As everywhere: it cannot be known whether so many were sent.
        fate = ledger.unknown if last - first > JUMP else ledger.missed
        ids = IdSet()
        ids.add_comb(Comb(first, 1, step, (last - first) // step + 1))
        fate.update(ids - came)


def _limits(asked: RangeState, pulses: PulseAccount) -> tuple[int, int]:
    """First and last requested id, as far as they are known."""
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
    last = pulses.highest if stop.pulse_id is None else stop.pulse_id
    return first, first - 1 if last is None else last
