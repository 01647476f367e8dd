"""IdSet is a set, whatever the pattern of its ids."""

from __future__ import annotations

import itertools
import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvapy_stream.accounting.idset import Comb, IdSet
from tests.support import rounds

ids = st.lists(st.integers(0, 60), max_size=60)
# Runs of a split stream: widths and gaps that repeat, with some that do not.
streams = st.tuples(
    st.integers(-5, 5), st.lists(st.sampled_from([1, 1, 1, 1, 2, 5]), max_size=80)
).map(lambda pair: [pair[0] + sum(pair[1][:k]) for k in range(len(pair[1]))])
one = st.integers(0, 40)
combs = st.builds(
    lambda first, width, gap, times: Comb(first, width, width + gap, times),
    st.integers(-20, 40),
    st.integers(1, 4),
    st.integers(0, 5),
    st.integers(1, 8),
)


def members(comb: Comb) -> set[int]:
    return {comb.first + k * comb.period + j for k in range(comb.times) for j in range(comb.width)}


@given(st.one_of(ids, streams))
def test_holds_what_was_added(values: list[int]) -> None:
    held = IdSet(values)
    assert list(held) == sorted(set(values))
    assert len(held) == len(set(values))
    assert bool(held) == bool(values)
    assert all((k in held) == (k in set(values)) for k in range(-10, 150))
    assert IdSet.from_list(held.to_list()) == held == IdSet(sorted(values))


@given(st.one_of(ids, streams), st.one_of(ids, streams))
def test_algebra(left: list[int], right: list[int]) -> None:
    a, b = IdSet(left), IdSet(right)
    assert set(a | b) == set(left) | set(right)
    assert set(a - b) == set(left) - set(right)
    assert set(a & b) == set(left) & set(right)
    assert (a == b) == (set(left) == set(right))
    a.update(b)
    assert set(a) == set(left) | set(right)


@given(st.lists(st.one_of(one, combs, st.tuples(one, one), st.lists(one))))
def test_changes_of_all_kinds_mix(steps: list[int | Comb | tuple[int, int] | list[int]]) -> None:
    held, plain = IdSet(), set()
    for step in steps:
        if isinstance(step, list):
            held.remove(IdSet(step))
            plain -= set(step)
            assert held.last == max(plain, default=None)
            assert len(held) == len(plain)
        elif isinstance(step, Comb):
            held.add_comb(step)
            plain |= members(step)
        elif isinstance(step, tuple):
            held.add_range(*step)
            plain |= set(range(step[0], step[1] + 1))
        else:
            held.add(step)
            plain.add(step)
    assert list(held) == sorted(plain)
    assert all((k in held) == (k in plain) for k in range(-25, 120))


def test_a_long_stream_is_a_few_records() -> None:
    whole, third = IdSet(range(100_000)), IdSet(k for k in range(100_000) if k // 4 % 3 == 0)
    assert len(whole.to_list()) == 1
    assert len(third.to_list()) <= 2
    assert len(whole) == 100_000
    assert whole - third == IdSet(k for k in range(100_000) if k // 4 % 3)


def test_irregular_ids_are_merged_past_a_limit() -> None:
    squares = [k * k for k in range(9_000)]
    held = IdSet([*squares, *(k + 1 for k in squares), *squares])
    assert set(held) == {k + j for k in squares for j in (0, 1)}
    assert len(held.to_list()) < 18_500


@pytest.mark.parametrize("record", [[1, 2, 3], [0, 0, 1, 1], [0, 2, 1, 1], [0, 1, 1, 0]])
def test_a_malformed_record_is_refused(record: list[int]) -> None:
    with pytest.raises((ValueError, TypeError)):
        IdSet.from_list([record])


def test_ids_without_any_pattern_cost_few_bytes() -> None:
    draw = random.Random(7)
    ids = list(itertools.accumulate(draw.choice((2, 3, 5, 7, 11)) for _ in range(rounds(75_000))))
    tracemalloc.start()
    try:
        held = IdSet()
        for value in ids:
            held.add(value)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(held) == len(ids)
    assert used < 20 * len(ids)
    assert IdSet.from_list(held.to_list()) == held
    assert ids[1234] in held
    assert ids[1234] + 1 not in held


def test_a_far_id_costs_one_interval() -> None:
    held = IdSet(range(41))
    held.add(1_500_000_000)
    assert len(held) == 42
    assert held.to_list() == [[0, 41, 41, 1], [1_500_000_000, 1, 1, 1]]
    held.add_comb(Comb(2_000_000_000, 1, 1, 1_000_000_000))
    assert len(held) == 42 + 1_000_000_000
    assert held.last == 2_999_999_999


@given(st.one_of(ids, streams), one, one)
def test_between_and_remove(values: list[int], first: int, last: int) -> None:
    held = IdSet(values)
    part = {value for value in values if first <= value <= last}
    assert set(held.between(first, last)) == part
    held.remove(IdSet.of_range(first, last))
    assert set(held) == set(values) - part
    assert len(held) == len(set(values) - part)


@pytest.mark.parametrize("text", ["", "1:2", "x:1:abc", "1:1:!", "1:3:abc"])
def test_damaged_packed_ids_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="packed ids"):
        IdSet.from_list([text])


def test_text() -> None:
    assert str(IdSet([*range(1, 51), 53, 60, 61])) == "1-50,53,60-61"
    assert str(IdSet(range(0, 40, 2))).endswith(",… (20 ranges)")
    assert str(IdSet()) == ""
