"""Processors that write in place, in real programs: the next one gets what they wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pvapy_stream import publish, subscribe
from tests.support import Commands, Program, status, wait_until, write_processor

N, SIDE = 200, 256

# Counts which of its arrays lie in a pool, by what numpy says of their memory. Arrays that are kept
# must stay as they are, those that were published too.
BODY = """
import threading
import numpy as np
import pvaccess as pva
from pvapy_stream import FrameProcessor
from pvapy_stream.transport.shm.slot_memory import held_memory_of

class InPlace(FrameProcessor):
    n, n_read_only = 0, 0

    def start(self):
        self.kept = []

    def made(self, frame, into):
        image = np.multiply(frame.image, 2, out=into)
        in_pool = held_memory_of(image) is not None
        self.n += in_pool
        self.check()
        self.kept = [*self.kept[-2:], (image, 2 * int(frame.image[0, 0]), in_pool)]
        return image

    def check(self):
        for image, value, in_pool in self.kept:
            assert (image == value).all()
        if self.kept and self.kept[-1][2]:
            self.n_read_only += not self.kept[-1][0].flags.writeable

    def process_frame(self, frame):
        frame.like((2048, 4))
        return self.made(frame, frame.like())

    def getStats(self):
        return {"nInPool": self.n, "nReadOnly": self.n_read_only}

    def getStatsPvaTypes(self):
        return {"nInPool": pva.ULONG, "nReadOnly": pva.ULONG}

class Twice(InPlace):
    def process_frame(self, frame):
        image = self.made(frame, frame.like())
        return [frame.replace(image, id=2 * frame.id), frame.replace(image, id=2 * frame.id + 1)]

class InBatches(InPlace):
    def process_batch(self, frames):
        return [self.made(frame, frame.like()) for frame in frames]

class InThread(InPlace):
    def process_frame(self, frame):
        images = []
        def work():
            images.append(self.made(frame, self.reserve(frame.image.shape, frame.dtype)))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return images[0]
"""


def stage(
    commands: Commands, prefix: str, tmp_path: Path, number: int, name: str, *more: object
) -> Program:
    return commands(
        "consumer", "-id", number, "-ic", f"{prefix}{number}", "-im", "shm", "-oc",
        f"{prefix}{number + 1}", "-om", "shm", "-sc", f"{prefix}s{number}", "-pf",
        write_processor(tmp_path, BODY), "-pc", name, *more,
    )  # fmt: skip


def processed(prefix: str, number: int) -> int:
    return status(f"{prefix}s{number}")["processorStats"]["nProcessed"]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("InPlace", ()),
        ("Twice", ()),
        ("InBatches", ("--batch-size", 16, "--batch-timeout", 0.2)),
        ("InThread", ("-om", "both")),
    ],
    ids=["frames", "two ids", "batches", "thread, two outputs"],
)
def test_a_chain_gets_what_processors_write_in_place(
    prefix: str, commands: Commands, tmp_path: Path, name: str, more: tuple[Any, ...]
) -> None:
    twice = name == "Twice"
    first = stage(commands, prefix, tmp_path, 0, name, *more)
    second = stage(commands, prefix, tmp_path, 1, "InPlace")
    wait_until(lambda: status(f"{prefix}s1")["state"] == "running")
    with (
        subscribe(f"{prefix}2", "shm", timeout=120, queue_size=1000) as frames,
        publish(f"{prefix}0", "shm", timeout=120) as source,
    ):
        source.wait_for_subscribers(1, timeout=120)
        # So that the chain is connected before the first that counts.
        wait_until(lambda: frames.connected)
        n_source = 0
        for number in range(1, N + 1):
            image = source.reserve((SIDE, SIDE), np.uint32)
            n_source += image.base is not None
            image[...] = number
            source.send(image, id=number)
        got = {}
        for frame in frames:
            got[frame.id] = np.unique(frame.image).tolist()
            if len(got) == N * (1 + twice):
                break
    if twice:
        expected = {2 * k + j: [4 * k] for k in range(1, N + 1) for j in (0, 1)}
    else:
        expected = {k: [4 * k] for k in range(1, N + 1)}
    assert got == expected
    wait_until(lambda: processed(prefix, 0) == N)
    stats = wait_until(lambda: status(f"{prefix}s0")["userStats"])
    # While the queue of a stage is full, arrays are ordinary.
    assert n_source > 8
    assert stats["nInPool"] > N / 4
    # A batch is published when all of it is written.
    assert name == "InBatches" or stats["nReadOnly"] > N / 4 - 1
    for program in (first, second):
        program.signal()
        assert program.wait() == 0, program.text
