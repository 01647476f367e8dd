from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pvaccess as pva
import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.errors import ProcessorError, SettingsError
from pvapy_stream.frame import ColorMode
from pvapy_stream.hpc.worker_memory import PackedObject, unpack
from pvapy_stream.hpc.worker_process import ProcessorSource
from pvapy_stream.hpc.workers import UserMpWorkerPool
from pvapy_stream.plugins import load_processor_class
from pvapy_stream.testing import ProcessorRun, Result, frame, image_object
from tests.hpc.mp_workers import Doubler, PassPool, SumPool
from tests.support import Commands, Source, status, wait_until

DOUBLER = {"workerClass": "tests.hpc.mp_workers.Doubler"}


@pytest.fixture
def no_process_left() -> Iterator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    # Their memory has no name: it is gone with the last process that has it open.
    wait_until(lambda: not left_of(before), what="the end of all workers")


def left_of(before: set[psutil.Process]) -> list[psutil.Process]:
    # What tracks resources for multiprocessing lives as long as this process.
    now = set(psutil.Process().children(recursive=True)) - before
    return [p for p in now if p.is_running() and "resource_tracker" not in _command(p)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        # It has just ended, and whoever started it has not looked yet.
        return ""


pytestmark = pytest.mark.usefixtures("no_process_left")


def run(objects: list[Any], args: dict[str, Any], processor: Any = UserMpWorkerPool) -> Result:
    run = ProcessorRun(processor, args=args)
    for obj in objects:
        run.feed(obj)
    return run.finish()


def test_results_are_exact_complete_and_in_order() -> None:
    """More objects than fit into the pool at once, of changing size, the first ones slow."""
    objects = [
        image_object(
            np.full((4 + k, 300), k, np.uint16), k, time=k + 0.5, sleep=0.05 * (k % 3 == 0)
        )
        for k in range(1, 40)
    ]
    result = run(objects, {**DOUBLER, "nWorkers": 2})
    assert result.errors == {}
    assert [f.id for f in result.frames] == list(range(1, 40))
    for f in result.frames:
        assert f.image.shape == (4 + f.id, 300)
        assert (f.image == 2 * f.id).all()
        assert f.time_ns == f.id * 10**9 + 500_000_000
    pids = {f.attributes["pid"] for f in result.frames}
    assert len(pids) == 2
    assert os.getpid() not in pids
    stats = result.processor.getStats()
    assert stats == {
        "nSubmitted": 39,
        "nFinished": 39,
        "nFailed": 0,
        "nWaiting": 0,
        "nWorkers": 0,
        "nWorkersDied": 0,
        "nDoubled": 39,
        "name": "doubler",
    }
    assert set(stats) <= set(result.processor.getStatsPvaTypes())


def test_without_order_fast_results_pass_slow_ones() -> None:
    objects = [image_object(None, k, sleep=1.0 * (k == 1)) for k in range(1, 8)]
    result = run(objects, {**DOUBLER, "nWorkers": 2, "keepOrder": False, "queueDepth": 1})
    assert result.errors == {}
    ids = [f.id for f in result.frames]
    assert sorted(ids) == list(range(1, 8))
    assert ids[-1] == 1


def test_several_results_and_results_larger_than_the_object() -> None:
    objects = [image_object(None, 1, twice=1), *(image_object(None, k, large=1) for k in (2, 3))]
    result = run(objects, {**DOUBLER, "nWorkers": 1})
    assert result.errors == {}
    assert [f.id for f in result.frames] == [1, 1001, 2, 3]
    assert result.frames[3].image.shape == (160, 240)
    pixels = objects[2]["value"][0]["ushortValue"].reshape(4, 6)
    assert np.array_equal(result.frames[3].image, np.tile(pixels, (40, 40)))


def test_everything_of_an_object_comes_back() -> None:
    image = np.random.default_rng(1).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    objects = []
    for number, mode in ((5, ColorMode.RGB1), (6, ColorMode.RGB3)):
        obj = image_object(image, number, time=1.5, color_mode=mode, gain=2.5, words=["a", "b"])
        obj.setInt("alarm.severity", 2)
        objects.append(obj)
    result = run(objects, {"nWorkers": 1}, PassPool)
    assert result.errors == {}
    for published, obj in zip(result.published, objects, strict=True):
        found, wanted = published.toDict(), obj.toDict()
        pixels = found.pop("value")[0]["ubyteValue"]
        assert np.array_equal(pixels, wanted.pop("value")[0]["ubyteValue"])
        assert found == wanted


def test_objects_that_are_no_images() -> None:
    kind = {"uniqueId": pva.ULONG, "values": [pva.DOUBLE]}
    objects = [pva.PvObject(kind, {"uniqueId": k, "values": [k, 0.5]}) for k in range(5)]
    result = run(objects, {"nWorkers": 1}, SumPool)
    assert result.errors == {}
    assert [(o["uniqueId"], o["sum"]) for o in result.published] == [(k, k + 0.5) for k in range(5)]


def test_an_error_in_a_worker_fails_its_object_alone() -> None:
    objects = [image_object(None, k, **({"raise": 1} if k in (2, 5) else {})) for k in range(1, 8)]
    result = run(objects, {**DOUBLER, "nWorkers": 1})
    assert [f.id for f in result.frames] == [1, 3, 4, 6, 7]
    assert result.errors == {"process: ValueError": 2}
    assert "frame 5 is bad" in result.last_error
    assert list(result.ledger.failed["process: ValueError"]) == [2, 5]
    assert list(result.ledger.processed) == [1, 3, 4, 6, 7]
    assert result.processor.getStats()["nFailed"] == 2


@pytest.mark.parametrize("how", ["die", "exit"])
def test_the_death_of_a_worker_fails_its_object_and_it_is_replaced(how: str) -> None:
    objects = [
        image_object(None, k, sleep=0.02, **({how: 1} if k == 4 else {})) for k in range(1, 13)
    ]
    result = run(objects, {**DOUBLER, "nWorkers": 2})
    # What waited behind it goes to another worker.
    assert [f.id for f in result.frames] == [1, 2, 3, *range(5, 13)]
    assert list(result.ledger.failed["worker died"]) == [4]
    assert ("signal SIGKILL" if how == "die" else "exit code 3") in result.last_error
    stats = result.processor.getStats()
    assert (stats["nFailed"], stats["nFinished"], stats["nWorkersDied"]) == (1, 11, 1)


def test_workers_killed_from_outside_while_idle_lose_nothing() -> None:
    run = ProcessorRun(UserMpWorkerPool, args={**DOUBLER, "nWorkers": 2})
    run.feed(image_object(None, 1))
    wait_until(lambda: run.publisher.counts().published == 1)
    for child in left_of(set()):
        if "spawn_main" in _command(child):
            os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: run.processor.getStats()["nWorkersDied"] == 2, what="both deaths")
    run.processor.configure({"factor": 3})
    for k in range(2, 8):
        run.feed(image_object(None, k))
    result = run.finish()
    assert result.errors == {}
    assert [f.id for f in result.frames] == list(range(1, 8))
    assert result.frames[6].image[0, 0] == 21


