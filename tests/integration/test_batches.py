"""Batches in real programs: every frame keeps its pixels, its id and its fate."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pvapy_stream import Frame, Publication, publish
from pvapy_stream.accounting.ledger import Ledger, read_ledgers
from pvapy_stream.errors import LedgerError
from pvapy_stream.hpc.stage import NO_RETURN
from tests.in_process import call
from tests.support import (
    Commands,
    Program,
    Source,
    command,
    status,
    wait_until,
    write_processor,
)

# The pixels of a frame tell its id. More frames than a receiver in shared memory may hold.
BODY = """
import os, time
import numpy as np
from pvapy_stream import FrameProcessor

class P(FrameProcessor):
    bad, drops, hangs = 0, 0, 0

    def __init__(self, configDict):
        super().__init__(configDict)
        self.bad, self.drops, self.hangs = (configDict.get(k, 0) for k in ("bad", "drops", "hangs"))
        self.kept = []

    def process_batch(self, frames):
        ids = np.array([frame.id for frame in frames])
        if self.hangs and self.hangs in ids:
            os.write(1, b"hangs\\n")
            time.sleep(600)
        images = frames.images
        assert not images.flags.writeable
        assert (images == (ids % 60000).astype(images.dtype)[:, None, None]).all(), ids
        assert all((frame.image == image).all() for frame, image in zip(frames, images))
        # What is kept must stay as it is.
        self.kept = [*self.kept[-3:], (ids, images)]
        for before, pixels in self.kept:
            assert (pixels == (before % 60000).astype(pixels.dtype)[:, None, None]).all(), before
        if self.bad and self.bad in ids:
            raise ValueError("a bad frame")
        results = images + 1
        return [None if frame.id == self.drops else results[n] for n, frame in enumerate(frames)]
