"""What a source shows or sends when it comes back, or when another one comes."""

from __future__ import annotations

import pvaccess as pva
import pytest

from pvapy_stream.accounting.audit_result import audit
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.pva.objects import mark
from pvapy_stream.transport.ports import Return
from tests.hpc.stages import feed, make, obj


def test_a_source_that_came_back_shows_an_old_object_which_is_skipped() -> None:
    stage = make(skip=1)
    feed(stage, 0, 1, 2, 3)
    assert stage.handle_again(obj(3), Return())
    assert not stage.handle_again(obj(9), Return())
    assert list(stage.ledger.skipped) == [0, 3]


def test_what_a_source_sent_that_started_again_while_we_were_away_is_unknown() -> None:
    # It shows one of its new objects, which is skipped.
    stage = make(skip=1)
    feed(stage, 0, 1, 2, 3, 4, 5, 6, 7)
    assert stage.handle_again(obj(4), Return())
    feed(stage, 5, 6)
    assert list(stage.ledger.unknown) == [1, 2, 3, 4]
    assert "whether 1-4 were sent before 5 is unknown" in stage.tracker.remark
    # What it shows is taken as new.
    stage = make(skip=0)
    feed(stage, 1, 2, 3, 4, 5, 6, 7)
    assert not stage.handle_again(obj(4), Return())
    feed(stage, 4, 5)
    assert list(stage.ledger.unknown) == [1, 2, 3]
    # A quick return is not noticed.
    stage = make()
    feed(stage, 1, 2, 3, 4, 5, 3, 4)
    assert list(stage.ledger.unknown) == [1, 2]
    # It has shown what opens its channel: all that follows is for us.
    stage = make(skip=1)
    feed(stage, 0, 1, 2, 3, 4)
    assert stage.handle_again(mark(obj(0)), Return())
    feed(stage, 1, 2)
    assert not stage.ledger.unknown


def test_ids_of_a_new_source_begin_an_epoch_though_they_go_on() -> None:
    stage = make(skip=1)
    feed(stage, 0, 1, 2, 3)
    # What it shows was sent before anybody of ours was there.
    assert stage.handle_again(obj(9), Return(anew=True))
    feed(stage, 10, 11)
    before, again = stage.account.ledgers
    assert list(before.processed) == [1, 2, 3]
    assert list(again.processed) == [10, 11]
    assert list(again.unknown) == [*range(1, 10)]
    assert not before.missed
    # One that shows nothing: its first object is an update.
    assert not stage.handle_again(obj(12), Return(shown=False, anew=True))
    feed(stage, 12)
    assert len(stage.account.ledgers) == 3
    assert list(stage.account.ledgers[2].unknown) == [*range(1, 12)]


def test_what_is_shown_first_and_once_more_is_no_frame() -> None:
    stage = make(skip=1)
    feed(stage, 0, 0, 1, 2)
    assert (list(stage.ledger.skipped), list(stage.ledger.processed)) == ([0], [1, 2])
    assert list(stage.ledger.duplicate) == [0]
    assert stage.counts.duplicates == 1


def test_members_of_a_group_take_nothing_that_a_returning_source_shows() -> None:
    stage = make(skip=1)
    feed(stage, 0, 1, 3)
    assert stage.handle_again(obj(9), Return(), shared=True)
    assert list(stage.ledger.skipped) == [0, 9]


def test_members_of_a_group_take_nothing_that_is_shown_before_their_first_object() -> None:
    stage = make(skip=1)
    stage.handle(obj(0))
    assert stage.handle_again(obj(99), Return(), shared=True)
    feed(stage, 101, 103)
    assert list(stage.ledger.skipped) == [0, 99]
    assert list(stage.ledger.processed) == [101, 103]


def test_what_is_shown_to_one_stage_alone_before_its_first_object_is_new() -> None:
    stage = make(skip=1)
    stage.handle(obj(0))
    assert not stage.handle_again(obj(99), Return())


def test_what_was_sent_between_the_opening_object_and_a_return_is_unknown() -> None:
    stage = make(skip=1)
    stage.handle(obj(0))
    # Nothing was sent: it shows the same.
    assert stage.handle_again(obj(0), Return())
    feed(stage, 3, 4)
    stage.finish()
    assert not stage.ledger.unknown
    stage = make(skip=1)
    stage.handle(obj(0))
    stage.excuse(IdSet([2]))
    assert not stage.handle_again(obj(4), Return())
    feed(stage, 4, 5)
    stage.finish()
    assert list(stage.ledger.unknown) == [1, 3]
    assert "whether 1,3 were sent before 4 is unknown" in stage.tracker.remark
    # In a group, others may have them.
    stage = make(skip=1)
    stage.ledger.group = "g"
    stage.handle(obj(0))
    assert stage.handle_again(obj(4), Return(), shared=True)
    feed(stage, 5)
    stage.finish()
    assert not stage.ledger.unknown


def test_what_a_source_showed_to_members_of_a_group_was_sent_though_nothing_follows() -> None:
    odd, even = (make(skip=1, offset=2) for _ in range(2))
    for stage, first in ((odd, 1), (even, 2)):
        feed(stage, 0, *range(first, 11, 2))
        assert stage.handle_again(obj(15), Return(), shared=True)
        stage.finish()
    assert str(odd.ledger.missed) == "11,13,15"
    assert str(even.ledger.missed) == "12,14"


