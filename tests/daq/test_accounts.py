"""The account of a writer: what it asked for, what came, what is lost."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pvapy_stream.accounting.audit import audit
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, merged
from pvapy_stream.daq.accounts import channel_of, enter
from pvapy_stream.daq.pulses import PulseAccount
from pvapy_stream.daq.states import Range

ADDRESS = "tcp://127.0.0.1:8083"


def account(came: Iterable[int], asked: Range, unwritten: Iterable[tuple[int, int]] = ()) -> Ledger:
    made = Ledger("writer", 1, channel_of(ADDRESS.replace("tcp", "buffer")), "a.h5")
    pulses = PulseAccount()
    for pulse in came:
        pulses.add(pulse)
    stop = asked.stop.pulse_id if asked.stop else None
    enter(made, asked, pulses, pulses.lost(stop), unwritten)
    return Ledger.from_dict(made.to_dict())


def asked(start: int | None, stop: int | None = None, *, oldest: bool = False) -> Range:
    made = Range()
    made.set_start(start, 0.0, 0 if oldest else 1)
    if stop is not None:
        made.set_stop(stop, 0.0, 1)
    return made


@pytest.mark.parametrize(
    ("asking", "came", "lost"),
    [
        (asked(3, 6), range(3, 7), []),
        (asked(3, 6), [3, 5, 6], [4]),
        # What came after the stop was not asked for.
        (asked(3, 6), range(3, 9), []),
        (asked(3), range(3, 8), [8, 9, 10]),
        (asked(None), range(4, 11), []),
        (asked(None), [], []),
        (asked(None, oldest=True), range(4, 11), [1, 2, 3]),
        (asked(None, 6, oldest=True), range(1, 7), []),
    ],
)
def test_only_what_was_asked_for_can_be_lost(
    asking: Range, came: Iterable[int], lost: list[int]
) -> None:
    ids = IdSet(range(1, 11))
    buffer = Ledger("buffer", 1, "tcp://s:1", ADDRESS, received=ids, processed=ids, published=ids)
    result = audit([buffer, account(came, asking)])
    found = [pulse for c in result.channels for one in c.subscribers for pulse in one.lost]
    assert found == lost
    assert result.ok == (not lost)


def test_missed_failed_and_several_acquisitions() -> None:
    one = account([10, 12, 14, 18], asked(10, 18), [(14, 14)])
    assert list(one.missed) == [16]
    assert list(one.failed["not written"]) == [14]
    assert list(one.processed) == [10, 12, 18]
    assert not one.without_fate()
    both = merged([one, account([1, 2], asked(1, 2))])
    assert list(both.asked or ()) == [1, 2, *range(10, 19)]
    # A stage that says nothing wants all.
    assert merged([one, Ledger("writer")]).asked is None


def test_an_acquisition_that_was_not_started_has_no_account() -> None:
    assert account([], Range()).asked is None
