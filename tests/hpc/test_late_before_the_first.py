"""Late objects that come before the first in order, or have smaller ids."""

from __future__ import annotations

import pvaccess as pva
import pytest

from pvapy_stream.hpc.stage import Stage
from pvapy_stream.pva.objects import as_late
from tests.hpc.stages import make

_KIND = {"id": pva.INT, "timeStamp": {"userTag": pva.INT}}


def late(value: int) -> pva.PvObject:
    return as_late(in_order(value))


def in_order(value: int) -> pva.PvObject:
    return pva.PvObject(_KIND, {"id": value})


@pytest.mark.parametrize("first", [0, 1, 2, 4])
def test_whether_a_stage_before_sent_what_is_between_them_is_unknown(first: int) -> None:
    # A stage that was started again gets what the one before had missed.
    stage = make()
    for value in (9, 4, 3, 6)[:first]:
        stage.handle(late(value))
    for value in (12, 13, 15):
        stage.handle(in_order(value))
    for value in (9, 4, 3, 6)[first:]:
        stage.handle(late(value))
    stage.finish()
    assert list(stage.ledger.received) == [3, 4, 6, 9, 12, 13, 15]
    assert list(stage.ledger.unknown) == [5, 7, 8, 10, 11]
    assert list(stage.ledger.missed) == [14]
    assert not asked(stage)


def test_in_a_group_another_one_may_have_them() -> None:
    stage = make()
    stage.ledger.group = "g"
    for obj in (late(3), in_order(12), late(9)):
        stage.handle(obj)
    assert not stage.ledger.unknown


def asked(stage: Stage) -> list[int]:
    """What the stage would ask its source for, besides what is missed."""
    return [*(stage.to_repair - stage.ledger.missed)]
