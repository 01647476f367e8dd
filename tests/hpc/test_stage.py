"""Each object that a stage takes has one fate."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import pvaccess as pva
import pytest

from pvapy_stream.accounting.audit import audit
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import SequenceTracker
from pvapy_stream.errors import TransportError
from pvapy_stream.hpc.fates import NO_ID
from pvapy_stream.hpc.output import Output
from pvapy_stream.hpc.processor import FrameProcessor, UserDataProcessor
from pvapy_stream.hpc.stage import Stage
from pvapy_stream.pva.objects import is_marked, mark
from pvapy_stream.testing import image_object
from pvapy_stream.transport.memory_mode import MemoryPublisher
from pvapy_stream.transport.ports import Return


def obj(number: int) -> pva.PvObject:
    return pva.PvObject({"id": pva.LONG, "x": pva.DOUBLE}, {"id": number, "x": number / 2})


class Choosy(UserDataProcessor):
    """Fails at some ids."""

    bad: frozenset[int] = frozenset()

    def process(self, pvObject: Any) -> Any:
        if pvObject["id"] in self.bad:
            raise ValueError(f"no {pvObject['id']}")
        return super().process(pvObject)


class Broken(MemoryPublisher):
    def publish(self, obj: Any) -> None:
        raise TransportError("the cable is out")


def make(
    processor: UserDataProcessor | None = None,
    publisher: MemoryPublisher | None = None,
    skip: int = 0,
    **tracker: int,
) -> Stage:
    processor = processor or UserDataProcessor()
    ledger = Ledger("consumer", 1)
    publisher = publisher or MemoryPublisher()
    stage = Stage(
        processor,
        ledger,
        SequenceTracker(**tracker),
        id_field="id",
        skip=skip,
        open_output=lambda _: Output(publisher, ledger, "id"),
    )
    processor.outputChannel = "out"
    return stage


def feed(stage: Stage, *ids: int) -> None:
    for number in ids:
        stage.handle(obj(number))


def test_the_first_objects_are_skipped_and_the_rest_processed_and_published() -> None:
    publisher = MemoryPublisher()
    stage = make(publisher=publisher, skip=2)
    feed(stage, 5, 6, 7, 8)
    assert list(stage.ledger.skipped) == [5, 6]
    assert list(stage.ledger.processed) == list(stage.ledger.published) == [7, 8]
    assert [o["id"] for o in publisher.objects] == [7, 8]
    assert stage.counts.first_id == 7
    assert stage.ok


def test_an_error_is_counted_logged_once_and_the_next_object_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    processor = Choosy()
    processor.bad = frozenset({2, 3})
    stage = make(processor)
    with caplog.at_level(logging.ERROR):
        feed(stage, 1, 2, 3, 4)
    assert {reason: list(ids) for reason, ids in stage.ledger.failed.items()} == {
        "process: ValueError": [2, 3]
    }
    assert list(stage.ledger.processed) == [1, 4]
    assert len(caplog.records) == 1
    assert "no 2" in caplog.text
    assert "no 3" in stage.last_error
    assert not stage.ok


def test_what_cannot_be_published_is_failed_even_if_the_processor_hides_it() -> None:
    class Hides(UserDataProcessor):
        def process(self, pvObject: Any) -> Any:
            try:
                self.updateOutputChannel(pvObject)
            except TransportError:
                pass

    for processor in (UserDataProcessor(), Hides()):
        stage = make(processor, Broken())
        feed(stage, 1)
        assert list(stage.ledger.failed) == ["publishing"]
        assert "the cable is out" in stage.last_error
        assert not stage.ledger.processed
        assert not stage.ledger.published


def test_objects_without_the_id_field_fail_with_a_hint_and_do_not_stop_the_others() -> None:
    stage = make()
    stage.handle(pva.PvObject({"y": pva.INT}, {"y": 1}))
    assert stage.ledger.anonymous == 1
    assert stage.last_error.startswith(NO_ID)
    assert "--oid-field" in stage.last_error
    feed(stage, 1)
    assert list(stage.ledger.processed) == [1]


def test_missed_ids_are_known_and_ids_that_go_back_are_processed() -> None:
    stage = make()
    feed(stage, 1, 2, 5, 6, 1, 2)
    first, second = stage.account.ledgers
    assert list(first.missed) == [3, 4]
    assert stage.count_missed() == 2
    assert stage.counts.processed == 6
    assert first.went_back == 1
    assert list(second.processed) == [1, 2]
    assert (first.epoch, second.epoch) == (1, 2)


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


def test_reset_counts_anew_but_the_ledger_goes_on() -> None:
    stage = make()
    feed(stage, 1, 3)
    stage.reset()
    assert stage.counts.processed == 0
    assert not stage.missed()
    feed(stage, 4)
    stage.finish(newest=6)
    assert list(stage.ledger.processed) == [1, 3, 4]
    assert list(stage.ledger.missed) == [2, 5, 6]


def test_rejected_objects_are_not_missed() -> None:
    stage = make()
    feed(stage, 1, 2)
    stage.reject("receiver queue full", obj(5))
    feed(stage, 3, 4, 6)
    assert list(stage.ledger.rejected["receiver queue full"]) == [5]
    assert not stage.missed()
    stage.leave([(stage.account, obj(7))])
    assert list(stage.ledger.left) == [7]
    assert not stage.ledger.without_fate()


class Template(UserDataProcessor):
    """Fills a copy of what it was shown first, as processors of the incumbent do."""

    def getOutputPvObjectType(self, pvObject: Any) -> Any:
        self.template = pvObject.copy()
        return self.template

    def process(self, pvObject: Any) -> Any:
        made = self.template.copy()
        made["uniqueId"] = pvObject["uniqueId"]
        self.updateOutputChannel(made)


@pytest.mark.parametrize("kind", [Template, FrameProcessor])
def test_no_result_looks_like_an_opening_object(kind: type[UserDataProcessor]) -> None:
    publisher, processor = MemoryPublisher(), kind()
    ledger = Ledger("consumer", 1)
    processor.outputChannel = "out"
    stage = Stage(
        processor, ledger, SequenceTracker(), id_field="uniqueId", skip=1,
        open_output=lambda first: (
            processor.getOutputPvObjectType(first) and Output(publisher, ledger, "uniqueId")
        ),
    )  # fmt: skip
    stage.handle(mark(image_object(id=0)))
    assert stage.ledger.opened
    assert not stage.ledger.received
    for number in (1, 2):
        stage.handle(image_object(id=number))
    assert [to_id["uniqueId"] for to_id in publisher.objects] == [1, 2]
    assert not any(map(is_marked, publisher.objects))


def test_what_returns_without_publishing_is_filtered_and_said_so() -> None:
    class Hits(UserDataProcessor):
        def process(self, pvObject: Any) -> Any:
            if pvObject["id"] % 3 == 0:
                self.updateOutputChannel(pvObject)

    stage = make(Hits())
    feed(stage, *range(1, 10))
    assert list(stage.ledger.published) == list(stage.ledger.processed) == [3, 6, 9]
    assert list(stage.ledger.filtered) == [1, 2, 4, 5, 7, 8]
    assert (stage.counts.processed, stage.counts.filtered) == (3, 6)
    assert not stage.ledger.without_fate()


def test_ids_that_a_source_filtered_are_not_missed() -> None:
    stage = make()
    feed(stage, 1)
    stage.excuse(IdSet([2, 3, 6]))
    feed(stage, 4, 7)
    assert list(stage.missed()) == [5]


def test_a_jump_of_ids_is_unknown_and_named() -> None:
    stage = make()
    feed(stage, 40, 1_500_000_000, 1_500_000_001)
    assert stage.count_missed() == 0
    assert str(stage.tracker.unknown) == "41-1499999999"
    assert "jumped from 40 to 1500000000" in stage.tracker.remark
    stage.finish()
    assert str(stage.ledger.unknown) == "41-1499999999"


def test_errors_with_ids_in_them_are_one_kind_and_places_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Two(UserDataProcessor):
        def process(self, pvObject: Any) -> Any:
            if pvObject["id"] % 2:
                raise ValueError(f"odd {pvObject['id']}")
            raise ValueError(f"even {pvObject['id']}")

    stage = make(Two())
    with caplog.at_level(logging.ERROR):
        feed(stage, *range(500))
    assert list(stage.ledger.failed) == ["process: ValueError"]
    assert [bool(record.exc_info) for record in caplog.records] == [True, True]
    assert stage.troubles.recent == "process: ValueError: odd 499"


def test_an_error_that_does_not_come_again_is_shown_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor = Choosy()
    processor.bad = frozenset({1})
    stage = make(processor)
    feed(stage, 1, 2)
    assert "no 1" in stage.troubles.recent
    monkeypatch.setattr("pvapy_stream.hpc.troubles._FORGET_AFTER", 0.0)
    assert stage.troubles.recent == ""
    assert "no 1" in stage.last_error
    assert not stage.ok


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


class Leaving(UserDataProcessor):
    """Wants to end the program at an id."""

    def process(self, pvObject: Any) -> Any:
        if pvObject["id"] == 2:
            sys.exit("the file system is gone")
        return super().process(pvObject)


def test_a_processor_that_exits_fails_an_object_and_not_the_thread_of_the_stage() -> None:
    stage = make(Leaving())
    # In a thread, an exit ends the thread without a word, and nothing would be processed any more.
    thread = threading.Thread(target=feed, args=(stage, 1, 2, 3))
    thread.start()
    thread.join()
    assert list(stage.ledger.processed) == [1, 3]
    assert stage.ledger.failed == {"process: SystemExit": IdSet.of_range(2, 2)}
    assert "the file system is gone" in stage.last_error


def test_what_was_missed_before_a_reset_is_lost_though_its_id_comes_after_it() -> None:
    """Statistics are reset between acquisitions, which begin with the same id."""
    stage = make()
    stage.ledger.input_channel = "detector"
    feed(stage, 1, 2, 4, 5)
    stage.reset()
    feed(stage, 1, 2, 3, 4, 5)
    assert stage.counts.processed == 5
    assert stage.count_missed() == 0
    stage.finish()
    result = audit(stage.account.ledgers)
    assert "id 3 lost" in result.verdict
    assert result.processed == 9


def test_what_came_before_a_reset_and_after_it_is_one_stream() -> None:
    stage = make()
    feed(stage, 1, 2)
    stage.reset()
    feed(stage, 4)
    assert list(stage.missed()) == [3]
    assert stage.tracker.n_restarts == 0


def test_objects_are_rejected_and_excused_while_a_source_is_to_begin_anew() -> None:
    stage = make(skip=1)
    feed(stage, 0, 1, 2)
    assert stage.handle_again(mark(obj(0)), Return(anew=True))
    stage.reject("receiver queue full", obj(1))
    stage.excuse(IdSet([2]))
    feed(stage, 3)
    assert stage.ledger.epoch == 2


def test_what_did_not_come_before_an_object_that_was_rejected_at_the_end_is_missed() -> None:
    stage = make()
    feed(stage, 1, 2)
    stage.reject("receiver queue full", obj(4))
    stage.reject("receiver queue full", obj(6))
    stage.finish()
    assert list(stage.ledger.missed) == [3, 5]
