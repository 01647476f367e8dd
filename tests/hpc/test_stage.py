"""Each object that a stage takes has one fate."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import pvaccess as pva
import pytest

from pvapy_stream.accounting.audit_result import audit
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
from tests.hpc.stages import feed, make, obj


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
