from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvapy_stream.daq.states import Phase, RangeState, Verdict
from pvapy_stream.errors import ConflictError, RangeError

SECOND = 10**9


def started(start: int | None = 0, stop: int | None = None) -> RangeState:
    made = RangeState()
    made.set_start(start, 0.0, 0)
    if stop is not None:
        made.set_stop(stop, 0.0, 0)
    return made


def written(asked: RangeState, pulses: list[int]) -> list[int]:
    """Which of the pulses are written."""
    found = []
    for pulse in pulses:
        if asked.judge(pulse, None, 0.0) in (Verdict.WRITE, Verdict.WRITE_LAST):
            found.append(pulse)
        asked.look(pulse, 0.0)
    return found


def test_the_phases_of_an_acquisition() -> None:
    asked = RangeState()
    assert asked.judge(1, None, 0.0) is Verdict.SKIP
    assert asked.phase is Phase.WAITING
    asked.set_start(5, 0.0, 0)
    assert asked.phase is Phase.ARMED
    assert asked.judge(4, None, 0.0) is Verdict.SKIP
    assert asked.phase is Phase.ARMED
    assert asked.judge(5, None, 0.0) is Verdict.WRITE
    assert asked.phase is Phase.WRITING
    asked.set_stop(6, 0.0, 0)
    assert asked.judge(6, None, 0.0) is Verdict.WRITE_LAST
    assert asked.phase is Phase.FINISHING
    assert asked.judge(7, None, 0.0) is Verdict.SKIP
    asked.succeeded()
    assert asked.phase is Phase.DONE


def test_words_that_users_of_the_interface_know() -> None:
    assert [phase.word for phase in Phase] == [
        "waiting",
        "writing",
        "writing",
        "writing",
        "done",
        "error",
    ]


def test_a_stream_that_ends_exactly_at_stop_finishes() -> None:
    asked = started(5, 50)
    assert written(asked, list(range(51))) == list(range(5, 51))
    assert asked.phase is Phase.FINISHING


def test_the_stop_pulse_itself_may_be_missing() -> None:
    asked = started(5, 50)
    assert written(asked, [*range(40), 51]) == list(range(5, 40))
    assert asked.phase is Phase.FINISHING


def test_a_stop_that_is_set_late_ends_at_once() -> None:
    asked = started(5)
    written(asked, list(range(100)))
    asked.set_stop(50, 0.0, 0)
    asked.look(99, 0.0)
    assert asked.phase is Phase.FINISHING


def test_a_stop_may_be_set_first() -> None:
    asked = RangeState()
    asked.set_stop(7, 0.0, 0)
    asked.set_start(6, 0.0, 0)
    assert written(asked, [5, 6, 7, 8]) == [6, 7]


@pytest.mark.parametrize(("start", "stop"), [(5, 4), (100, 0)])
def test_a_stop_before_the_start_is_refused_whichever_comes_first(start: int, stop: int) -> None:
    with pytest.raises(RangeError, match="before start"):
        started(start).set_stop(stop, 0.0, 0)
    asked = RangeState()
    asked.set_stop(stop, 0.0, 0)
    with pytest.raises(RangeError, match="before start"):
        asked.set_start(start, 0.0, 0)
    assert asked.phase is Phase.WAITING


def test_impossible_pulse_ids_are_refused() -> None:
    for pulse in (-1, 2**63):
        with pytest.raises(RangeError, match="out of range"):
            RangeState().set_start(pulse, 0.0, 0)
        with pytest.raises(RangeError, match="out of range"):
            started().set_stop(pulse, 0.0, 0)


def test_what_cannot_be_in_a_state_is_refused() -> None:
    with pytest.raises(ConflictError, match="already been started"):
        started().set_start(1, 0.0, 0)
    with pytest.raises(ConflictError, match="no acquisition was started"):
        RangeState().set_stop(None, 0.0, 0)
    asked = started(1, 1)
    asked.judge(1, None, 0.0)
    with pytest.raises(ConflictError, match="finishing"):
        asked.set_stop(1, 0.0, 0)


def test_start_now_passes_over_what_was_sent_before() -> None:
    asked = RangeState()
    asked.set_start(None, 100.0, 50 * SECOND)
    assert asked.judge(1, 49 * SECOND, 100.01) is Verdict.SKIP
    assert asked.judge(2, 50 * SECOND, 100.02) is Verdict.WRITE
    # Once begun, times may go back.
    assert asked.judge(3, 49 * SECOND, 100.03) is Verdict.WRITE


def test_start_now_with_a_sender_whose_clock_is_behind_or_not_told() -> None:
    asked = RangeState()
    asked.set_start(None, 100.0, 50 * SECOND)
    assert asked.judge(1, 10 * SECOND, 100.5) is Verdict.SKIP
    assert asked.judge(2, 10 * SECOND, 101.5) is Verdict.WRITE
    asked = RangeState()
    asked.set_start(None, 100.0, 50 * SECOND)
    assert asked.judge(1, None, 100.0) is Verdict.WRITE


def test_stop_now_ends_with_the_last_message_from_before() -> None:
    asked = started(0)
    asked.judge(1, 10 * SECOND, 5.0)
    asked.set_stop(None, 6.0, 20 * SECOND)
    assert asked.judge(2, 19 * SECOND, 6.1) is Verdict.WRITE
    assert asked.judge(3, 21 * SECOND, 6.1) is Verdict.BEYOND
    assert asked.phase is Phase.FINISHING


def test_stop_now_does_not_wait_for_a_sender_whose_clock_is_behind() -> None:
    asked = started(0)
    asked.set_stop(None, 6.0, 20 * SECOND)
    asked.look(None, 6.2)
    assert asked.phase is Phase.ARMED
    asked.look(None, 6.6)
    assert asked.phase is Phase.FINISHING


def test_one_damaged_pulse_id_does_not_end_it() -> None:
    asked = started(0, 50)
    assert written(asked, [10, 11]) == [10, 11]
    assert asked.judge(2**40, None, 0.0) is Verdict.SKIP
    assert asked.judge(12, None, 0.0) is Verdict.WRITE
    assert asked.judge(2**40, None, 0.0) is Verdict.SKIP
    assert asked.judge(2**40 + 1, None, 0.0) is Verdict.BEYOND


@given(st.integers(0, 40), st.integers(0, 40), st.sets(st.integers(0, 99)), st.integers(0, 80))
def test_start_and_stop_are_exact_whenever_stop_is_set(
    start: int, length: int, ids: set[int], stop_at: int
) -> None:
    asked, stop, pulses = started(start), start + length, sorted(ids)
    before, after = pulses[:stop_at], pulses[stop_at:]
    found = written(asked, before)
    # What lies beyond a stop that is set late is cut from the file.
    assert found == [p for p in before if p >= start]
    asked.set_stop(stop, 0.0, 0)
    asked.look(before[-1] if before else None, 0.0)
    late = bool(before) and before[-1] >= stop
    assert (asked.phase is Phase.FINISHING) == late
    assert written(asked, after) == [p for p in after if start <= p <= stop and not late]
