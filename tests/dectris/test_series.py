"""Ids of images, and what is missing of a series."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pvapy_stream.dectris.messages import End, Image, SeriesName, Start
from pvapy_stream.dectris.series_ids import DUPLICATE, LATE, Placed, SeriesBook
from pvapy_stream.errors import DectrisError


class Book:
    """A book, with what it said."""

    def __init__(self, ends_early: bool = False) -> None:
        self.told: list[str] = []
        self.noted: list[str] = []
        self.book = SeriesBook(self.told.append, self.noted.append, ends_early)

    def start(self, number: int, n_images: int | None, unique: str = "") -> None:
        self.book.start(Start(SeriesName(number, unique), n_images, ("a",), {}, {}))

    def images(self, number: int, ids: Iterable[int], unique: str = "") -> list[object]:
        """Object ids; (id, "anew") where they begin again; or why an image is dropped."""
        made: list[object] = []
        for one in ids:
            placed = self.book.image(Image(SeriesName(number, unique), one, {}, 0, {}))
            if isinstance(placed, Placed):
                made.append((placed.id, "anew") if placed.anew else placed.id)
            else:
                made.append(placed)
        return made

    def end(self, number: int, unique: str = "") -> None:
        self.book.end(End(SeriesName(number, unique)))


def test_ids_go_on_over_series_and_nothing_is_said() -> None:
    book = Book()
    for number in (1, 2):
        book.start(number, 3)
        assert book.images(number, range(3)) == [3 * number - 2, 3 * number - 1, 3 * number]
        book.end(number)
    book.book.close()
    assert (book.told, book.noted, book.book.newest) == ([], [], 6)


def test_what_is_missing_at_an_end_is_named_and_has_ids() -> None:
    book = Book()
    book.start(1, 10)
    book.images(1, [0, 1, 3, 4])
    assert book.book.newest == 5
    book.end(1)
    assert book.book.newest == 10
    assert book.told == ["series 1: 6 of 10 images did not come: image ids 2,5-9"]
    book.start(2, 10)
    assert book.images(2, [0]) == [11]


def test_a_missing_end_is_seen_at_the_next_start() -> None:
    book = Book()
    book.start(1, 3)
    book.images(1, range(2))
    book.start(2, 3)
    assert "1 of 3 images did not come: image ids 2; a new series came" in book.told[0]
    assert book.book.newest == 3
    assert book.images(2, range(3)) == [4, 5, 6]
    book.start(3, 3)
    assert len(book.told) == 1
    assert book.noted == ["series 2: a new series came, and no end message"]


def test_a_series_without_its_start_is_delivered_and_named_once() -> None:
    book = Book()
    assert book.images(7, [4, 5, 6]) == [5, 6, 7]
    assert len(book.told) == 1
    assert "series 7: images come, and its start message did not" in book.told[0]
    book.end(7)
    book.start(8, 2)
    assert book.images(8, [0, 1]) == [8, 9]
    assert len(book.told) == 1


def test_a_lost_beginning_is_unknown_to_stages_and_named() -> None:
    book = Book()
    book.start(1, 4)
    assert book.images(1, [2, 3]) == [(3, "anew"), 4]
    book.end(1)
    assert book.told == ["series 1: 2 of 4 images did not come: image ids 0-1"]


def test_a_start_after_its_first_images() -> None:
    book = Book()
    assert book.images(1, [0, 1]) == [1, 2]
    book.start(1, 4)
    assert book.images(1, [2]) == [3]
    book.end(1)
    assert book.told[1:] == ["series 1: 1 of 4 images did not come: image ids 3"]


def test_repeated_late_and_old_images() -> None:
    book = Book()
    book.start(1, 200)
    assert book.images(1, [0, 2, 1, 1]) == [1, 3, 2, DUPLICATE]
    book.images(1, range(3, 150))
    book.start(2, 200)
    assert book.images(2, [0]) == [201]
    # Near enough for a stage to know it as one that was missed, and too far.
    assert book.images(1, [199, 150]) == [200, 151]
    assert book.images(2, range(1, 50)) == list(range(202, 251))
    assert book.images(1, [151, 300]) == [LATE, LATE]


def test_the_same_series_once_more() -> None:
    book = Book()
    book.start(1, 3, "u")
    book.images(1, [0], "u")
    book.start(1, 3, "u")
    assert book.images(1, [1], "u") == [2]
    # A detector that was restarted has another unique id, or none.
    book.start(1, 3, "v")
    assert book.images(1, [0], "v") == [4]
    assert len(book.told) == 1
    book.start(1, 3)
    book.images(1, [0])
    book.start(1, 3)
    assert book.images(1, [0]) == [10]


def test_more_images_than_announced_have_ids_of_their_own() -> None:
    book = Book()
    book.start(1, 2)
    assert book.images(1, range(4)) == [1, 2, 3, 4]
    book.end(1)
    book.start(2, 2)
    assert book.images(2, [0]) == [5]
    assert len(book.told) == 1


def test_an_end_of_nothing_is_named() -> None:
    book = Book()
    book.end(5)
    assert "series 5: its end message came, and neither" in book.told[0]


def test_a_pause_and_a_stop_within_a_series() -> None:
    book = Book()
    book.start(1, 9)
    book.images(1, range(4))
    book.book.pause()
    assert book.book.newest == 9
    book.images(1, [4])
    assert book.book.newest == 5
    book.book.close()
    assert "4 of 9 images did not come: image ids 5-8; its end message had not" in book.told[0]


def test_a_series_that_is_ended_early() -> None:
    book = Book(ends_early=True)
    book.start(1, 1000)
    book.images(1, range(4))
    book.end(1)
    assert (book.told, book.book.newest) == ([], 4)
    book.start(2, 1000)
    assert book.images(2, [0]) == [5]


def test_ids_begin_again_before_none_are_left() -> None:
    book = Book()
    book.start(1, 2**62)
    book.images(1, [0])
    book.end(1)
    book.start(2, 5)
    assert book.images(2, [0, 1]) == [(1, "anew"), 2]
    # Of another epoch, in which its id means something else.
    assert book.images(1, [3]) == [LATE]
    with pytest.raises(DectrisError, match="too large"):
        book.images(2, [2**31])
