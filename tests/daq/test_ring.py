"""The ring: limits, order, spilling, cursors, and that nothing grows with its length."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvapy_stream.bsread.stored import Packer, Stored
from pvapy_stream.daq.cursor import Gone, RangeCursor
from pvapy_stream.daq.order import OrderIndex
from pvapy_stream.daq.ring import Ring, RingLimits
from pvapy_stream.daq.spill import Spill
from pvapy_stream.errors import SettingsError
from tests.daq.support import Messages, time_of

PERIOD = 0.01


@pytest.fixture
def spill(tmp_path: Path) -> Iterator[Spill]:
    made = Spill(tmp_path, 4 * 2**20)
    yield made
    made.close()


def filled(pulses: Any, limits: RingLimits | None = None, spill: Spill | None = None) -> Ring:
    """A ring with these pulses, one every 10 ms, the first at 0 s."""
    ring, messages = Ring(limits or RingLimits(), spill), Messages()
    for index, pulse in enumerate(pulses):
        # The time of an odd one is as that of the others.
        message = replace(messages.stored(min(pulse, 10_000)), pulse_id=pulse)
        ring.append(message, index * PERIOD)
    return ring


def taken(ring: Ring, start: int | None, stop: int | None, by: Any = "pulse_id") -> list[Any]:
    """Pulse ids and gone ranges that a reader gets, and True when the range ends."""
    cursor, got = RangeCursor(ring, by, start, stop), []
    while (item := cursor.take(1e9)) is not None:
        got.append(item.pulse_id if isinstance(item, Stored) else item)
    return [*got, True] if cursor.finished else got


def test_limits_of_messages_and_seconds() -> None:
    ring = filled(range(1, 201), RingLimits(messages=50))
    assert (len(ring), ring.edges(), ring.dropped) == (50, (151, 200), 150)
    ring = filled(range(1, 201), RingLimits(seconds=0.5))
    assert ring.seconds == pytest.approx(0.5)
    assert ring.edges()[1] == 200


def test_limit_of_bytes_and_a_message_larger_than_it() -> None:
    messages = Messages()
    messages.stored(0)  # whose data header the others share
    cost = messages.stored(1).cost
    ring = filled(range(1, 201), RingLimits(nbytes=20 * cost))
    assert 17 <= len(ring) <= 22
    assert ring.memory <= 20 * cost
    ring = Ring(RingLimits(nbytes=10))
    ring.append(messages.stored(1), 0)
    ring.append(messages.stored(2), 0)
    assert ring.edges() == (2, 2)


def test_messages_come_out_as_they_went_in(spill: Spill) -> None:
    packer, rng = Packer(), random.Random(1)
    sent = []
    ring = Ring(RingLimits(messages=20), spill)
    for pulse in range(100):
        sizes = [rng.choice([0, 0, 0, 5, 5, 16, 16, 70_000]) for _ in range(2 * rng.randrange(4))]
        header = f"header {pulse // 7}".encode()
        parts = [f"main {pulse}".encode(), header, *map(rng.randbytes, sizes)]
        sent.append(parts)
        ring.append(packer.pack(parts, pulse, pulse), pulse)
    assert [[bytes(p) for p in ring.get(n).parts()] for n in range(100)] == sent
    assert (ring.first, ring.in_memory, ring.dropped) == (0, 20, 0)


def counts_of(values: list[int]) -> tuple[int, set[int]]:
    """Where the newest count began, and what is odd, by looking at one value after the other."""

    def near(value: int, other: int) -> bool:
        return -30 <= value - other <= 40

    began, largest, doubted, odd = 0, None, None, set()
    for n, value in enumerate(values):
        if largest is None or near(value, largest):
            largest, doubted = value if largest is None else max(largest, value), None
        elif doubted is not None and value != values[doubted] and near(value, values[doubted]):
            odd.remove(doubted)
            began = doubted if values[doubted] < largest else began
            largest, doubted = max(value, values[doubted]), None
        else:
            odd.add(n)
            doubted = n
    return began, odd


@given(st.lists(st.integers(-50, 50), max_size=300), st.integers(0, 40), st.integers(-60, 60))
@settings(deadline=None)
def test_search_finds_the_first_that_is_not_smaller(
    values: list[int], dropped: int, value: int
) -> None:
    order = OrderIndex(restart=30, jump=40)
    for step in values:
        order.append(step)
    for _ in range(min(dropped, len(values))):
        order.drop()
    first = min(dropped, len(values))
    began, odd = counts_of(values)
    assert order.count_began == began
    assert [order.is_odd(n) for n in range(first, len(values))] == [
        n in odd for n in range(first, len(values))
    ]
    expected = next(
        (
            i
            for i in range(max(began, first), len(values))
            if max((values[n] for n in range(began, i + 1) if n not in odd), default=-99) >= value
        ),
        len(values),
    )
    assert order.find(value) == expected


@pytest.mark.parametrize(
    ("pulses", "limit", "start", "stop", "expected"),
    [
        (range(1, 101), 0, 40, 43, [40, 41, 42, 43, True]),
        (range(1, 101), 0, 98, 100, [98, 99, 100, True]),
        (range(1, 101), 0, 98, 105, [98, 99, 100]),
        (range(1, 101), 0, 200, 300, []),
        (range(1, 101), 10, 50, 92, [Gone(50, 90, "dropped"), 91, 92, True]),
        (range(1, 101), 10, 50, 60, [Gone(50, 60, "dropped"), True]),
        (range(50, 101), 0, 10, 51, [Gone(10, 49, "before"), 50, 51, True]),
        (range(50, 101), 0, 10, 20, [Gone(10, 20, "before"), True]),
        (range(10, 500, 10), 0, 95, 121, [100, 110, 120, True]),
        (range(10, 500, 10), 5, 445, 460, [450, 460, True]),
        ([1, 2, 4, 3, 5, 6], 0, 3, 5, [4, 3, 5, True]),
        ([1, 2, 3, 3, 4], 0, 3, 3, [3, 3, True]),
        ([1, 2, 6, 3, 7], 0, 3, 3, [3, True]),
        ([500, 501, 502, 1, 2, 3, 4], 0, 2, 3, [2, 3, True]),
        # A single odd id hides nothing, wherever it is.
        ([500, 501, 0, 502, 503], 0, 500, 502, [500, 501, 502, True]),
        ([500, 501, 10**15, 502, 503], 0, 500, 502, [500, 501, 502, True]),
        ([500, 501, 10**15, 502, 503], 0, 501, None, [501, 10**15, 502, 503]),
        ([500, 501, 502, 0], 0, 500, 501, [500, 501, True]),
        ([500, 501, 10**15], 0, 500, 501, [500, 501, True]),
        ([10**15, 500, 501, 502], 0, 501, 502, [501, 502, True]),
        ([500, 501, 0, 0, 502, 503], 2, 501, 503, [Gone(501, 501, "dropped"), 502, 503, True]),
        ([500, 501, 10**9, 10**9 + 1], 0, 501, 10**9 + 1, [501, 10**9, 10**9 + 1, True]),
        ([], 0, 1, 2, []),
        (range(-10, 10), 0, -3, -1, [-3, -2, -1, True]),
    ],
)
def test_ranges(pulses: Any, limit: int, start: int, stop: int, expected: list[Any]) -> None:
    assert taken(filled(pulses, RingLimits(messages=limit)), start, stop) == expected


def test_range_by_time() -> None:
    ring = filled(range(1, 101))
    assert taken(ring, time_of(40) - 1, time_of(42), "time") == [40, 41, 42, True]


def test_late_pulse_is_waited_for() -> None:
    ring, messages = filled([1, 2, 4]), Messages()
    cursor = RangeCursor(ring, "pulse_id", 1, 3)
    assert [cursor.take(0.1).pulse_id for _ in range(2)] == [1, 2]
    assert cursor.take(0.1) is None
    assert not cursor.finished
    ring.append(messages.stored(3), 0.2)
    assert cursor.take(0.2).pulse_id == 3
    assert cursor.take(0.3) is None
    assert not cursor.finished
    assert cursor.take(0.6) is None
    assert cursor.finished


def test_slow_reader_is_told_what_it_has_lost() -> None:
    ring, messages = filled(range(1, 11), RingLimits(messages=10)), Messages()
    cursor = RangeCursor(ring, "pulse_id", 1, 40)
    assert [cursor.take(0).pulse_id for _ in range(3)] == [1, 2, 3]
    for pulse in range(11, 31):
        ring.append(messages.stored(pulse), 0)
    assert cursor.take(0) == Gone(4, 20, "dropped")
    assert cursor.take(0).pulse_id == 21


@pytest.mark.parametrize("start", [None, 1001])
def test_slow_reader_over_a_restart_of_the_source(start: int | None) -> None:
    ring, messages = filled([1000], RingLimits(messages=10)), Messages()
    cursor = RangeCursor(ring, "pulse_id", start, None)
    for pulse in range(1001, 1011):
        ring.append(messages.stored(pulse), 0)
    assert cursor.take(0).pulse_id == 1001
    for pulse in range(1, 31):
        ring.append(messages.stored(pulse), 0)
    assert cursor.take(0) == Gone(1002, 1010, "dropped")
    if start is None:
        assert cursor.take(0) == Gone(1, 20, "dropped")
        assert cursor.take(0).pulse_id == 21
    else:
        assert cursor.take(0) is None
        assert cursor.waits


@pytest.mark.parametrize("odd", [0, 10**15])
def test_a_reader_is_not_led_astray_by_an_odd_pulse_id(odd: int) -> None:
    ring, messages = filled([1000, 1001, odd]), Messages()
    cursor = RangeCursor(ring, "pulse_id", 1000, 1003)
    assert [cursor.take(0).pulse_id for _ in range(2)] == [1000, 1001]
    # The next message tells whether the source has started again.
    assert cursor.take(0.1) is None
    assert cursor.waits
    for pulse in (1002, 1003):
        ring.append(messages.stored(pulse), 0.2)
    assert [cursor.take(0.3).pulse_id for _ in range(2)] == [1002, 1003]
    assert ring.pulses.newest == 1003
    assert ring.edges() == (1000, 1003)


def test_a_reader_over_a_restart_that_it_saw_come() -> None:
    ring, messages = filled([1000, 1001, 1], RingLimits(messages=3)), Messages()
    cursor = RangeCursor(ring, "pulse_id", None, None)
    cursor.position = ring.first
    assert [cursor.take(9).pulse_id for _ in range(3)] == [1000, 1001, 1]
    for pulse in range(2, 9):
        ring.append(messages.stored(pulse), 10)
    # What is gone is told in the ids of the new count.
    assert cursor.take(10) == Gone(2, 5, "dropped")
    assert cursor.take(10).pulse_id == 6


def test_next_pulse_and_stop_later() -> None:
    ring, messages = filled(range(1, 11)), Messages()
    cursor = RangeCursor(ring, "pulse_id", None, None)
    assert cursor.take(0) is None
    for pulse in range(11, 21):
        ring.append(messages.stored(pulse), 1)
    assert [cursor.take(1).pulse_id for _ in range(4)] == [11, 12, 13, 14]
    cursor.set_stop(12)
    assert cursor.take(1) is None
    assert cursor.finished


@given(
    steps=st.lists(st.integers(1, 3), min_size=1, max_size=80),
    limit=st.integers(1, 40),
    start=st.integers(-5, 160),
    length=st.integers(0, 100),
    opened=st.integers(0, 80),
    turns=st.lists(st.integers(0, 4), min_size=80, max_size=80),
)
@settings(deadline=None)
def test_every_pulse_of_a_range_comes_or_is_told_to_be_gone(
    steps: list[int], limit: int, start: int, length: int, opened: int, turns: list[int]
) -> None:
    """A source and a reader in any rhythm, over a ring that may be too small."""
    ring, template = Ring(RingLimits(messages=limit)), Messages().stored(0)
    pulses = list(itertools.accumulate(steps))
    stop, delivered, gone = start + length, [], []
    cursor: RangeCursor | None = None

    def take(most: int, now: float) -> None:
        for _ in range(most):
            item = cursor.take(now) if cursor is not None else None
            if isinstance(item, Gone):
                gone.append(item)
            elif item is not None:
                delivered.append(item.pulse_id)

    for index, pulse in enumerate(pulses):
        if index == min(opened, len(pulses) - 1):
            cursor = RangeCursor(ring, "pulse_id", start, stop)
        ring.append(replace(template, pulse_id=pulse), index)
        take(turns[index], index)
    take(1000, 1e9)
    told = {pulse for one in gone for pulse in range(one.start, one.stop + 1)}
    asked = {pulse for pulse in pulses if start <= pulse <= stop}
    assert delivered == sorted(asked - told)
    assert told <= set(range(start, stop + 1)) - set(delivered)
    assert cursor is not None
    assert cursor.finished == (pulses[-1] >= stop)


def test_disk_takes_what_memory_has_no_room_for(spill: Spill, tmp_path: Path) -> None:
    ring = filled(range(1, 501), RingLimits(messages=50), spill)
    assert (len(ring), ring.in_memory, ring.dropped) == (500, 50, 0)
    assert taken(ring, 10, 14) == [10, 11, 12, 13, 14, True]
    assert spill.nbytes > 0
    assert list(tmp_path.iterdir()) == []


def test_disk_limit(spill: Spill) -> None:
    ring, messages, packer = Ring(RingLimits(messages=2), spill), Messages(), Packer()
    parts = [*messages.parts(0)[:2], b"x" * 100_000, b"t" * 16, *messages.parts(0)[4:]]
    for pulse in range(200):
        ring.append(packer.pack(parts, pulse, pulse), pulse)
    assert spill.nbytes <= 4 * 2**20
    assert len(ring) > 20
    assert taken(ring, 0, 1) == [Gone(0, 1, "dropped"), True]


def test_full_disk_is_told_and_memory_goes_on() -> None:
    # Writing to it always fails: there is no space left.
    class Full(Spill):
        def write(self, sequence: int, message: Stored) -> bool:
            self._fail(OSError(28, "No space left on device"))
            return False

    spill = Full(Path("/tmp"), 2**20)
    ring = filled(range(1, 101), RingLimits(messages=10), spill)
    assert (ring.edges(), ring.dropped) == ((91, 100), 90)
    assert "No space left" in spill.error


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot write to .*nowhere"):
        Spill(tmp_path / "nowhere", 2**20)


def test_cost_does_not_grow_with_length() -> None:
    def cost(length: int) -> float:
        message = Messages().stored(1)
        ring = Ring(RingLimits(messages=length))
        for n in range(length):
            message.pulse_id = n
            ring.append(message, n)
        best = float("inf")
        for _ in range(5):
            began = time.process_time()
            for n in range(5000):
                message.pulse_id = length + n
                ring.append(message, length + n)
            best = min(best, time.process_time() - began)
        return best

    assert cost(200_000) < 5 * cost(1000)
