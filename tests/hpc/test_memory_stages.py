"""Stages over mode ``memory``: no processes, no channels of PVA, and every object in one thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pvaccess as pva
import pytest

from pvapy_stream.accounting.audit import audit
from pvapy_stream.frame import Frame
from pvapy_stream.hpc.collector import Collector
from pvapy_stream.hpc.consumer import Consumer
from pvapy_stream.hpc.deadline import Deadline
from pvapy_stream.hpc.runner import StageRunner
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.settings import CollectorSettings, ConsumerSettings, SimulatorSettings
from pvapy_stream.sim.server import SimServer
from pvapy_stream.transport.memory_mode import MemoryPublisher, MemoryReceiver
from pvapy_stream.transport.ports import Return
from tests.support import image

BUILDER = ObjectBuilder()
TRANSPOSE = "pvapy_stream.processors.transpose.Transpose"


class Bench:
    """Stages of this process, and what the last of them publishes."""

    def __init__(self) -> None:
        self._stages: list[StageRunner] = []
        # It serves from its beginning, and the channels of all servers of this process.
        self._server = pva.PvaServer()
        self._publishers: list[MemoryPublisher] = []

    def consumer(self, **settings: Any) -> Consumer:
        made = ConsumerSettings.of(
            **{"input_channel": "in", "input_mode": "memory", "output_mode": "memory", **settings}
        )
        return self._started(Consumer(made, made.consumer_id, self._server))

    def collector(self, **settings: Any) -> Collector:
        made = CollectorSettings.of(input_mode="memory", output_mode="memory", **settings)
        return self._started(Collector(made, made.collector_id, self._server))

    def _started(self, stage: Any) -> Any:
        self._stages.append(stage)
        stage.start()
        return stage

    def publisher(self, channel: str) -> MemoryPublisher:
        made = MemoryPublisher(channel)
        self._publishers.append(made)
        made.start()
        return made

    def stop(self) -> None:
        """Stop the stages, the first of the chain first, and close their accounts."""
        for stage in self._stages:
            stage.stop(Deadline(5))
        self._stages.clear()

    def close(self) -> None:
        self.stop()
        for publisher in self._publishers:
            publisher.stop()
        self._server.stop()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def frame(number: int) -> Any:
    return BUILDER.build(Frame.of(number, image(number)))


def test_a_consumer_processes_and_accounts_for_every_object(bench: Bench) -> None:
    results: list[Frame] = []
    receiver = MemoryReceiver("out")
    receiver.start(lambda obj: results.append(frame_of(obj)))
    consumer = bench.consumer(output_channel="out", processor_class=TRANSPOSE)
    publisher = bench.publisher("in")
    for number in (1, 2, 3, 5, 6):
        publisher.publish(frame(number))
    assert [one.id for one in results] == [1, 2, 3, 5, 6]
    assert (results[0].image == image(1).T).all()
    bench.stop()
    ledger = consumer.whole_account()
    assert list(ledger.processed) == list(ledger.published) == [1, 2, 3, 5, 6]
    assert list(ledger.missed) == [4]
    receiver.stop()


def test_a_consumer_whose_source_never_came_says_so(bench: Bench) -> None:
    consumer = bench.consumer(input_channel="nobody")
    bench.stop()
    assert consumer.problem() == (
        "consumer 1: channel nobody never came; what publishes it must run in the same process"
    )


def test_a_chain_from_the_simulator_to_a_collector(bench: Bench) -> None:
    collector = bench.collector(input_channel="mid:*", collector_cache_size=2)
    for number in (1, 2):
        bench.consumer(consumer_id=number, output_channel="mid:*")
    simulator = SimServer(
        SimulatorSettings.of(
            channel_name="in",
            output_mode="memory",
            n_publish=20,
            n_x_pixels=8,
            n_y_pixels=8,
            cache_size=3,
            frame_rate=0,
            start_delay=0,
            shutdown_delay=0,
            report_period=0,
        )
    )
    assert simulator.run(threading.Event()) == 0
    bench.stop()
    assert [len(account.ledger.received) for account in collector.accounts] == [20, 20]
    assert list(collector.whole_account().processed) == [*range(1, 21)]


@pytest.mark.parametrize("queue", [-1, 10], ids=["direct", "queued"])
@pytest.mark.parametrize("kind", ["consumer", "collector"])
def test_a_source_that_comes_back_with_objects_without_ids_ends_no_stage(
    bench: Bench, kind: str, queue: int
) -> None:
    shared = {"skip_initial_updates": 1, "receiver_queue_size": queue}
    if kind == "consumer":
        stage = bench.consumer(**shared)
        again = stage._put_again
    else:
        stage = bench.collector(producer_id_list="1", input_channel="in", **shared)
        again = partial(stage._put_again, 1)
    source = bench.publisher("in")
    for number in range(3):
        source.publish(frame(number))
    odd = pva.PvObject({"value": pva.INT}, {"value": 1})
    # The queue's thread raises what the other way raises here.
    again(odd, Return())
    source.publish(odd)
    for number in range(3, 6):
        source.publish(frame(number))
    bench.stop()
    (ledger,) = [one for account in stage.accounts for one in account.ledgers]
    assert list(ledger.processed) == [1, 2, 3, 4, 5]
    assert ledger.anonymous == 2
    assert not ledger.left


@pytest.mark.parametrize("fields", ["", "uniqueId,value,dimension"])
@pytest.mark.parametrize("kind", ["consumer", "collector"])
def test_who_brings_an_object_is_told_that_it_was_rejected(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: str, fields: str
) -> None:
    """Else a put is acknowledged that nobody has, and is not made again."""
    taken: list[Any] = []
    monkeypatch.setattr(MemoryReceiver, "start", lambda self, deliver, again: taken.append(deliver))
    shared = {"pause_queue_size": 1, "field_request": fields}
    if kind == "consumer":
        stage = bench.consumer(**shared)
    else:
        stage = bench.collector(producer_id_list="1", input_channel="in", **shared)
    (deliver,) = taken
    stage.pause()
    assert deliver(frame(1)) is not False
    assert deliver(frame(2)) is False
    stage.resume()
    assert deliver(frame(3)) is not False
    bench.stop()
    (ledger,) = [one for account in stage.accounts for one in account.ledgers]
    assert list(ledger.processed) == [1, 3]


@pytest.mark.parametrize("producers", [1, 2])
def test_what_a_collector_missed_before_ids_began_anew_is_lost_though_the_id_comes_then(
    bench: Bench, producers: int
) -> None:
    """As in each acquisition of a detector that begins with the same id."""
    names = [f"in{number}" for number in range(1, producers + 1)]
    stage = bench.collector(
        producer_id_list=",".join(str(number + 1) for number in range(producers)),
        input_channel="in*",
        producer_disorder=0,
    )
    publishers = [bench.publisher(name) for name in names]
    for ids in ([1, 2, 3, 4, 6, 7, 8], range(1, 9), range(1, 9)):
        for number in ids:
            publishers[(number - 1) % producers].publish(frame(number))
    bench.stop()
    assert stage.missed == 1
    result = audit([one for account in stage.accounts for one in account.ledgers])
    assert "id 5 lost between a source without ledger and collector 1" in result.verdict
    assert result.without_fate == 1


def test_what_a_collector_missed_after_one_of_its_producers_has_gone_is_lost(bench: Bench) -> None:
    """The ledger of the first producer is still that of the ids before."""
    stage = bench.collector(
        producer_id_list="1,2", input_channel="in*", producer_disorder=0, gap_timeout=0.1
    )
    first, second = bench.publisher("in1"), bench.publisher("in2")
    for number in range(1, 9):
        (first, second)[number % 2 == 0].publish(frame(number))
    first.stop()
    for number in (1, 2, 3, 4, 6, 7, 8):
        second.publish(frame(number))
    bench.stop()
    result = audit([one for account in stage.accounts for one in account.ledgers])
    assert "id 5 lost between a source without ledger and collector 1" in result.verdict