def test_when_no_worker_is_left_every_object_fails_and_says_so() -> None:
    run = ProcessorRun(UserMpWorkerPool, args={**DOUBLER, "nWorkers": 1, "maxRestarts": 1})
    for k in range(1, 6):
        run.feed(image_object(None, k, **({"die": 1} if k in (1, 2) else {})))
    wait_until(lambda: run.processor.getStats()["nWorkers"] == 0, what="the end of the last worker")
    run.feed(image_object(None, 6))
    assert "no worker is left; the last died (signal SIGKILL)" in run.stage.last_error
    result = run.finish()
    assert {i for ids in result.ledger.failed.values() for i in ids} == set(range(1, 7))
    assert list(result.ledger.failed["worker died"]) == [1, 2]
    assert not result.ledger.processed
    assert result.frames == []


def test_a_worker_that_hangs_is_killed() -> None:
    objects = [image_object(None, k, sleep=60.0 * (k == 1)) for k in (1, 2, 3)]
    result = run(objects, {**DOUBLER, "nWorkers": 1, "objectTimeout": 0.3})
    assert [f.id for f in result.frames] == [2, 3]
    assert "no end of an object within 0.3 s" in result.last_error


def test_stop_is_bounded_and_names_what_is_left() -> None:
    run = ProcessorRun(
        UserMpWorkerPool, args={**DOUBLER, "nWorkers": 2, "queueDepth": 2, "drainTimeout": 0.5}
    )
    for k in (1, 2, 3, 4):
        run.feed(image_object(None, k, sleep=600.0 * (k == 2)))
    start = time.monotonic()
    result = run.finish()
    assert time.monotonic() - start < 60
    ids = [f.id for f in result.frames]
    (left,) = result.ledger.failed.values()
    # What the other worker finished is published, in order, though an earlier one is left.
    assert sorted([*ids, *left]) == [1, 2, 3, 4]
    assert ids == sorted(ids)
    assert {1, 3} <= set(ids)
    assert "left when the time to drain was over" in result.last_error


