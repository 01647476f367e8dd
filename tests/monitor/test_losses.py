"""A loss is told once, however many stages come after it."""

from __future__ import annotations

from pvapy_stream.monitor.stages import StageView, lost_once


def view(name: str, inputs: str, missed: int) -> StageView:
    return StageView(
        f"{name}:status", "running", inputs=tuple(inputs.split()), outputs=(name,),
        counts={"missed": missed},
    )  # fmt: skip


def test_later_stages_miss_again_what_was_lost_before_them() -> None:
    two = [view("a", "image", 3), view("b", "image", 4)]
    assert lost_once(two) == 7
    assert lost_once([*two, view("all", "a b", 9), view("disk", "all", 9)]) == 9
    # Who comes last may not know of gaps.
    assert lost_once([view("disk", "all", 0), *two, view("all", "a b", 7)]) == 7


def test_chains_that_are_not_connected_are_added_up() -> None:
    first = [view("a", "image", 3), view("disk", "a", 3)]
    assert lost_once([*first, view("c", "other", 5)]) == 8
    assert lost_once([]) == 0
    assert lost_once([view("a", "a", 1)]) == 1