def test_what_was_shown_before_ids_began_anew_is_not_due_after_it() -> None:
    stage = make(skip=1, offset=2)
    feed(stage, 0, 1, 3)
    assert stage.handle_again(obj(15), Return(), shared=True)
    feed(stage, 1, 3)
    stage.finish()
    assert not stage.ledger.missed


def image_of(number: int) -> pva.PvObject:
    """An object with a time stamp, which can be marked."""
    kind = {"id": pva.LONG, "timeStamp": {"userTag": pva.INT}}
    return pva.PvObject(kind, {"id": number})


def test_a_source_of_which_a_stage_was_only_shown_an_object_has_an_epoch_of_its_own() -> None:
    stage = make(skip=1)
    stage.handle(obj(25))
    # It was killed. The next one has sent 3 before anybody was there, and then goes on from 7.
    assert stage.handle_again(obj(3), Return(anew=True))
    feed(stage, 7)
    first, second = stage.account.ledgers
    assert (str(first.received), str(first.skipped)) == ("25", "25")
    assert (str(second.skipped), str(second.processed)) == ("3", "7")
    assert str(second.unknown) == "1-6"


def test_members_of_a_group_agree_on_the_epochs_of_sources_that_were_killed() -> None:
    """Of the second of three sources, one member was only shown an object."""
    one, other = (make(skip=1, offset=2) for _ in range(2))
    for number, stage in enumerate((one, other), 1):
        stage.ledger.group, stage.ledger.stage_id, stage.ledger.input_channel = "g", number, "in"
    anew = Return(anew=True)
    for stage, ids in ((one, (0, 1, 3)), (other, (0, 2, 4))):
        feed(stage, *ids)
    assert one.handle_again(obj(23), anew, shared=True)
    feed(one, 24, 26)
    # 25 came to nobody.
    assert other.handle_again(obj(27), anew, shared=True)
    for stage, ids in ((one, (3, 5)), (other, (4, 6, 25))):
        assert stage.handle_again(obj(2), anew, shared=True)
        feed(stage, *ids)
        stage.finish()
    assert [len(stage.account.ledgers) for stage in (one, other)] == [3, 3]
    (found,) = audit([*one.account.ledgers, *other.account.ledgers]).channels[0].subscribers
    assert str(found.unknown - IdSet.of_range(1, 23)) == "25,27"


def test_what_came_first_after_it_was_skipped_before_another_source_is_no_repeat() -> None:
    stage = make(skip=1)
    stage.handle(obj(4))
    assert stage.handle_again(mark(image_of(0)), Return(anew=True))
    feed(stage, 4)
    assert list(stage.ledger.processed) == [4]
    assert not stage.ledger.duplicate


def test_a_source_that_goes_on_after_it_has_shown_its_initial_value_keeps_its_place() -> None:
    stage = make(skip=1)
    for number in (0, 1, 2, 3):
        stage.handle(image_of(number))
    assert stage.handle_again(image_of(0), Return())
    for number in (6, 7):
        stage.handle(image_of(number))
    assert len(stage.account.ledgers) == 1
    assert list(stage.ledger.processed) == [1, 2, 3, 6, 7]
    assert list(stage.missed()) == [4, 5]
    # One that does not go on: its ids say so.
    assert stage.handle_again(image_of(0), Return())
    stage.handle(image_of(1))
    assert [str(one.processed) for one in stage.account.ledgers] == ["1-3,6-7", "1"]


def test_what_does_not_follow_what_a_source_has_shown_is_missed() -> None:
    stage = make(skip=1)
    feed(stage, 5, 8)
    assert list(stage.missed()) == [6, 7]
    # Also one that began its ids again.
    assert stage.handle_again(obj(2), Return())
    feed(stage, 4)
    assert list(stage.missed()) == [3]
    assert list(stage.ledger.unknown) == [1, 2]
    # And one that sent nothing that came after that.
    stage = make(skip=1)
    feed(stage, 5)
    stage.finish(newest=7)
    assert list(stage.ledger.missed) == [6, 7]


def test_what_was_shown_before_ids_began_anew_was_due_before_that() -> None:
    stage = make(skip=1, offset=2)
    feed(stage, 0, 1, 3)
    assert stage.handle_again(obj(7), Return(), shared=True)
    feed(stage, 1, 3)
    first, second = stage.account.ledgers
    assert list(first.missed) == [5, 7]
    assert not second.missed


@pytest.mark.parametrize(("newest", "named"), [(None, "4"), (6, "4,6")])
def test_the_last_loss_of_a_member_is_named_by_what_the_others_know(
    newest: int | None, named: str
) -> None:
    one, other = (make(skip=1, offset=2) for _ in range(2))
    for number, (stage, ids) in enumerate(((one, (0, 1, 3, 5)), (other, (0, 2))), 1):
        stage.ledger.group, stage.ledger.stage_id, stage.ledger.input_channel = "g", number, "in"
        feed(stage, *ids)
    # The source of the one is still there; the other cannot ask any more.
    one.finish(newest)
    other.finish()
    result = audit([one.ledger, other.ledger])
    assert f"{named} unknown: it cannot be known whether they were sent" in result.verdict
