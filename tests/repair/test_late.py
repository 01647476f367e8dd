"""An object that is marked as late is one of the same epoch, wherever it comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import SequenceTracker
from pvapy_stream.errors import SettingsError
from pvapy_stream.files.completeness import verify
from pvapy_stream.frame import Frame
from pvapy_stream.hpc.output import Output
from pvapy_stream.hpc.processor import FrameProcessor, UserDataProcessor
from pvapy_stream.hpc.stage import Stage
from pvapy_stream.mirror.mirror_account import MirrorAccount
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.pva.objects import as_late, is_late
from pvapy_stream.settings import CollectorSettings, ConsumerSettings
from pvapy_stream.streams.arrivals import Arrivals
from pvapy_stream.testing import image_object
from pvapy_stream.transport.memory_mode import MemoryPublisher
from tests.files.support import write
from tests.support import image


class Publisher(MemoryPublisher):
    """Notes what is published late."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[int] = []

    def publish_late(self, obj: Any) -> None:
        assert is_late(obj)
        self.late.append(obj["uniqueId"])
        self.publish(obj)


class Doubled(FrameProcessor):
    """Makes another object of each."""

    def process_frame(self, frame: Frame) -> Frame:
        return frame.replace(image=frame.image * 2)


def obj(number: int, late: bool = False) -> Any:
    made = image_object(image(number), number)
    return as_late(made) if late else made


def stage_of(publisher: Publisher, processor: UserDataProcessor | None = None) -> Stage:
    ledger, processor = Ledger("consumer", 1), processor or UserDataProcessor()
    processor.outputChannel = "out"
    return Stage(
        processor,
        ledger,
        SequenceTracker(),
        id_field="uniqueId",
        open_output=lambda _: Output(publisher, ledger, "uniqueId"),
    )


def feed(stage: Stage, *ids: int) -> None:
    for number in ids:
        stage.handle(obj(number))


def test_the_mark_is_read_of_every_kind_of_object() -> None:
    assert is_late(obj(5, late=True))
    assert not is_late(obj(5))
    frame = LazyObject(Frame.of(5, image(5)))
    assert not is_late(frame)
    assert is_late(as_late(frame))


@pytest.mark.parametrize("distance", [3, 500])
@pytest.mark.parametrize("processor", [UserDataProcessor, Doubled])
def test_a_late_object_is_not_missed_any_more_and_begins_no_epoch(
    distance: int, processor: type[UserDataProcessor]
) -> None:
    publisher = Publisher()
    stage = stage_of(publisher, processor())
    feed(stage, 1, 2, 4, *range(5, 5 + distance))
    assert list(stage.missed()) == [3]
    stage.handle(obj(3, late=True))
    feed(stage, 5 + distance)
    stage.finish()
    (ledger,) = stage.account.ledgers
    assert list(ledger.processed) == list(ledger.published) == list(range(1, 6 + distance))
    assert not ledger.missed
    assert list(ledger.repaired) == publisher.late == [3]
    assert stage.counts.repaired == 1
    # Only that one has the mark.
    assert [o["uniqueId"] for o in publisher.objects if is_late(o)] == [3]


def test_a_late_object_that_came_before_is_a_duplicate() -> None:
    stage = stage_of(Publisher())
    feed(stage, *range(1, 101))
    stage.handle(obj(3, late=True))
    assert list(stage.ledger.duplicate) == [3]
    assert not stage.ledger.repaired


def test_a_late_object_that_comes_first_does_not_begin_the_sequence() -> None:
    stage = stage_of(Publisher())
    stage.handle(obj(3, late=True))
    feed(stage, 200, 201)
    assert not stage.missed()
    assert list(stage.ledger.processed) == [3, 200, 201]


