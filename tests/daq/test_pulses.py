from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pvapy_stream.daq.pulses import Order, PulseAccount


def account(pulses: list[int], start: int | None = None) -> PulseAccount:
    made = PulseAccount()
    if start is not None:
        made.expect_from(start)
    for pulse in pulses:
        made.add(pulse)
    return made


def test_order_is_told() -> None:
    made = PulseAccount()
    assert [made.add(n) for n in (5, 6, 8, 7, 8, 9)] == [
        Order.NEXT,
        Order.NEXT,
        Order.NEXT,
        Order.LATE,
        Order.DUPLICATE,
        Order.NEXT,
    ]
    assert (made.n_late, made.n_duplicates, made.n_lost) == (1, 1, 0)


def test_gaps_are_lost() -> None:
    made = account([1, 2, 5, 6, 10])
    assert made.lost() == [(3, 4), (7, 9)]
    assert made.n_lost == 5


def test_the_start_that_was_gone_and_the_stop_that_never_came() -> None:
    made = account([70, 71], start=50)
    assert made.lost() == [(50, 69)]
    assert made.lost(until=80) == [(50, 69), (72, 80)]
    assert made.n_lost == 20
    assert account([], start=5).lost(until=9) == [(5, 9)]
    assert account([], start=5).lost() == []


def test_a_slower_stream_has_no_gaps_at_its_own_distance() -> None:
    made = account([100, 110, 120, 140], start=95)
    assert made.lost(until=149) == [(130, 130)]
    assert made.n_lost == 1
    made = PulseAccount()
    made.expect_from(95)
    for pulse in (80, 90):
        made.seen_before(pulse)
    made.add(100)
    assert made.lost() == []
    assert account([0, 2, 1]).first == 0
    assert account([100, 110], start=75).lost() == [(80, 90)]


@given(st.lists(st.integers(0, 200), min_size=1), st.integers(0, 50))
def test_what_came_and_what_is_lost_is_all(pulses: list[int], start: int) -> None:
    made = account(pulses, start)
    lost = [n for first, last in made.lost() for n in range(first, last + 1, made.step)]
    assert not set(lost) & set(pulses)
    if len(set(pulses)) > 1 and made.step == 1:
        expected = range(min(min(pulses), start), max(pulses) + 1)
        assert sorted({*lost, *pulses}) == sorted({*expected, *pulses})
        assert made.n_lost == len(lost)
