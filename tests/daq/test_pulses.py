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


def test_distances_that_do_not_fit_are_no_negative_ranges() -> None:
    made = account([100, 110, 115, 135])
    assert all(first <= last for first, last in made.lost())
    made = account([10 * n for n in range(100)] + [995, 1020])
    assert made.step == 10
    assert made.lost() == [(1005, 1015)]
    assert made.n_lost == 2


def test_an_odd_id_says_nothing_of_others() -> None:
    made = account([*range(100, 110), 10**15, *range(110, 120), 0, *range(120, 130)])
    assert (made.lost(), made.n_lost, made.step) == ([], 0, 1)
    assert (made.first, made.last) == (100, 129)
    assert list(made.odd) == [0, 10**15]
    assert 10**15 in made.came
    made = account([10**15, *range(100, 110)])
    assert (made.lost(), made.first, made.last) == ([], 100, 109)


def test_a_source_that_starts_again_begins_an_epoch() -> None:
    made = account([*range(3154, 3160), *range(165, 169)])
    assert made.lost() == []
    assert (made.first, made.last, made.lowest, made.highest) == (3154, 168, 165, 3159)
    # The same ids once more, each time with its own losses.
    made = account([*range(1, 300), *range(1, 40), *range(60, 301)])
    assert made.lost_by_epoch() == [[], [(40, 59)]]
    assert made.n_lost == 20
    assert made.n_duplicates > 0
    made = account([*range(100, 150), *range(151, 300), *range(100, 200)], start=90)
    assert made.lost_by_epoch(310) == [[(90, 99), (150, 150)], [(300, 310)]]


def test_nothing_after_the_stop_is_lost() -> None:
    # All came too late: what was asked for is gone, and no more.
    assert account(range(2000, 2010), start=939).lost(until=1239) == [(939, 1239)]
    assert account([1, 2, 5, 9], start=1).lost(until=6) == [(3, 4), (6, 6)]


def test_a_jump_that_is_confirmed_is_a_gap() -> None:
    made = account([1, 2, 3, 10**6, 10**6 + 1])
    assert made.lost() == [(4, 10**6 - 1)]


@given(st.lists(st.integers(0, 100), min_size=1), st.integers(0, 50))
def test_what_came_and_what_is_lost_is_all(pulses: list[int], start: int) -> None:
    pulses = [start + n for n in pulses]
    made = account(pulses, start)
    lost = [n for first, last in made.lost() for n in range(first, last + 1, made.step)]
    assert not set(lost) & set(pulses)
    if len(set(pulses)) > 1 and made.step == 1:
        assert sorted({*lost, *pulses}) == list(range(start, max(pulses) + 1))
        assert made.n_lost == len(lost)
