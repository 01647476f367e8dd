"""Whatever comes in, ids go out in order, once each, and nothing is forgotten."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from pvapy_stream.hpc.reorder import DUPLICATE, LATE, ReorderBuffer


def streams(copies: bool = False) -> st.SearchStrategy[tuple[list[list[int]], int]]:
    """Streams of several producers with increasing ids, and a seed to mix them."""
    one = st.lists(st.integers(0, 40), max_size=15, unique=True).map(sorted)
    return st.tuples(st.lists(one, min_size=1, max_size=4), st.integers(0, 2**32))


def mix(sent: list[list[int]], seed: int) -> list[tuple[int, int]]:
    """Arrivals (producer, id): each producer in order, all interleaved."""
    turns = [producer for producer, ids in enumerate(sent) for _ in ids]
    random.Random(seed).shuffle(turns)
    queues = [iter(ids) for ids in sent]
    return [(producer, next(queues[producer])) for producer in turns]


@given(streams())
def test_any_interleaving_comes_out_in_order_and_complete(
    case: tuple[list[list[int]], int],
) -> None:
    sent, seed = case
    buffer = ReorderBuffer(range(len(sent)), size=1000, gap_timeout=1e9)
    out = []
    for producer, value in mix(sent, seed):
        assert buffer.add(producer, value, (producer, value), now=0.0) is None
        out += buffer.release(0.0)
    out += buffer.drain()
    expected = sorted((value, producer) for producer, ids in enumerate(sent) for value in ids)
    assert [(r.id, r.producer) for r in out] == expected
    assert all(r.obj == (r.producer, r.id) for r in out)


@given(streams(), st.integers(1, 10))
def test_a_small_buffer_is_never_exceeded_and_what_comes_too_late_is_told(
    case: tuple[list[list[int]], int], size: int
) -> None:
    sent, seed = case
    buffer = ReorderBuffer(range(len(sent)), size=size, gap_timeout=1e9)
    out, late = [], []
    for producer, value in mix(sent, seed):
        if buffer.add(producer, value, None, 0.0) is None:
            out += buffer.release(0.0)
        else:
            late.append((value, producer))
        assert len(buffer) <= size
    out += buffer.drain()
    ids = [r.id for r in out]
    assert ids == sorted(ids)
    everything = sorted((value, producer) for producer, ids in enumerate(sent) for value in ids)
    assert sorted([(r.id, r.producer) for r in out] + late) == everything


@given(streams(), st.lists(st.integers(0, 59), max_size=10))
def test_duplicates_are_rejected_whether_held_or_gone(
    case: tuple[list[list[int]], int], again: list[int]
) -> None:
    sent, seed = case
    buffer = ReorderBuffer(range(len(sent)), size=1000, gap_timeout=1e9)
    out = []
    arrivals = mix(sent, seed)
    for step, (producer, value) in enumerate(arrivals):
        assert buffer.add(producer, value, None, 0.0) is None
        out += buffer.release(0.0)
        if step in again:
            assert buffer.add(producer, value, None, 0.0) in (LATE, DUPLICATE)
    out += buffer.drain()
    assert len(out) == len(arrivals)


def test_an_id_waits_until_all_producers_have_passed_it() -> None:
    buffer = ReorderBuffer("ab", size=100, gap_timeout=10)
    for value in (2, 4, 6):
        buffer.add("a", value, None, 0.0)
    assert buffer.release(0.0) == []
    buffer.add("b", 5, None, 0.0)
    assert [r.id for r in buffer.release(0.0)] == [2, 4, 5]
    buffer.add("b", 6, None, 0.0)
    assert [(r.id, r.producer) for r in buffer.release(0.0)] == [(6, "a"), (6, "b")]


def test_a_silent_producer_holds_up_the_others_for_a_limited_time() -> None:
    buffer = ReorderBuffer("ab", size=100, gap_timeout=2.0)
    buffer.add("a", 1, None, now=0.0)
    buffer.add("a", 2, None, now=1.5)
    assert buffer.release(1.9) == []
    assert [r.id for r in buffer.release(2.0)] == [1]
    assert [r.id for r in buffer.release(3.5)] == [2]
    assert buffer.add("b", 2, None, now=4.0) == LATE
    assert buffer.add("b", 3, None, now=4.0) is None


def test_a_dead_producer_holds_up_nobody() -> None:
    buffer = ReorderBuffer("ab", size=100, gap_timeout=1e9)
    buffer.add("a", 1, None, 0.0)
    assert buffer.release(0.0) == []
    buffer.set_live("b", False)
    assert [r.id for r in buffer.release(0.0)] == [1]
    buffer.set_live("b", True)
    buffer.add("b", 5, None, 0.0)
    buffer.add("a", 9, None, 0.0)
    assert [r.id for r in buffer.release(0.0)] == [5]


def test_disorder_within_a_producer_is_set_right_up_to_the_limit() -> None:
    buffer = ReorderBuffer("a", size=100, gap_timeout=1e9, disorder=2)
    out = []
    for value in (3, 1, 2, 5, 4, 6, 9, 7, 8):
        assert buffer.add("a", value, None, 0.0) is None
        out += buffer.release(0.0)
    out += buffer.drain()
    assert [r.id for r in out] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
