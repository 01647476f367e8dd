"""What was published is kept, and given to those who ask for it by its ids."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pvapy_stream.pva.lazy import StreamObject, frame_of
from pvapy_stream.pva.net.encoded_updates import value_update
from pvapy_stream.pva.net.kept_updates import KeptUpdates
from pvapy_stream.transport.own_monitor import OwnMonitorReceiver
from pvapy_stream.transport.past_reader import PastAnswer, PastReader
from pvapy_stream.transport.ports import Publisher
from tests.pva.net.served import KIND, value_of
from tests.support import image, wait_until
from tests.transport.own_hosted.channels import Make, frame, lazy

Read = Callable[..., tuple[list[int], PastAnswer]]


def kept(size: int = 2**20, age: float = 0.0) -> KeptUpdates:
    return KeptUpdates(size, age)


def add(ring: KeptUpdates, *ids: int, late: bool = False) -> None:
    for value in ids:
        ring.add(value, value_update(KIND, value_of(value)), late)


def found(ring: KeptUpdates, *ids: int) -> list[int | str]:
    made = [(value, ring.get(value)) for value in ids]
    return [
        ring.why_not(value) if update is None else int(str(update.value["id"]))
        for value, update in made
    ]


def test_the_oldest_are_removed_when_there_are_too_many() -> None:
    ring = kept(100_000)
    add(ring, *range(1, 1001))
    assert ring.nbytes <= 100_000
    assert 10 < len(ring) < 1000
    first = 1001 - len(ring)
    assert found(ring, 1, first - 1, first, 1000, 1001) == ["gone", "gone", first, 1000, "never"]


def test_the_oldest_are_removed_when_they_are_too_old() -> None:
    ring = kept(age=0.2)
    add(ring, 1, 2)
    time.sleep(0.3)
    assert found(ring, 1, 2, 3) == ["gone", "gone", "never"]
    add(ring, 3)
    assert (found(ring, 3), len(ring)) == ([3], 1)


def test_an_id_that_was_published_twice_is_not_given() -> None:
    ring = kept()
    add(ring, 1, 2, 2, 3, 5, 4)
    assert found(ring, 1, 2, 3, 4, 5, 6) == [1, "several", 3, 4, 5, "never"]
    assert ring.laps == 1


def test_ids_that_start_again_are_another_lap_and_late_ones_are_not() -> None:
    ring = kept()
    add(ring, *range(1, 201))
    add(ring, 300)
    add(ring, 210, late=True)
    assert (ring.laps, found(ring, 199, 210)) == (1, [199, 210])
    add(ring, 1)
    assert (ring.laps, found(ring, 1, 199)) == (2, [1, "never"])


def test_a_thousand_ids_are_found_at_once() -> None:
    ring = kept(2**30)
    add(ring, *range(100_000))
    start = time.thread_time()
    assert all(ring.get(value) for value in range(50_000, 51_000))
    # In fact it takes 0.2 ms.
    assert time.thread_time() - start < 0.01


@pytest.fixture
def source(make: Make) -> Publisher:
    publisher = make(keep_past=10)
    publisher.open(lazy(0))
    for number in range(1, 101):
        publisher.publish(lazy(number))
    return publisher


@pytest.fixture
def identity() -> Iterator[Callable[[Publisher], str]]:
    made: list[OwnMonitorReceiver] = []

    def find(publisher: Publisher) -> str:
        receiver = OwnMonitorReceiver(publisher.channel)  # type: ignore[attr-defined]
        made.append(receiver)
        receiver.start(lambda obj: None)
        return wait_until(lambda: receiver.source)

    yield find
    for one in made:
        one.stop()


@pytest.fixture
def read(identity: Callable[[Publisher], str]) -> Iterator[Read]:
    readers: list[PastReader] = []

    def ask(
        publisher: Publisher, *ids: int, source: str = "", most: int = 10**6
    ) -> tuple[list[int], PastAnswer]:
        came: list[int] = []

        def take(obj: StreamObject) -> bool:
            got = frame_of(obj)
            assert np.array_equal(got.image, image(got.id, 8, 8))
            assert got.time_ns == frame(got.id).time_ns
            came.append(got.id)
            return len(came) < most

        readers.append(PastReader(publisher.channel, "field()"))  # type: ignore[attr-defined]
        end = time.monotonic() + 60
        answer = readers[-1].read(
            ids, source or identity(publisher), take, lambda: time.monotonic() < end
        )
        return came, answer

    yield ask
    for one in readers:
        one.close()


def test_what_is_asked_for_comes_once_and_the_rest_is_named(source: Publisher, read: Read) -> None:
    came, answer = read(source, *range(20, 40), 77, 200)
    assert came == [*range(20, 40), 77]
    assert answer == PastAnswer(complete=True)


def test_what_is_no_longer_kept_is_named(make: Make, read: Read) -> None:
    publisher = make(keep_past=0.02)
    for number in range(1, 101):
        publisher.publish(lazy(number))
    publisher.publish(lazy(100))
    came, answer = read(publisher, 1, 2, 98, 99, 100, 101)
    assert came == [98, 99]
    assert answer == PastAnswer(complete=True, absent={"gone": [1, 2], "several": [100]})


def test_another_program_is_not_asked(source: Publisher, read: Read) -> None:
    assert read(source, 20, source="pva 00") == ([], PastAnswer())


def test_ids_that_have_started_again_are_not_given(source: Publisher, read: Read) -> None:
    source.publish(lazy(1))
    came, answer = read(source, 1, 99)
    assert came == []
    assert "started again" in answer.problem


def test_who_asks_for_more_than_can_be_sent_gets_an_error(source: Publisher, read: Read) -> None:
    came, answer = read(source, *range(1, 1002))
    assert (came, "1000 ids" in answer.problem) == ([], True)


def test_a_taker_can_end_it(source: Publisher, read: Read) -> None:
    came, answer = read(source, *range(1, 101), most=3)
    assert (came, answer.complete) == ([1, 2, 3], False)


@pytest.mark.parametrize("library", ["own", "binding"])
def test_a_server_without_a_past_says_so(make: Make, read: Read, library: str) -> None:
    publisher = make(library)
    publisher.open(lazy(0))
    publisher.publish(lazy(1))
    came, answer = read(publisher, 1)
    assert (came, "keeps no past" in answer.problem) == ([], True)