def test_a_full_pool_holds_the_stream_back() -> None:
    run = ProcessorRun(UserMpWorkerPool, args={**DOUBLER, "nWorkers": 1, "queueDepth": 1})
    start = time.monotonic()
    for k in range(4):
        run.feed(image_object(None, k, sleep=0.1))
    assert time.monotonic() - start > 0.25
    assert run.finish().ok


def test_configure_and_reset_reach_the_workers_behind_what_they_have() -> None:
    run = ProcessorRun(UserMpWorkerPool, args={**DOUBLER, "nWorkers": 2})
    for k in range(4):
        run.feed(image_object(None, k))
    run.processor.configure({"factor": 5})
    wait_until(lambda: run.publisher.counts().published == 4)
    run.processor.resetStats()
    run.feed(image_object(None, 4))
    with pytest.raises(ProcessorError, match=r"workers refuse.*KeyError"):
        run.processor.configure({"other": 1})
    with pytest.raises(SettingsError, match="nWorkers cannot be changed"):
        run.processor.configure({"nWorkers": 3})
    result = run.finish()
    assert [f.image[0, 0] for f in result.frames] == [0, 2, 4, 6, 20]
    stats = result.processor.getStats()
    assert (stats["nSubmitted"], stats["nDoubled"]) == (1, 1)


def test_what_cannot_start_is_told_at_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="workerClass is required"):
        UserMpWorkerPool({})
    with pytest.raises(SettingsError, match="nWorkers"):
        UserMpWorkerPool({**DOUBLER, "nWorkers": 0})
    with pytest.raises(ProcessorError, match="has no class 'Tripler'"):
        UserMpWorkerPool({"workerClass": "tests.hpc.mp_workers.Tripler"})
    with pytest.raises(ValueError, match="no such configuration"):
        UserMpWorkerPool({**DOUBLER, "refuse": True})
    with pytest.raises(ProcessorError, match=r"does not start in worker \d: RuntimeError: no GPU"):
        ProcessorRun(UserMpWorkerPool, args={**DOUBLER, "breaks": True, "nWorkers": 1})

    class Local(Doubler):
        pass

    with pytest.raises(ProcessorError, match="top level"):
        ProcessorSource.of(Local)


def test_a_result_that_cannot_be_published_is_an_error_of_its_object() -> None:
    result = run([image_object(None, 3)], {"workerClass": "tests.hpc.mp_workers.Shape"})
    assert result.processor.getStats()["nFailed"] == 1
    assert list(result.ledger.failed) == ["publishing: ProcessorError"]
    assert "the worker returned float, not a Frame" in result.last_error


def test_packing_copies_nothing_and_keeps_types() -> None:
    image = np.arange(10**6, dtype=np.int32).reshape(1000, 1000)
    packed = PackedObject([frame(image, 7, gain=1), frame(image[:1], 8)])
    assert len(packed.parts) == 3
    assert packed.layout[0] < 5000
    first, second = unpack([bytes(part) for part in packed.parts], None)
    assert np.array_equal(first.image, image)
    assert (second.id, second.image.shape, second.image.dtype) == (8, (1, 1000), np.int32)
    item = {"a": [1, "x"], "b": np.float32(2)}
    assert unpack([bytes(part) for part in PackedObject(item).parts], None) == item


FILE = """
from pvapy_stream.hpc.workers import UserMpDataProcessor, UserMpWorkerPool

class Negative(UserMpDataProcessor):
    def process(self, frame):
        if frame.id == 30:
            raise ValueError("thirty")
        return frame.replace(frame.image + 1000)

class Pool(UserMpWorkerPool):
    workerClass = Negative
"""


def test_a_consumer_runs_a_pool_from_a_user_s_file(
    prefix: str, commands: Commands, source: Source, tmp_path: Path
) -> None:
    file = tmp_path / "user_file.py"
    file.write_text(FILE)
    assert ProcessorSource.of(load_processor_class("Negative", file)).file == str(file)
    ledger = tmp_path / "ledger.json"
    consumer = commands(
        "consumer", "-ic", source.channel, "-oc", f"{prefix}out", "-sc", f"{prefix}s",
        "-pf", file, "-pc", "Pool", "-sqs", "500", "-rqs", "500", "--ledger", ledger,
    )  # fmt: skip
    wait_until(lambda: status(f"{prefix}s").get("receiverStats", {}).get("nReceived", 0) >= 1)
    source.publish(range(1, 101))
    wait_until(lambda: status(f"{prefix}s")["userStats"]["nFinished"] == 99)
    consumer.signal(signal.SIGINT)
    assert consumer.wait() == 1, consumer.text
    assert "thirty" in consumer.text
    (account,) = read_ledgers(ledger)
    assert str(account.published) == "1-29,31-100"
