"""What a stage drops on purpose is missed by nobody behind it, whoever stands in between."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pvaccess as pva
import pytest

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.hpc.runner import StageRunner
from pvapy_stream.mirror.mirror_server import MirrorServer
from pvapy_stream.settings import MirrorSettings
from pvapy_stream.transport import filtered_ids
from pvapy_stream.transport.filtered_ids import FilteredChannel, FilteredReceiver
from tests.hpc.bench import Bench, frame, wait_for
from tests.support import pvput, wait_until, write_processor

# The first passes one in three on, the second only what has the id 0.
HIT_FINDER = """
from pvapy_stream import FrameProcessor

class HitFinder(FrameProcessor):
    def process_frame(self, frame):
        hit = frame.id % 3 == 0 if self.processorId == 1 else frame.id == 0
        return frame if hit else None
"""
N = 30


def finder(bench: Bench, prefix: str, folder: Path, number: int = 1, mode: str = "memory") -> Any:
    file = write_processor(folder, HIT_FINDER)
    return bench.consumer(
        consumer_id=number, input_channel=f"{prefix}in:{number}", processor_file=str(file),
        processor_class="HitFinder", output_channel=f"{prefix}hits:*", output_mode=mode,
    )  # fmt: skip


def collector(bench: Bench, prefix: str, *numbers: int, out: str = "") -> Any:
    return bench.collector(
        input_channel=f"{prefix}hits:*", producer_id_list=numbers, skip_initial_updates=0,
        gap_timeout=1000, collector_cache_size=1000, output_channel=out,
    )  # fmt: skip


@pytest.mark.parametrize("between", [False, True])
def test_a_collector_does_not_wait_for_it(
    bench: Bench, prefix: str, tmp_path: Path, between: bool
) -> None:
    made = collector(bench, f"{prefix}more:" if between else prefix, 1, 2)
    stages: list[StageRunner] = [made]
    if between:
        stages += [
            bench.consumer(
                consumer_id=number, input_channel=f"{prefix}hits:*",
                output_channel=f"{prefix}more:hits:*",
            )
            for number in (1, 2)
        ]  # fmt: skip
    stages += [finder(bench, prefix, tmp_path, number) for number in (1, 2)]
    sources = [bench.publisher(f"{prefix}in:{number}") for number in (1, 2)]
    if between:
        # One of the second's comes through, and with it the output behind it.
        sources[1].publish(frame(0))
    for number in range(1, N + 1):
        sources[number % 2].publish(frame(number))
    # Without a word of the second, those of the first would wait for it.
    wait_for(lambda: made.stage.counts.processed >= 4, *stages)
    assert made.missed == 0
    # Who could put here would hide losses.
    assert between or "is not allowed" in pvput(f"{prefix}hits:2:filtered", count="9")
    bench.stop()
    assert [*range(6, N + 1, 6)] == [k for k in made.whole_account().processed if k]
    assert not made.whole_account().missed


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("id_of", ["first", "last"])
def test_what_is_gathered_is_not_missed_and_results_are(
    bench: Bench, prefix: str, id_of: str, batch_size: int
) -> None:
    behind = collector(bench, prefix, 1)
    first = bench.consumer(
        consumer_id=1, input_channel=f"{prefix}in:1", output_channel=f"{prefix}hits:*",
        processor_class="pvapy_stream.processors.SumFrames",
        processor_args={"nFrames": 3, "idOf": id_of}, batch_size=batch_size,
    )  # fmt: skip
    told: list[IdSet] = []
    follower = FilteredReceiver(f"{prefix}hits:1", lambda new: told.append(new.ids))
    wait_until(lambda: first.publisher.subscribers)
    source = bench.publisher(f"{prefix}in:1")
    for number in range(1, N + 3):
        source.publish(frame(number))
    results = [*range(1 if id_of == "first" else 3, N + 1, 3)]
    wait_for(lambda: list(behind.whole_account().processed) == results, behind, first)
    wait_until(lambda: (follower.keep_up(connected=True), len(told))[1])
    bench.stop()
    assert not behind.whole_account().missed
    others = sorted({*range(1, N + 3)} - {*results})
    wait_until(lambda: sorted({k for ids in told for k in ids}) == others)
    follower.stop()


@pytest.mark.parametrize("between", ["consumer", "collector", "mirror"])
def test_stages_in_between_pass_it_on(
    bench: Bench, prefix: str, tmp_path: Path, between: str
) -> None:
    last = bench.consumer(consumer_id=9, input_channel=f"{prefix}out")
    stages: list[StageRunner] = [last]
    stop, thread = threading.Event(), None
    if between == "consumer":
        stages.append(
            bench.consumer(
                consumer_id=2, input_channel=f"{prefix}hits:1", output_channel=f"{prefix}out"
            )
        )
    elif between == "collector":
        stages.append(collector(bench, prefix, 1, out=f"{prefix}out"))
    else:
        mirror = MirrorServer(
            MirrorSettings.of(channel_map=f"({prefix}out,{prefix}hits:1,memory)"), hosted="memory"
        )
        thread = threading.Thread(target=mirror.run, args=(stop,))
        thread.start()
    first = finder(bench, prefix, tmp_path)
    stages.append(first)
    wait_until(lambda: first.publisher.subscribers)
    source = bench.publisher(f"{prefix}in:1")
    try:
        for number in range(1, N):
            source.publish(frame(number))
        wait_for(lambda: last.stage.counts.processed >= N // 3 - 2, *stages)
        wait_for(lambda: len(last.stage.tracker.missed) == 0, *stages)
        # A loss is one all the same.
        source.publish(frame(N + 3))
        wait_for(lambda: list(last.stage.tracker.missed) == [*range(N, N + 3)], *stages)
    finally:
        stop.set()
        if thread is not None:
            thread.join(60)
    bench.stop()


@pytest.mark.parametrize("mode", ["pva", "shm", "memory"])
def test_a_mirror_does_not_miss_it(bench: Bench, prefix: str, tmp_path: Path, mode: str) -> None:
    made = finder(bench, prefix, tmp_path, mode="pvas" if mode == "pva" else mode)
    source = bench.publisher(f"{prefix}in:1")
    # Its output is there with the first hit.
    for number in (1, 2, 3):
        source.publish(frame(number))
    mirror = MirrorServer(
        MirrorSettings.of(channel_map=f"({prefix}mirror,{prefix}hits:1,{mode},100)"),
        hosted="memory",
    )
    stop = threading.Event()
    thread = threading.Thread(target=mirror.run, args=(stop,))
    thread.start()
    (channel,) = mirror.channels
    try:
        wait_for(lambda: channel.snapshot().state == "running", made)
        if mode != "memory":
            # What it is shown first says that it follows; it is connected a little sooner.
            wait_for(lambda: channel.snapshot().counts()["received"], made)
        for number in range(4, N + 1):
            source.publish(frame(number))
        wait_for(lambda: channel.snapshot().object_id == N, made)
        wait_for(lambda: channel.snapshot().counts()["missed"] == 0, made)
    finally:
        stop.set()
        thread.join(60)
    (ledger,) = channel.ledgers()
    assert not ledger.missed
    assert {*range(12, N + 1, 3)} <= {*ledger.processed}


def test_a_source_that_is_started_again_says_nothing_of_what_was_lost_before(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its receiver does not notice that it has gone, as one that is called does."""
    server = pva.PvaServer()
    server.start()
    taken = IdSet()
    receiver = FilteredReceiver(f"{prefix}out", lambda news: taken.update(news.ids))

    def told(*ids: int) -> bool:
        receiver.keep_up(connected=True)
        assert set(ids) >= set(taken)
        return set(taken) == set(ids)

    def filters(channel: FilteredChannel, *ids: int) -> None:
        for number in ids:
            channel.note(number, None, 0.0)
        channel.flush()

    first = FilteredChannel(server, f"{prefix}out")
    filters(first, 1, 3, 5)
    wait_until(lambda: told(1, 3, 5))
    assert receiver.follows
    # As if it were away for longer than it is waited for.
    monkeypatch.setattr(filtered_ids, "_SEARCH", 0.0)
    monitor: Any = receiver._receiver  # pyright: ignore
    server.removeRecord(first.name)
    wait_until(lambda: told(1, 3, 5) and not monitor.connected and not receiver.follows)
    second = FilteredChannel(server, f"{prefix}out")
    # As many ranges as before, and then more.
    filters(second, 21, 23)
    wait_until(lambda: told(1, 3, 5, 21, 23))
    filters(second, 25, 26, 28)
    wait_until(lambda: told(1, 3, 5, 21, 23, 25, 26, 28))
    receiver.stop()
    server.stop()
