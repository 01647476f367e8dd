"""What a replay does on purpose, without a clock."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from pvapy_stream.frame import Frame
from pvapy_stream.pva.ntndarray import ObjectBuilder, to_frame
from pvapy_stream.pva.serial import dumps, largest_array, loads
from pvapy_stream.sim.faults import KINDS, Due, Faults
from pvapy_stream.testing import metadata_object
from tests.replay.recordings import pixels

N = 400


def objects() -> list[Due]:
    build = ObjectBuilder().build
    return [Due(n / 1000, n, dumps(build(Frame.of(n, pixels(n))))) for n in range(1, N + 1)]


def published(faults: Faults, due: list[Due]) -> list[Due]:
    """What is published, as a replay does it."""
    came: list[Due] = []
    for one in faults.apply(due):
        faults.note(one)
        if not one.dropped:
            came.append(one)
    return came


def ids_after(**rates: float) -> tuple[list[int], Faults]:
    faults = Faults(rates, seed=3)
    return [one.id for one in published(faults, objects())], faults


def test_without_faults_the_stream_is_as_it_was() -> None:
    came, faults = ids_after(drop=0)
    assert came == list(range(1, N + 1))
    assert faults.lines() == []


def test_dropped_and_repeated_objects_are_those_that_are_told() -> None:
    came, faults = ids_after(drop=0.1, duplicate=0.1)
    counts = Counter(came)
    assert set(counts) == set(range(1, N + 1)) - set(faults.done["drop"])
    assert {n for n, k in counts.items() if k == 2} == set(faults.done["duplicate"])
    assert 10 < faults.counts["drop"] == len(faults.done["drop"]) < 90
    assert 10 < faults.counts["duplicate"] < 90
    assert faults.lines()[0].startswith(f"drop on purpose: {faults.counts['drop']} objects, ids ")


def test_a_reordered_object_comes_after_the_next_one() -> None:
    came, faults = ids_after(reorder=0.1)
    assert sorted(came) == list(range(1, N + 1))
    late = {here for before, here in pairwise(came) if here < before}
    assert late == set(faults.done["reorder"])
    assert len(late) > 10
    # The last object of a stream has nothing to come after.
    came, faults = ids_after(reorder=1)
    assert sorted(came) == list(range(1, N + 1))


def test_in_a_corrupted_object_one_pixel_is_wrong_and_all_else_as_it_was() -> None:
    faults = Faults({"corrupt": 0.1}, seed=3)
    wrong, sent = set(), objects()
    for one, before in zip(published(faults, sent), sent, strict=True):
        image = to_frame(loads(one.data)).image
        if (n_wrong := int((image != one.id).sum())) == 1:
            wrong.add(one.id)
            begin, end = largest_array(before.data)
            assert bytes(one.data[:begin]) == before.data[:begin]
            assert end - begin == image.nbytes
        else:
            assert n_wrong == 0
    assert wrong == set(faults.done["corrupt"])
    assert len(wrong) > 10


def test_an_object_without_an_array_is_spared_and_told() -> None:
    faults = Faults({"corrupt": 1}, seed=1)
    data = dumps(metadata_object(1.5))
    assert [one.data for one in published(faults, [Due(0, 7, data)])] == [data]
    assert faults.counts == {"corrupt": 0}
    assert faults.lines()[-1] == "not corrupted, as they have no array: ids 7"


def test_the_same_seed_makes_the_same_faults_whatever_else_is_requested() -> None:
    rates: dict[str, float] = dict.fromkeys(KINDS, 0.05)
    done = [{k: list(v) for k, v in ids_after(**rates)[1].done.items()} for _ in range(2)]
    assert done[0] == done[1]
    assert all(done[0].values())
    alone, faults = ids_after(drop=0.05)
    assert list(faults.done["drop"]) == done[0]["drop"]
    assert set(alone) == set(range(1, N + 1)) - set(done[0]["drop"])
    other = Faults(rates, seed=4)
    assert published(other, objects())
    assert list(other.done["drop"]) != done[0]["drop"]


@pytest.mark.parametrize("kind", ["delay", "reconnect"])
def test_delays_and_reconnects_are_marked(kind: str) -> None:
    faults = Faults({kind: 0.1}, seed=3)
    flags = {"delay": "delayed", "reconnect": "reconnects"}
    marked = [one.id for one in published(faults, objects()) if getattr(one, flags[kind])]
    assert marked == list(faults.done[kind])
    assert np.diff(marked).min() > 0
