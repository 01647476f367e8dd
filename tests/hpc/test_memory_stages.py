"""Stages over mode ``memory``: no processes, no channels of PVA, and every object in one thread."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import pvaccess as pva
import pytest

from pvapy_stream.accounting.audit_result import audit
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.settings import SimulatorSettings
from pvapy_stream.sim.sim_server import SimServer
from pvapy_stream.transport.memory_mode import MemoryReceiver
from pvapy_stream.transport.ports import Return
from tests.hpc.bench import Bench, frame, wait_for
from tests.support import image

TRANSPOSE = "pvapy_stream.processors.transpose.Transpose"


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


def test_the_status_shows_an_error_while_it_happens_and_an_account_is_made_for_who_asked(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = bench.consumer(oid_field="frameNumber")
    bench.publisher("in").publish(frame(1))
    assert "no id field 'frameNumber'" in consumer.snapshot().message
    monkeypatch.setattr("pvapy_stream.hpc.troubles._FORGET_AFTER", 0.0)
    assert consumer.snapshot().message == ""
    monkeypatch.setattr(Ledger, "to_dict", lambda _: pytest.fail("nobody asked for it"))
    assert consumer.ledgers() == []
    monkeypatch.undo()
    asked = bench.consumer(consumer_id=2, ledger=str(tmp_path / "ledger.json"))
    (built,) = asked.ledgers()
    assert built["stage_id"] == 2
    # An account that takes long to build is not built each time, but at the end.
    asked._ledgers_due = float("inf")
    assert asked.ledgers()[0] is built
    assert asked.ledgers(last=True)[0] is not built


def test_a_consumer_whose_source_never_came_says_so(bench: Bench) -> None:
    consumer = bench.consumer(input_channel="nobody")
    bench.stop()
    assert consumer.problem() == (
        "consumer 1: channel nobody was never found; what publishes it must run in the same process"
    )


def test_what_a_source_had_sent_is_missed_though_it_answers_no_more_at_the_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = bench.consumer()
    publisher = bench.publisher("in")
    for number in (1, 2, 3):
        publisher.publish(frame(number))
    sent = frame(5)
    monkeypatch.setattr(consumer.receiver, "newest", lambda _: sent)
    wait_for(lambda: consumer.missed == 2, consumer)
    sent = None
    bench.stop()
    assert list(consumer.whole_account().missed) == [4, 5]


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
