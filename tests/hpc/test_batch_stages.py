"""Batches in stages: when they are processed, and what the accounts say meanwhile."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.accounting.audit_result import audit
from pvapy_stream.errors import ProcessorError, SettingsError
from pvapy_stream.frame import Frame
from pvapy_stream.hpc.processor import UserDataProcessor
from pvapy_stream.hpc.workers import UserMpDataProcessor
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.settings import ConsumerSettings
from pvapy_stream.transport.memory_mode import MemoryPublisher
from tests.hpc.bench import Bench, wait_for
from tests.hpc.bench import frame as numbered
from tests.support import wait_until, write_processor

LONG = 1000.0  # s; a batch that waits for so long is not processed because of the time

BODY = """
import threading
from pvapy_stream import FrameProcessor

class P(FrameProcessor):
    factor = 1

    def configure(self, configDict):
        self.factor = configDict["factor"]

    def process_batch(self, frames):
        return [image * self.factor for image in frames.images]
"""


def output() -> str:
    """A channel that no other test has."""
    return f"out{uuid.uuid4().hex}"


def consumer(bench: Bench, tmp_path: Path, body: str = BODY, **settings: Any) -> Any:
    return bench.consumer(**{
        "output_channel": output(), "processor_file": str(write_processor(tmp_path, body)),
        "processor_class": "P", "batch_size": 4, "batch_timeout": LONG, **settings,
    })  # fmt: skip


def publish(bench: Bench, *ids: int) -> MemoryPublisher:
    publisher = bench.publisher("in")
    for number in ids:
        publisher.publish(numbered(number))
    return publisher


def published(stage: Any) -> list[tuple[int, int]]:
    return [(one["uniqueId"], one["value"][0]["ushortValue"][1]) for one in stage.publisher.objects]


def test_a_batch_waits_for_a_limited_time(bench: Bench, tmp_path: Path) -> None:
    stage = consumer(bench, tmp_path, batch_timeout=0.05)
    publish(bench, 1, 2)
    wait_until(lambda: stage.stage.counts.processed == 2)
    assert stage.snapshot().batch_stats.n_timed_out >= 1


def test_what_waits_has_no_fate_and_is_in_no_count_but_its_own(
    bench: Bench, tmp_path: Path
) -> None:
    stage = consumer(bench, tmp_path)
    publish(bench, 1, 2, 3, 4, 5, 6)
    ledger = stage.stage.ledger
    assert list(ledger.processed) == [1, 2, 3, 4]
    assert list(ledger.without_fate()) == [5, 6]
    assert "2 ids: 5-6 received by consumer 1 without a fate" in audit([ledger]).verdict
    # Statistics that are reset now begin with these two.
    assert stage.stage.unsettled(stage.stage.account) == 2
    snapshot = stage.snapshot()
    assert snapshot.batch_stats.n_queued == 2
    assert snapshot.processor_stats.n_processed == 4
    assert snapshot.processor_stats.n_missed == 0
    bench.stop()
    assert list(ledger.processed) == [1, 2, 3, 4, 5, 6]
    assert stage.snapshot().batch_stats.n_queued == 0


def test_commands_act_behind_the_batch_that_waits(bench: Bench, tmp_path: Path) -> None:
    stage = consumer(bench, tmp_path)
    publisher = publish(bench, 1, 2)
    assert stage.configure({"factor": 3}) == "Configuration successful"
    assert published(stage) == [(1, 2), (2, 3)]
    publisher.publish(numbered(3))
    write_processor(tmp_path, BODY.replace("* self.factor", "* 10"))
    assert stage.reload() == "Reload successful"
    publisher.publish(numbered(4))
    stage.reset_stats()
    assert published(stage) == [(1, 2), (2, 3), (3, 12), (4, 50)]
    assert stage.snapshot().processor_stats.n_processed == 0
    publisher.publish(numbered(5))
    stage.pause()
    wait_until(lambda: len(published(stage)) == 5)
    snapshot = stage.snapshot()
    assert (snapshot.receiver_stats.n_received, snapshot.processor_stats.n_processed) == (1, 1)


@pytest.mark.parametrize("more", [(), (3,)])
def test_what_waits_when_a_class_without_batches_comes_is_processed_by_that(
    bench: Bench, tmp_path: Path, more: tuple[int, ...]
) -> None:
    stage = consumer(bench, tmp_path)
    publisher = publish(bench, 1, 2)
    # As for frames that come while the command waits for the lock.
    stage.stage.use(UserDataProcessor())
    stage.stage.processor.outputChannel = "out"
    stage.stage.processor.dataPublisher = stage.stage.output
    for number in more:
        publisher.publish(numbered(number))
    bench.stop()
    assert list(stage.stage.ledger.processed) == [1, 2, *more]
    assert [number for number, _ in published(stage)] == [1, 2, *more]


class Damaged(LazyObject):
    """An image that is found to be damaged when it is looked at."""

    __slots__ = ()

    def __init__(self, number: int) -> None:
        super().__init__(None)
        self.id = number

    @property
    def form(self) -> tuple[object, ...]:
        return ("uint16",)

    def copy(self) -> Damaged:
        return self

    def _make_frame(self) -> Frame:
        number = self.id or 0
        if number == 2:
            raise ValueError("damaged")
        return Frame(number, np.full((4, 6), number, np.uint16), (4, 6))

    def _make_object(self) -> pva.PvObject:
        return numbered(self.id or 0)


@pytest.mark.parametrize("body", ["return frames.images + 1", "return [1 + np.zeros((2, 2))] * 4"])
def test_a_damaged_frame_fails_alone_also_if_the_processor_does_not_look_at_it(
    bench: Bench, tmp_path: Path, body: str
) -> None:
    stage = consumer(
        bench,
        tmp_path,
        "import numpy as np\nfrom pvapy_stream import FrameProcessor\n"
        f"class P(FrameProcessor):\n    def process_batch(self, frames):\n        {body}\n".replace(
            "* 4", "* len(frames)"
        ),
    )
    for number in (1, 2, 3, 4):
        stage.stage.handle(Damaged(number))
    ledger = stage.stage.ledger
    assert [list(ids) for ids in ledger.failed.values()] == [[2]]
    assert list(ledger.processed) == [1, 3, 4]
    assert not ledger.without_fate()


def test_a_batch_ends_with_its_epoch(bench: Bench, tmp_path: Path) -> None:
    stage = consumer(bench, tmp_path)
    publish(bench, 1, 2, 1, 2, 3)
    first, second = stage.accounts[0].ledgers
    assert list(first.processed) == list(first.published) == [1, 2]
    assert not second.processed
    bench.stop()
    assert list(second.processed) == list(second.published) == [1, 2, 3]


def test_a_batch_ends_when_its_source_has_gone(bench: Bench, tmp_path: Path) -> None:
    stage = consumer(bench, tmp_path)
    publisher = publish(bench, 1, 2)
    stage.keep_up()
    assert not stage.stage.counts.processed
    publisher.stop()
    wait_for(lambda: stage.stage.counts.processed == 2, stage)


def test_a_batch_that_hangs_stops_neither_status_nor_commands(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvapy_stream.hpc.runner._COMMAND_PATIENCE", 0.2)
    stage = consumer(bench, tmp_path, batch_timeout=0.01)
    going, entered = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        entered.set()
        going.wait(60)

    monkeypatch.setattr(stage.stage.processor, "process_batch", hang)
    publish(bench, 1)
    assert entered.wait(60)
    with pytest.raises(ProcessorError, match=r"has not returned for 0\.2 s"):
        stage.configure({"factor": 2})
    snapshot = stage.snapshot(patience=0.05)
    assert "has not returned" in snapshot.message
    assert snapshot.processor_stats.n_processed == 0
    monkeypatch.undo()
    going.set()


def test_the_batch_of_a_collector_keeps_the_accounts_of_its_producers_apart(
    bench: Bench, tmp_path: Path
) -> None:
    stage = bench.collector(
        input_channel="in:*", producer_id_list="1,2", output_channel=output(), batch_size=4,
        processor_file=str(write_processor(tmp_path, BODY)), processor_class="P",
        batch_timeout=LONG, skip_initial_updates=0,
    )  # fmt: skip
    one, two = bench.publisher("in:1"), bench.publisher("in:2")
    for number in (2, 4, 6):
        two.publish(numbered(number))
    for number in (1, 3, 5):
        one.publish(numbered(number))
    ledgers = [account.ledger for account in stage.accounts]
    assert [list(ledger.processed) for ledger in ledgers] == [[1, 3], [2, 4]]
    stage.reset_stats()
    assert [list(ledger.processed) for ledger in ledgers] == [[1, 3, 5], [2, 4]]
    bench.stop()
    assert [list(ledger.published) for ledger in ledgers] == [[1, 3, 5], [2, 4, 6]]
    assert [number for number, _ in published(stage)] == [1, 2, 3, 4, 5, 6]


def test_what_a_source_filtered_is_passed_on_no_earlier_than_what_waits(
    bench: Bench, tmp_path: Path
) -> None:
    stage = consumer(bench, tmp_path)
    publish(bench, 1, 2)
    told: list[Any] = []

    class Channel:
        def pass_on(self, *news: Any) -> None:
            told.append(news)

        def flush(self) -> None: ...

    stage.stage.output.filtered = Channel()
    stage.stage.pass_on(told_ids := type(stage.stage.ledger.received).of_range(3, 3), 3, 2)
    # Nothing is published yet: who comes after still has to wait for id 2.
    assert told == [(told_ids, 3, 2)]
    stage.configure({"factor": 2})
    stage.stage.pass_on(told_ids, 3, 2)
    assert told[1] == (told_ids, 3, 2)
    assert stage.stage.output.last_id == 2


# -- what is refused -------------------------------------------------------------------------------


class Work(UserMpDataProcessor):
    def process_batch(self, frames: object) -> object:
        return frames


def test_workers_are_refused(bench: Bench) -> None:
    with pytest.raises(ProcessorError, match="its workers take one object at a time"):
        bench.consumer(
            processor_class="pvapy_stream.processors.UserMpWorkerPool", batch_size=4,
            processor_args=f'{{"workerClass": "{__name__}.Work"}}',
        )  # fmt: skip


def test_a_class_without_frames_is_refused_and_one_without_batches_is_told(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = (
        "from pvapy_stream import UserDataProcessor\nclass P(UserDataProcessor):\n"
        "    def process_batch(self, frames):\n        pass\n"
        "    def process(self, pvObject):\n        pass\n"
    )
    with pytest.raises(ProcessorError, match=r"derive it from pvapy_stream\.FrameProcessor"):
        consumer(bench, tmp_path, body)
    stage = consumer(bench, tmp_path, body.replace("process_batch", "other"), consumer_id=2)
    assert "class P does not define process_batch" in caplog.text
    publish(bench, 1, 2)
    assert list(stage.stage.ledger.filtered) == [1, 2]
    assert stage.snapshot().batch_stats is None


def test_settings_of_batches() -> None:
    with pytest.raises(SettingsError, match="--batch-size"):
        ConsumerSettings.of(input_channel="in", batch_size=0)
    with pytest.raises(SettingsError, match="--batch-timeout"):
        ConsumerSettings.of(input_channel="in", batch_timeout=0)
    assert ConsumerSettings.of(input_channel="in").batch_size == 1