"""
LONG = 1000  # s


def pixels(number: int, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full(shape, number % 60000, np.uint16)


def stage(
    commands: Commands, prefix: str, tmp_path: Path, args: str = "{}", *more: object,
    mode: str = "shm", size: int = 64, timeout: float = LONG, kind: str = "consumer",
) -> Program:  # fmt: skip
    return commands(
        kind, "-ic", f"{prefix}in", "-im", mode, "-oc", f"{prefix}out", "-om", "shm", "-sc",
        f"{prefix}status", "-cc", f"{prefix}control", "-pf", write_processor(tmp_path, BODY), "-pc",
        "P", "-pa", args, "--batch-size", size, "--batch-timeout", timeout, "--ledger",
        tmp_path / "stage.json", *more,
    )  # fmt: skip


def ready(prefix: str, name: str = "status") -> None:
    wait_until(lambda: status(f"{prefix}{name}")["state"] in ("running", "waiting"))


@contextmanager
def source(prefix: str, mode: str = "shm") -> Iterator[Publication]:
    with publish(f"{prefix}in", mode=mode) as publication:
        yield publication


def send(publication: Publication, ids: Iterable[int], shape: tuple[int, int] = (48, 64)) -> None:
    for number in ids:
        publication.send(pixels(number, shape), id=number)


def batches(prefix: str) -> dict[str, int]:
    return status(f"{prefix}status")["batchStats"]


def connected(publication: Publication) -> None:
    publication.wait_for_subscribers(1, timeout=120)


def only(file: Path) -> Ledger:
    return read_ledgers(file)[0]


def stop(*programs: Program, code: int = 0) -> None:
    for program in programs:
        program.signal()
        assert program.wait() == code, program.text


@pytest.mark.parametrize("queue", [(), ("-rqs", "0")], ids=["direct", "queue"])
def test_what_is_written_behind_batches_is_what_was_sent(
    prefix: str, commands: Commands, tmp_path: Path, queue: tuple[str, ...]
) -> None:
    n, file = 1000, tmp_path / "frames.h5"
    batching = stage(commands, prefix, tmp_path, '{"drops": 500}', *queue, timeout=0.5)
    writer = commands(
        "write", "-ic", f"{prefix}out", "-im", "shm", "-o", file, "-sc", f"{prefix}w",
        "--ledger", tmp_path / "writer.json",
    )  # fmt: skip
    ready(prefix)
    ready(prefix, "w")
    with source(prefix) as publication:
        connected(publication)
        send(publication, range(1, n + 1))
        wait_until(lambda: status(f"{prefix}w")["processorStats"]["nProcessed"] == n - 1)
        # Its status comes a little later.
        wait_until(lambda: batches(prefix)["nFrames"] == n)
        assert batches(prefix)["nBatches"] < n / 4
        stop(batching, writer)
    with h5py.File(file) as written:
        data: Any = written["entry/data/data"]
        read = data[:, 3, 5].tolist()
    sent = [number for number in range(1, n + 1) if number != 500]
    assert read == [number + 1 for number in sent]
    done = only(tmp_path / "stage.json")
    assert list(done.processed) == list(done.published) == sent
    assert list(done.filtered) == [500]
    audit = call("audit", tmp_path / "stage.json", tmp_path / "writer.json", "--strict")
    assert audit.code == 0, audit.text


def test_one_bad_frame_fails_alone_and_other_shapes_begin_a_batch(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    program = stage(commands, prefix, tmp_path, '{"bad": 70}')
    ready(prefix)
    with source(prefix) as publication:
        connected(publication)
        send(publication, range(1, 101))
        send(publication, range(101, 111), (24, 32))
        send(publication, range(111, 113))
        # Twelve frames less than two batches: what is waited for below was ended by a shape.
        wait_until(lambda: batches(prefix)["nSplit"] == 2)
        stop(program, code=1)
    done = only(tmp_path / "stage.json")
    assert {kind: list(ids) for kind, ids in done.failed.items()} == {"process: ValueError": [70]}
    assert list(done.processed) == [number for number in range(1, 113) if number != 70]
    assert "a bad frame" in program.text


def test_a_half_batch_is_processed_at_stop_and_by_commands(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    program = stage(commands, prefix, tmp_path)
    ready(prefix)
    with source(prefix) as publication:
        connected(publication)
        send(publication, range(1, 31))
        wait_until(lambda: batches(prefix)["nQueued"] == 30)
        assert status(f"{prefix}status")["processorStats"]["nProcessed"] == 0
        assert command(f"{prefix}control", "reload") == "Reload successful"
        wait_until(lambda: status(f"{prefix}status")["processorStats"]["nProcessed"] == 30)
        send(publication, range(31, 41))
        wait_until(lambda: batches(prefix)["nQueued"] == 10)
        stop(program)
    done = only(tmp_path / "stage.json")
    assert list(done.processed) == list(done.published) == list(range(1, 41))


def test_a_half_batch_is_processed_when_its_time_is_over_or_its_source_has_gone(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    program = stage(commands, prefix, tmp_path, timeout=0.2)
    ready(prefix)
    with source(prefix) as publication:
        connected(publication)
        send(publication, range(1, 31))
        wait_until(lambda: status(f"{prefix}status")["processorStats"]["nProcessed"] == 30)
        assert batches(prefix)["nTimedOut"] >= 1
        stop(program)
    gone = stage(commands, prefix, tmp_path)
    ready(prefix)
    with source(prefix) as publication:
        connected(publication)
        send(publication, range(1, 31))
        wait_until(lambda: batches(prefix)["nQueued"] == 30)
    wait_until(lambda: status(f"{prefix}status")["processorStats"]["nProcessed"] == 30)
    stop(gone)


@pytest.mark.parametrize("hangs", [0, 5], ids=["incomplete", "in process"])
def test_the_frames_of_a_killed_stage_are_not_accounted_for(
    prefix: str, commands: Commands, tmp_path: Path, hangs: int
) -> None:
    size = 64 if not hangs else 10
    program = stage(commands, prefix, tmp_path, f'{{"hangs": {hangs}}}', size=size)
    ready(prefix)
    with source(prefix) as publication:
        connected(publication)
        send(publication, range(1, 11))
        if hangs:
            wait_until(lambda: "hangs" in program.text)

        def noted() -> bool:
            try:
                return len(only(tmp_path / "stage.json").received) == 10
            except LedgerError:
                return False

        wait_until(noted)
        program.signal(signal.SIGKILL)
        program.wait()
    audit = call("audit", tmp_path / "stage.json")
    assert audit.code == 1, audit.text
    assert "10 ids: 1-10 received by consumer 1 without a fate" in audit.text
    assert "processed 0" in audit.text


def test_a_batch_that_hangs_stops_neither_status_nor_commands_and_is_ended_by_force(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    program = stage(commands, prefix, tmp_path, '{"hangs": 15}', "--drain-timeout", "1", size=10)
    ready(prefix)
    with source(prefix) as publication:
        connected(publication)
        send(publication, range(1, 21))
        wait_until(lambda: "hangs" in program.text)
        wait_until(lambda: "has not returned" in status(f"{prefix}status")["message"])
        assert "has not returned" in command(f"{prefix}control", "configure", "{}")
        assert status(f"{prefix}status")["processorStats"]["nProcessed"] == 10
        stop(program, code=1)
    done = only(tmp_path / "stage.json")
    assert list(done.processed) == list(range(1, 11))
    assert {kind: list(ids) for kind, ids in done.failed.items()} == {
        NO_RETURN: list(range(11, 21))
    }


def test_batches_over_pva(prefix: str, commands: Commands, tmp_path: Path) -> None:
    images = Source(f"{prefix}in")
    program = stage(commands, prefix, tmp_path, '{"bad": 7}', "-sqs", 500, mode="pva", size=16)
    try:
        wait_until(lambda: status(f"{prefix}status")["processorStats"]["nSkipped"] == 1)
        for number in range(1, 41):
            shape = (48, 64) if number < 30 else (8, 8)
            images.put(images.builder.build(_frame(number, shape)))
        wait_until(lambda: status(f"{prefix}status")["receiverStats"]["nReceived"] == 41)
        wait_until(lambda: batches(prefix)["nQueued"] == 11)
        assert batches(prefix)["nSplit"] == 1
        stop(program, code=1)
    finally:
        images.close()
    done = only(tmp_path / "stage.json")
    assert [*map(list, done.failed.values())] == [[7]]
    assert list(done.published) == [number for number in range(1, 41) if number != 7]


def test_the_batches_of_a_collector(prefix: str, commands: Commands, tmp_path: Path) -> None:
    program = stage(
        commands, prefix, tmp_path, "{}", "-pid", "1,2", "-ic", f"{prefix}in:*",
        kind="collector", timeout=0.5,
    )  # fmt: skip
    ready(prefix)
    with publish(f"{prefix}in:1", mode="shm") as one, publish(f"{prefix}in:2", mode="shm") as two:
        connected(one)
        connected(two)
        for number in range(1, 201):
            send(one if number % 2 else two, [number])
        wait_until(lambda: status(f"{prefix}status")["processorStats"]["nProcessed"] == 200)
        stop(program)
    first, second = read_ledgers(tmp_path / "stage.json")
    assert list(first.processed) == list(range(1, 201, 2))
    assert list(second.processed) == list(range(2, 201, 2))


def _frame(number: int, shape: tuple[int, int]) -> Frame:
    return Frame.of(number, pixels(number, shape))
