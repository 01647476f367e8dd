from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvapy_stream.crypto import replay
from pvapy_stream.crypto.replay import ReplayGuard
from pvapy_stream.errors import CryptoError

SESSION = (b"sender", b"session")


def passes(guard: ReplayGuard, sequence: int, session: tuple[bytes, bytes], time: int = 0) -> bool:
    try:
        guard.check(session, sequence, time)
    except CryptoError:
        return False
    guard.record(session, sequence, time)
    return True


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(0, 12))
def test_each_number_passes_once_and_not_later_than_the_window(
    numbers: list[int], window: int
) -> None:
    guard = ReplayGuard(window)
    seen: set[int] = set()
    for number in numbers:
        expected = number not in seen and (not seen or number >= max(seen) - window)
        assert passes(guard, number, SESSION) == expected
        if expected:
            seen.add(number)


def test_a_window_can_be_made_smaller_and_forgets_nothing() -> None:
    guard = ReplayGuard(5)
    for number in (10, 7):
        assert passes(guard, number, SESSION)
    guard.tighten(2)
    assert [n for n in range(5, 11) if passes(guard, n, SESSION)] == [8, 9]
    with pytest.raises(ValueError, match="3 is larger than 2"):
        guard.tighten(3)


def test_sessions_do_not_meet() -> None:
    guard = ReplayGuard()
    assert passes(guard, 5, SESSION)
    assert passes(guard, 5, (b"sender", b"other"))
    assert passes(guard, 5, (b"other", b"session"))
    with pytest.raises(
        CryptoError, match="number 4 of its session and number 5 was received before"
    ) as e:
        guard.check(SESSION, 4, 0)
    assert e.value.check == "replay"


def test_forgotten_sessions_stay_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MAX_SESSIONS", 3)
    guard = ReplayGuard()
    for number in range(5):
        assert passes(guard, 0, (b"sender", bytes([number])), time=100 + number)
    for number in range(5):
        assert not passes(guard, 0, (b"sender", bytes([number])), time=100 + number)
    assert passes(guard, 0, (b"sender", b"new"), time=200)
    assert passes(guard, 0, (b"another", b"x"), time=1)
