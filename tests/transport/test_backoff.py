"""What an outage of the other side costs the stream, and what it costs of the stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.net.client_errors import NoAnswerError, NotSentError, RefusedError
from pvapy_stream.transport.backoff import Attempts


def absent(patience: float) -> None:
    """A side that is not there: a search waits for it as long as it may."""
    time.sleep(patience)
    raise NotSentError("nobody answers")


def failing(attempts: Attempts, attempt: Callable[[float], None], time_ns: int = 0) -> float:
    """How long a failing object holds up the stream."""
    began = time.monotonic()
    with pytest.raises(TransportError):
        attempts.make(attempt, time_ns)
    return time.monotonic() - began


def test_an_outage_holds_up_the_stream_for_the_limit_once() -> None:
    attempts = Attempts("cannot", 0.3)
    assert failing(attempts, absent) >= 0.3
    assert sum(failing(attempts, absent) for _ in range(20)) < 0.3
    attempts.make(lambda patience: None)
    assert failing(attempts, absent) >= 0.3
    assert attempts.errors == 22


def test_objects_of_a_side_that_was_never_there_go_at_the_pace_of_their_times() -> None:
    attempts = Attempts("cannot", 0.1)
    for number in range(3):
        failing(attempts, absent, 10**18 + number * 10**8)
    assert failing(attempts, absent, 10**18 + 3 * 10**8) >= 0.1
    # Times that leap hold up nothing for long, and times that go back nothing at all.
    assert failing(attempts, absent, 2 * 10**18) >= 0.4
    assert failing(attempts, absent, 10**18) < 0.4


def test_objects_of_a_side_that_was_there_go_at_the_pace_at_which_they_were_sent() -> None:
    attempts = Attempts("cannot", 0.1)
    for _ in range(8):
        attempts.make(lambda patience: None)
        time.sleep(0.1)
    failing(attempts, absent)
    assert failing(attempts, absent) >= 0.05


def test_the_next_object_goes_as_soon_as_the_side_is_there() -> None:
    attempts = Attempts("cannot", 0.1)
    there = threading.Event()
    for number in range(2):
        failing(attempts, absent, 10**18 + number * 5 * 10**8)

    def attempt(patience: float) -> None:
        threading.Timer(0.05, there.set).start()
        if not there.wait(patience):
            raise NotSentError("nobody answers")

    attempts.make(attempt, 10**18 + 10**9)
    assert there.is_set()


def test_what_may_have_arrived_is_not_sent_again() -> None:
    attempts = Attempts("cannot put to channel x", 60)
    made: list[float] = []

    def unanswered(patience: float) -> None:
        made.append(patience)
        raise NoAnswerError("it gave no answer in time")

    with pytest.raises(TransportError, match="whether it has the object is not known"):
        attempts.make(unanswered)
    assert len(made) == 1


def test_a_side_that_refuses_is_tried_again_and_then_left_alone_for_a_while() -> None:
    attempts = Attempts("cannot", 0.3)
    made: list[float] = []

    def refuse(patience: float) -> None:
        made.append(patience)
        raise RefusedError("not now")

    assert failing(attempts, refuse) >= 0.3
    assert len(made) > 2
    for _ in range(100):
        failing(attempts, refuse)
    assert len(made) < 50
    with pytest.raises(TransportError, match="it is retried soon"):
        attempts.make(refuse)


def test_stop_ends_the_wait() -> None:
    attempts = Attempts("cannot", 60)

    def refuse(patience: float) -> None:
        attempts.stop()
        raise RefusedError("not now")

    assert failing(attempts, refuse) < 30
