"""Stages over mode ``memory``: no processes, no channels of PVA, and every object in one thread."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.settings import SimulatorSettings
from pvapy_stream.sim.server import SimServer
from pvapy_stream.transport.memory_mode import MemoryReceiver
from tests.hpc.bench import Bench, frame
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
    assert "no field 'frameNumber'" in consumer.snapshot().message
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
