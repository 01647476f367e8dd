"""Objects that are divided by load, or by the value of a field."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import LazyObject, frame_of, pv_object
from tests.support import wait_until
from tests.transport.shm_ends import Ends, connect

N = 300
QUEUE = 4


class Taker:
    """A receiver that takes nothing while it is held.

    Attributes:
        ids: of the images that came, whose pixels carry them.
        runs: values of their attribute `run`.
        came: how many came, the one that is held included.
    """

    def __init__(self) -> None:
        self.came = 0
        self.ids: list[int] = []
        self.runs: list[Any] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, obj: Any) -> None:
        frame = frame_of(obj)
        if not frame.id:
            return
        self.came += 1
        assert self.go.wait(60)
        assert frame.image.min() == frame.image.max() == frame.id
        self.ids.append(frame.id)
        self.runs.append(frame.attributes.get("run"))


@pytest.fixture
def takers(ends: Ends) -> Iterator[list[Taker]]:
    made = [Taker() for _ in range(3)]
    yield made
    for one in made:
        one.go.set()


def image(number: int, side: int = 8, **attributes: Any) -> LazyObject:
    return LazyObject(
        Frame.of(number, np.full((side, side), number, np.uint16), attributes=attributes)
    )


def join(ends: Ends, publisher: Any, takers: list[Taker], policy: str, **share: Any) -> list[Any]:
    made: list[Any] = []
    for number, one in enumerate(takers, 1):
        made.append(ends.receiver(one, group="g", policy=policy, queue=QUEUE, **share))
        connect(publisher, number)
    return made


def all_ids(takers: list[Taker]) -> list[int]:
    return sorted(number for one in takers for number in one.ids)


@pytest.mark.parametrize("side", [8, 200])
def test_a_busy_receiver_gets_no_more_than_its_queue(
    ends: Ends, takers: list[Taker], side: int
) -> None:
    publisher = ends.publisher()
    join(ends, publisher, takers, "least-queued")
    held = takers[1]
    held.go.clear()
    for number in range(1, N + 1):
        publisher.publish(image(number, side))
    wait_until(lambda: len(takers[0].ids) + len(takers[2].ids) >= N - QUEUE - 1)
    assert not held.ids
    held.go.set()
    wait_until(lambda: all_ids(takers) == [*range(1, N + 1)])
    assert 0 < len(held.ids) <= QUEUE + 1
    assert all(one.ids == sorted(one.ids) for one in takers)
    assert publisher.counts().rejected == 0


def fill(publisher: Any, takers: list[Taker]) -> int:
    """Publish what receivers that are held have room for; the last id."""
    for one in takers:
        one.go.clear()
    last = len(takers) * (QUEUE + 1)
    for number in range(1, last + 1):
        publisher.publish(image(number))
        # All take one, which is then no longer in a queue.
        wait_until(lambda n=number: sum(one.came for one in takers) == min(n, len(takers)))
    return last


def test_a_full_publisher_waits_for_whoever_takes_first(ends: Ends, takers: list[Taker]) -> None:
    publisher = ends.publisher(timeout=600)
    join(ends, publisher, takers, "least-queued")
    last = fill(publisher, takers)
    rest = range(last + 1, last + 31)
    thread = threading.Thread(target=lambda: [publisher.publish(image(n)) for n in rest])
    thread.start()
    # Longer than it takes until the status says so.
    wait_until(lambda: "publishing waits for" in publisher.problem)
    takers[2].go.set()
    wait_until(lambda: len(takers[2].ids) == QUEUE + 1 + len(rest))
    thread.join(60)
    assert takers[0].ids == takers[1].ids == []
    for one in takers:
        one.go.set()
    wait_until(lambda: all_ids(takers) == [*range(1, rest[-1] + 1)])
    assert publisher.counts().rejected == 0


def test_one_that_is_stuck_gets_nothing_while_others_take(ends: Ends, takers: list[Taker]) -> None:
    publisher = ends.publisher(timeout=0.3)
    join(ends, publisher, takers, "least-queued")
    last = fill(publisher, takers)
    # All are stuck now: nobody is waited for, and what comes is rejected.
    for number in range(last + 1, last + 101):
        publisher.publish(image(number))
    assert publisher.counts().rejected == 100
    takers[1].go.set()
    wait_until(lambda: len(takers[1].ids) == QUEUE + 1)
    for number in range(last + 101, last + 131):
        publisher.publish(image(number))
    wait_until(lambda: takers[1].ids[-1] == last + 130)
    assert publisher.counts().rejected == 100
    assert takers[0].ids == takers[2].ids == []


def test_idle_receivers_take_turns(ends: Ends, takers: list[Taker]) -> None:
    publisher = ends.publisher()
    join(ends, publisher, takers, "least-queued")
    for number in range(1, 31):
        publisher.publish(image(number))
        wait_until(lambda number=number: all_ids(takers) == [*range(1, number + 1)])
    assert [len(one.ids) for one in takers] == [10, 10, 10]


def test_a_run_stays_together(ends: Ends, takers: list[Taker]) -> None:
    publisher = ends.publisher()
    join(ends, publisher, takers, "least-queued", updates=5)
    takers[0].go.clear()
    for number in range(1, N + 1):
        publisher.publish(image(number))
        if number > 20:
            takers[0].go.set()
    wait_until(lambda: all_ids(takers) == [*range(1, N + 1)])
    for one in takers:
        firsts = [number for number in one.ids if number % 5 == 1]
        assert one.ids == [number for first in firsts for number in range(first, first + 5)]


def test_all_of_a_value_go_to_one(ends: Ends, takers: list[Taker]) -> None:
    publisher = ends.publisher()
    receivers = join(ends, publisher, takers, "sticky:run")
    rng = np.random.default_rng(5)
    for number in range(1, N + 1):
        publisher.publish(image(number, run=f"run {rng.integers(12)}"))
    wait_until(lambda: all_ids(takers) == [*range(1, N + 1)])
    owners = [set(one.runs) for one in takers]
    assert len(set.union(*owners)) == sum(map(len, owners)) == 12
    assert all(owners)
    # What one had is divided among the others when it leaves, and still stays together.
    assert receivers[0].stop(10) == []
    rest = takers[1:]
    connect(publisher, 2)
    for number in range(N + 1, 2 * N + 1):
        publisher.publish(image(number, run=f"run {rng.integers(12)}"))
    wait_until(lambda: all_ids(takers) == [*range(1, 2 * N + 1)])
    assert set.intersection(*(set(one.runs) for one in rest)) == set()
    assert set.union(*(set(one.runs) for one in rest)) == {f"run {k}" for k in range(12)}
    assert all(owners[k] <= set(one.runs) for k, one in enumerate(rest, 1))


def test_objects_without_the_attribute_go_together(ends: Ends, takers: list[Taker]) -> None:
    publisher = ends.publisher()
    join(ends, publisher, takers, "sticky:run")
    for number in range(1, 31):
        publisher.publish(image(number, **({"run": 1} if number % 2 else {})))
    wait_until(lambda: all_ids(takers) == [*range(1, 31)])
    assert sorted(map(len, (one.ids for one in takers))) == [0, 15, 15]


def test_the_field_of_an_object_that_is_no_image(ends: Ends) -> None:
    kind = {"uniqueId": pva.INT, "sample": {"name": pva.STRING}, "spectrum": [pva.DOUBLE]}

    def spectrum(number: int) -> Any:
        return pva.PvObject(kind, {"uniqueId": number, "sample": {"name": f"s{number % 5}"}})

    got: list[list[Any]] = [[], []]
    publisher = ends.publisher(spectrum(0))
    for number, one in enumerate(got, 1):
        ends.receiver(one.append, group="g", policy="sticky:sample.name")
        connect(publisher, number)
    for number in range(1, 41):
        publisher.publish(spectrum(number))
    # Each is shown one first.
    wait_until(lambda: sum(map(len, got)) == 42)
    names = [{pv_object(obj)["sample.name"] for obj in one[1:]} for one in got]
    assert len(names[0] | names[1]) == len(names[0]) + len(names[1]) == 5


def test_a_group_has_one_policy(
    ends: Ends, takers: list[Taker], caplog: pytest.LogCaptureFixture
) -> None:
    publisher = ends.publisher()
    join(ends, publisher, takers[:2], "least-queued")
    ends.receiver(takers[2], group="g", policy="sticky:run")
    wait_until(lambda: "--distributor-policy is sticky:run" in caplog.text)
    for number in range(1, N + 1):
        publisher.publish(image(number))
    wait_until(lambda: all_ids(takers[:2]) == [*range(1, N + 1)])
    assert not takers[2].ids
    assert publisher.subscribers == 2