def test_an_object_is_repaired_once_and_only_if_it_is_missed() -> None:
    publisher = Publisher()
    stage = stage_of(publisher)
    feed(stage, 1, 2, 5)
    epoch = stage.n_begun
    assert stage.take_repaired(obj(3), 3, epoch)
    assert not stage.take_repaired(obj(3), 3, epoch)
    assert not stage.take_repaired(obj(2), 2, epoch)
    stage.note_unrepairable("gone", IdSet([2, 3, 4]), stage.ledger)
    assert stage.ledger.unrepairable == {"gone": IdSet([4])}
    stage.finish()
    assert list(stage.ledger.missed) == [4]
    assert publisher.late == [3]


def test_an_object_of_another_epoch_is_not_taken() -> None:
    stage = stage_of(Publisher())
    feed(stage, *range(1, 101), 102)
    epoch, ledger = stage.n_begun, stage.missing_in
    feed(stage, 1, 3)
    assert not stage.take_repaired(obj(101), 101, epoch)
    assert not stage.take_repaired(obj(2), 2, epoch)
    stage.note_unrepairable("ids have started again", IdSet([101]), ledger)
    first, second = stage.account.ledgers
    assert first.unrepairable == {"ids have started again": IdSet([101])}
    assert not second.unrepairable


def test_what_is_missed_again_after_a_reset_of_statistics_can_be_repaired() -> None:
    stage = stage_of(Publisher())
    feed(stage, 1, 3)
    stage.reset()
    assert stage.take_repaired(obj(2), 2, stage.n_begun)
    stage.finish()
    assert not stage.ledger.missed


@pytest.mark.parametrize("alone", [True, False])
def test_a_mirror_takes_it_into_the_same_epoch(alone: bool) -> None:
    account = MirrorAccount(Ledger("mirror", 1), alone)
    for number in (*range(1, 101), *range(102, 200)):
        assert account.take(number, obj(number))
        assert not account.is_late(number, obj(number))
    late = obj(101, late=True)
    assert account.take(101, late)
    assert account.is_late(101, late)
    assert account.take(200, obj(200))
    (ledger,) = account.copies()
    assert list(ledger.received) == list(range(1, 201))
    assert not ledger.missed


def test_an_iterator_gives_it_and_counts_nothing_as_missed() -> None:
    arrivals = Arrivals(shows_value=False)
    for number in (*range(1, 101), *range(102, 200)):
        assert arrivals.is_frame(obj(number))
    assert arrivals.missed == 1
    assert arrivals.is_frame(obj(101, late=True))
    assert arrivals.missed == 0
    assert arrivals.is_frame(obj(200))
    assert arrivals.missed == 0


def test_a_file_with_late_rows_is_complete(tmp_path: Path) -> None:
    ids = [1, 2, 5, 6, 3, 7, 4]
    ledger = Ledger("consumer", 1)
    ledger.received.update(IdSet(ids))
    path = write(tmp_path / "plain.h5", ids, ledger)
    assert verify(path).problems == ["ids go back 2 times, first at row 4 from 6 to 3"]
    ledger.repaired.update(IdSet([3, 4]))
    assert verify(write(tmp_path / "late.h5", ids, ledger)).ok
    mixed = [*ids, 10, 9]
    ledger.received.update(IdSet(mixed))
    path = write(tmp_path / "mixed.h5", mixed, ledger)
    assert verify(path).problems == ["ids go back 1 times, first at row 8 from 10 to 9"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_mode": "shm"}, "--repair needs input mode pva, not shm"),
        ({"pva_library": "binding"}, "not --pva-library binding"),
        ({"output_channel": "out", "output_mode": "shm"}, "--repair needs output mode pvas"),
        ({"n_consumers": 2}, "not possible for consumers that share a stream"),
        ({"distributor_group": "g"}, "not possible for consumers that share a stream"),
    ],
)
def test_what_cannot_be_repaired_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ConsumerSettings.of(input_channel="in", repair=True, **settings)


def test_a_collector_can_repair() -> None:
    assert CollectorSettings.of(input_channel="in:*", repair=True).repair
    with pytest.raises(SettingsError, match="--keep-past-age has no effect"):
        CollectorSettings.of(input_channel="in:*", keep_past_age=3)
