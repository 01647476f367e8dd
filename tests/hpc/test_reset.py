"""Statistics begin anew while objects come: what a status shows is true of one moment."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pvapy_stream import UserDataProcessor
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.errors import ProcessorError
from pvapy_stream.hpc import runner
from pvapy_stream.hpc.runner import StageRunner
from pvapy_stream.status.snapshot import Snapshot
from tests.hpc.bench import Bench, frame
from tests.support import wait_until

HERE = f"{__name__}."
RESETS = 20
outputs = itertools.count()
kinds = pytest.mark.parametrize("kind", ["consumer", "collector"])
queues = pytest.mark.parametrize("queue", [-1, 0, 5])


class SlowStats(UserDataProcessor):
    """Gives others time to do something while a status is made."""

    def process(self, pvObject: Any) -> None:
        self.updateOutputChannel(pvObject)

    def getStats(self) -> dict[str, Any]:
        time.sleep(0.02)
        return {}


class Held(UserDataProcessor):
    """Processes when it may."""

    go = threading.Event()
    entered = threading.Event()

    def process(self, pvObject: Any) -> None:
        self.entered.set()
        assert self.go.wait(60)
        self.updateOutputChannel(pvObject)


class Confirms(UserDataProcessor):
    """Says later what is done, as a writer does."""

    confirms = True


@pytest.fixture(autouse=True)
def held() -> None:
    Held.go.clear()
    Held.entered.clear()


def started(bench: Bench, kind: str, processor: str, queue: int = -1, **more: Any) -> StageRunner:
    common = {
        "processor_class": f"{HERE}{processor}",
        # The servers of one process share their names, and keep them.
        "output_channel": f"reset{next(outputs)}",
        "receiver_queue_size": queue,
        **more,
    }
    if kind == "consumer":
        return bench.consumer(input_channel="in1", **common)
    return bench.collector(input_channel="in*", producer_id_list="1,2", **common)


def inconsistencies(status: Snapshot) -> list[str]:
    """What cannot be true at one moment."""
    processor, queue, publisher = (
        status.processor_stats, status.queue_stats, status.publisher_stats,
    )  # fmt: skip
    received = sum(one.n_received for one in status.receivers)
    handled = processor.n_processed + processor.n_filtered
    collector = status.collector_stats
    rules = {
        "delivered": handled <= queue.n_delivered,
        "sum": queue.n_received == queue.n_delivered + queue.n_queued,
        "queue": queue.n_received + queue.n_rejected <= received,
        "published": processor.n_processed <= publisher.n_published <= received,
        "collected": collector is None or handled <= collector.n_collected <= received,
        "latency": status.latency_stats.n <= processor.n_processed,
        "nothing less than nothing": min(queue.n_queued, queue.n_rejected, received, handled) >= 0,
    }
    for one in status.producer_stats.values():
        rules[f"producer {one.producer_id}"] = (
            one.queue_stats.n_received <= one.receiver_stats.n_received
        )
    return [f"{name}: {status}" for name, holds in rules.items() if not holds]


def until(end: threading.Event, action: Callable[[], Any]) -> threading.Thread:
    def run() -> None:
        while not end.is_set():
            action()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@queues
@kinds
def test_no_status_that_is_made_while_counts_begin_anew_shows_more_processed_than_received(
    bench: Bench, kind: str, queue: int
) -> None:
    stage = started(bench, kind, "SlowStats", queue)
    publishers = [bench.publisher(f"in{number}") for number in (1, 2)]
    seen: list[Snapshot] = []
    count = 0

    def feed() -> None:
        nonlocal count
        count += 1
        publishers[count % len(publishers) if kind == "collector" else 0].publish(frame(count))
        time.sleep(0.0005)

    end = threading.Event()
    threads = [until(end, feed), until(end, lambda: seen.append(stage.snapshot()))]
    try:
        for _ in range(RESETS):
            looks = len(seen)
            assert stage.reset_stats() == "Stats reset successful"
            wait_until(lambda looks=looks: len(seen) > looks + 1)
    finally:
        end.set()
        for thread in threads:
            thread.join(30)
    bench.stop()
    wrong = [one for status in (*seen, stage.snapshot()) for one in inconsistencies(status)]
    assert wrong == []
    # No loss is hidden, and none is made up.
    ledger = stage.whole_account()
    rejected = sum(map(len, ledger.rejected.values()))
    assert len(ledger.processed) + rejected == count
    assert not ledger.missed


@kinds
def test_what_waits_when_counts_begin_anew_counts_as_received_since_then(
    bench: Bench, kind: str
) -> None:
    stage = started(bench, kind, "Held", queue=100)
    Held.go.set()
    publishers = [bench.publisher(f"in{number}") for number in (1, 2)]
    shared = publishers if kind == "collector" else publishers[:1]

    def publish(first: int, last: int) -> None:
        for number in range(first, last + 1):
            shared[number % len(shared)].publish(frame(number))

    def processed() -> int:
        return stage.snapshot().processor_stats.n_processed

    publish(1, 10)
    # The collector holds the last one back: the other producer may yet send a smaller id.
    done = 10 if kind == "consumer" else 9
    wait_until(lambda: processed() == done)
    stage.pause()
    publish(11, 15)
    stage.reset_stats()
    status = stage.snapshot()
    waiting = 15 - done
    assert sum(one.n_received for one in status.receivers) == waiting
    assert status.processor_stats.n_processed == status.publisher_stats.n_published == 0
    assert status.queue_stats.n_queued == 5
    stage.resume()
    publish(16, 20)
    bench.stop()
    status = stage.snapshot()
    assert inconsistencies(status) == []
    assert sum(one.n_received for one in status.receivers) == waiting + 5
    assert status.queue_stats.n_delivered == waiting + 5
    assert status.processor_stats.n_processed == status.publisher_stats.n_published == waiting + 5
    assert status.collector_stats is None or status.collector_stats.n_collected == waiting + 5


@kinds
def test_what_a_processor_confirms_after_counts_began_anew_counts_as_received_since_then(
    bench: Bench, kind: str
) -> None:
    stage = started(bench, kind, "Confirms")
    publisher = bench.publisher("in1")
    bench.publisher("in2").publish(frame(100))
    for number in range(1, 6):
        publisher.publish(frame(number))
    late = stage.stage.processor.late_failures
    late.done(IdSet([1, 2]))
    stage.reset_stats()
    late.done(IdSet([3, 4]))
    status = stage.snapshot()
    assert status.processor_stats.n_processed == 2
    assert sum(one.n_received for one in status.receivers) >= 3
    # It publishes nothing.
    assert all(one.startswith("published: ") for one in inconsistencies(status))


@kinds
def test_counts_go_to_zero_when_nothing_is_on_its_way(bench: Bench, kind: str) -> None:
    limits = {"gap_timeout": 0.1} if kind == "collector" else {}
    stage = started(bench, kind, "SlowStats", queue=2, **limits)
    publisher = bench.publisher("in1")
    stage.pause()
    for number in range(1, 6):
        publisher.publish(frame(number))
    stage.resume()
    wait_until(lambda: (stage.keep_up(), stage.snapshot().processor_stats.n_processed == 2)[1])
    before = stage.snapshot()
    assert before.queue_stats.n_rejected == 3
    stage.reset_stats()
    status = stage.snapshot()
    counts = {name: n for name, n in status.counts().items() if n}
    assert counts == {}
    assert status.latency_stats.n == 0
    assert stage.heard == 1


def test_a_reset_while_process_hangs_is_refused_and_the_status_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_COMMAND_PATIENCE", 0.2)
    stage = started(bench, "consumer", "Held", queue=100)
    publisher = bench.publisher("in1")
    for number in range(1, 6):
        publisher.publish(frame(number))
    assert Held.entered.wait(30)
    for command in (stage.reset_stats, lambda: stage.configure({"a": 1}), stage.reload):
        with pytest.raises(ProcessorError, match=r"process\(\) has not returned for 0.2 s"):
            command()
    status = stage.snapshot(0.1)
    assert "process() has not returned for 0.1 s" in status.message
    assert (status.queue_stats.n_delivered, status.queue_stats.n_queued) == (1, 4)
    Held.go.set()
    wait_until(lambda: stage.snapshot().processor_stats.n_processed == 5)
    # Nothing was set back.
    (received,) = stage.snapshot().receivers
    assert received.n_received == 5
    assert stage.reset_stats() == "Stats reset successful"
