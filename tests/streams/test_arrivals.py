"""Which objects are frames, and what was missed, whatever the source does."""

from __future__ import annotations

import numpy as np

from pvapy_stream import Frame
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.streams.arrivals import Arrivals
from pvapy_stream.transport.ports import Return

BACK = Return()  # it shows its current object
ANEW = Return(anew=True)


def obj(number: int, opening: bool = False) -> LazyObject:
    made = LazyObject(Frame.of(number, np.zeros((2, 2), np.uint8)))
    if opening:
        made.mark()
    return made


def given(arrivals: Arrivals, *numbers: int) -> list[int]:
    return [number for number in numbers if arrivals.is_frame(obj(number))]


def test_the_first_object_is_a_frame_only_where_nothing_is_shown() -> None:
    assert given(Arrivals(shows_value=True), 7, 8, 9) == [8, 9]
    assert given(Arrivals(shows_value=True, initial=True), 7, 8, 9) == [7, 8, 9]
    assert given(Arrivals(shows_value=False), 7, 8, 9) == [7, 8, 9]


def test_an_opening_object_is_never_taken_for_a_frame() -> None:
    for options, wanted in (({}, False), ({"initial": True}, False), ({"opening": True}, True)):
        arrivals = Arrivals(True, **options)
        assert arrivals.is_frame(obj(0, opening=True)) is wanted
        assert given(arrivals, 1, 2) == [1, 2]
        # The channel was taken away, and is there again.
        assert arrivals.is_frame(obj(0, opening=True), BACK) is wanted
        assert arrivals.is_frame(obj(0, opening=True)) is wanted
        assert given(arrivals, 3) == [3]
        assert arrivals.missed == 0


def test_what_is_shown_again_is_a_frame_if_it_is_newer_than_the_last() -> None:
    arrivals = Arrivals(True)
    assert given(arrivals, 5) == []
    # No frame has come yet: the same object once more, then another.
    assert not arrivals.is_frame(obj(5), BACK)
    assert arrivals.is_frame(obj(6), BACK)
    assert not arrivals.is_frame(obj(6), BACK)
    assert arrivals.is_frame(obj(9), BACK)
    assert arrivals.missed == 2
    assert given(arrivals, 10) == [10]


def test_a_source_that_begins_anew_has_missed_nothing() -> None:
    arrivals = Arrivals(True)
    assert given(arrivals, 5, 6, 8) == [6, 8]
    assert not arrivals.is_frame(obj(3), BACK)
    assert given(arrivals, 4, 6) == [4, 6]
    assert arrivals.missed == 2
    # One that says so may go on with higher ids; what it shows may be old.
    assert not arrivals.is_frame(obj(500), ANEW)
    assert given(arrivals, 501) == [501]
    assert arrivals.is_frame(obj(900), Return(shown=False, anew=True))
    assert given(arrivals, 901, 1, 2) == [901, 1, 2]
    assert arrivals.missed == 2


def test_the_initial_value_of_a_channel_hides_nothing_that_is_missed() -> None:
    arrivals = Arrivals(True)
    assert given(arrivals, 5, 6) == [6]
    # The channel was taken away and is there again, and its source goes on.
    assert not arrivals.is_frame(obj(0), BACK)
    assert given(arrivals, 9) == [9]
    assert arrivals.missed == 2
    # A new source, which says so or not.
    assert not arrivals.is_frame(obj(0), ANEW)
    assert given(arrivals, 12) == [12]
    assert not arrivals.is_frame(obj(0), BACK)
    assert given(arrivals, 1, 2) == [1, 2]
    assert arrivals.missed == 2


def test_late_frames_were_not_missed_and_equal_ids_are_no_reason_to_drop() -> None:
    arrivals = Arrivals(False)
    assert given(arrivals, 1, 2, 5) == [1, 2, 5]
    assert arrivals.missed == 2
    assert given(arrivals, 3, 4) == [3, 4]
    assert arrivals.missed == 0
    assert given(arrivals, 5, 5, 6) == [5, 5, 6]
    assert given(Arrivals(False), 0, 0, 0) == [0, 0, 0]


def test_the_first_frame_of_a_new_source_may_be_what_is_asked_for() -> None:
    arrivals = Arrivals(True, initial=True)
    assert given(arrivals, 5, 6) == [5, 6]
    assert not arrivals.is_frame(obj(6), BACK)
    assert arrivals.is_frame(obj(2), BACK)
    assert given(arrivals, 3) == [3]
    assert arrivals.missed == 0
