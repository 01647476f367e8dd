"""The account of a writer: what it asked for, what came, what is lost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from pvapy_stream.accounting.audit_result import audit
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, merged
from pvapy_stream.daq.pulse_ledgers import Fates, channel_of, enter
from pvapy_stream.daq.pulses import PulseAccount
from pvapy_stream.daq.states import RangeState

ADDRESS = "tcp://127.0.0.1:8083"


def accounts(came: Iterable[int], asked: RangeState, **fates: Any) -> list[Ledger]:
    made = [Ledger("writer", 1, channel_of(ADDRESS.replace("tcp", "buffer")), "a.h5")]
    pulses = PulseAccount()
    if asked.start is not None and asked.start.pulse_id is not None:
        pulses.expect_from(asked.start.pulse_id)
    for pulse in came:
        pulses.add(pulse)
    enter(made, asked, pulses, Fates(**{"over": True, **fates}))
    return [Ledger.from_dict(one.to_dict()) for one in made]


def account(came: Iterable[int], asked: RangeState, **fates: Any) -> Ledger:
    (made,) = accounts(came, asked, **fates)
    return made


def asked(start: int | None, stop: int | None = None, *, oldest: bool = False) -> RangeState:
    made = RangeState()
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
    asking: RangeState, came: Iterable[int], lost: list[int]
) -> None:
    ids = IdSet(range(1, 11))
    buffer = Ledger("buffer", 1, "tcp://s:1", ADDRESS, received=ids, processed=ids, published=ids)
    result = audit([buffer, account(came, asking)])
    found = [pulse for c in result.channels for one in c.subscribers for pulse in one.lost]
    assert found == lost
    assert result.ok == (not lost)


def test_missed_failed_and_several_acquisitions() -> None:
    one = account([10, 12, 14, 18], asked(10, 18), unwritten=IdSet([14]))
    assert list(one.missed) == [16]
    assert list(one.failed["not written"]) == [14]
    assert list(one.processed) == [10, 12, 18]
    assert not one.without_fate()
    both = merged([one, account([1, 2], asked(1, 2))])
    assert list(both.asked or ()) == [1, 2, *range(10, 19)]
    # A stage that says nothing wants all.
    assert merged([one, Ledger("writer")]).asked is None


def test_an_acquisition_that_was_not_started_has_no_account() -> None:
    assert account([], RangeState()).asked is None


def test_only_what_is_flushed_is_processed() -> None:
    came, wanted = range(1, 400), asked(1)
    running = account(came, wanted, unwritten=IdSet(range(2, 400)), over=False)
    assert list(running.processed) == [1]
    assert len(running.without_fate()) == 398
    full = account(came, wanted, unwritten=IdSet(range(2, 400)))
    assert (list(full.processed), len(full.failed["not written"])) == ([1], 398)
    assert not full.without_fate()
    cut = account(came, wanted, saved=IdSet(range(1, 300)))
    assert (len(cut.processed), len(cut.failed["not written"])) == (299, 100)
    damaged = account(came, wanted, damaged=IdSet([7]), saved=IdSet(came))
    assert list(damaged.failed["damaged value"]) == [7]
    thrown = account(came, wanted, discarded=True)
    assert (len(thrown.filtered), len(thrown.processed)) == (399, 0)


def test_a_source_that_starts_again_has_an_account_for_each_time() -> None:
    first, second = accounts([*range(1, 300), *range(1, 40), *range(60, 301)], asked(1, 300))
    assert (first.epoch, second.epoch) == (1, 2)
    assert len(first.processed) == 299
    assert list(second.missed) == list(range(40, 60))
    assert len(second.processed) == 280


def test_ids_that_jump_are_unknown_and_not_missed() -> None:
    made = account([1, 2, 10**9, 10**9 + 1], asked(1))
    assert not made.missed
    assert len(made.unknown) == 10**9 - 3
