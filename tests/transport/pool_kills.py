"""A chain over payload pools whose programs are killed; `python -m tests.transport.pool_kills`.

Each pixel of a frame is its id. A line is printed for each frame that is not whole, for each frame
that is not received although nobody was killed, and for all that is left in shared memory.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pvapy_stream.frame import Frame, new_image
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.settings import ShmSettings
from pvapy_stream.transport.shm import ShmPublisher, ShmReceiver, nodes, user_folder
from pvapy_stream.transport.shm.slot_memory import held_memory_of
from tests.transport.kills import PATIENCE, ended, leftovers, start

SHAPE = (256, 256)
N_STAGES = 2
KEPT = 3


def channel(number: int) -> str:
    return f"pool-kills-{number}"


def source(first: int) -> None:
    publisher = ShmPublisher(channel(0), ShmSettings.of(shm_timeout=1), source=True)
    publisher.start()
    number = first
    while True:
        number += 1
        frame = Frame.of(number, np.full(SHAPE, number, np.uint32))
        publisher.publish(LazyObject(frame))
        if number % 16 == 0:
            time.sleep(0.002)


def stage(number: int) -> None:
    """Pass on each object, and keep the last ones; every other one is written anew in place."""
    publisher = ShmPublisher(channel(number + 1), ShmSettings.of(shm_timeout=1))
    publisher.start()
    kept: deque[Any] = deque(maxlen=KEPT)

    def deliver(obj: Any) -> None:
        frame = obj.frame
        kept.append(frame.payload)
        if frame.id % 2 and frame.payload.size:
            image = new_image(SHAPE, np.uint32, output=publisher)
            np.copyto(image, frame.image)
            obj = LazyObject(frame.replace(image))
            # This is never published, and the other is kept after it was.
            kept.extend((new_image(SHAPE, np.uint32, output=publisher), image))
        publisher.publish(obj)

    ShmReceiver(channel(number)).start(deliver)
    while True:
        time.sleep(1)


def bystander() -> None:
    """Receive beside the first stage, which so joins a set that gets frames already."""
    ShmReceiver(channel(0)).start(lambda _: None)
    while True:
        time.sleep(1)


def sink(pipe: int) -> None:
    """Check all pixels, at once and again after a while."""
    kept: deque[Frame] = deque()
    n_held = 0

    def check(frame: Frame, when: str) -> None:
        pixels = frame.payload
        if not (pixels == frame.id).all():
            found = np.unique(pixels)[:5].tolist()
            os.write(pipe, f"wrong frame {frame.id} {when}: pixels {found}\n".encode())

    def deliver(obj: Any) -> None:
        nonlocal n_held
        frame = obj.frame
        if not frame.payload.size:
            return
        check(frame, "when received")
        n_held += held_memory_of(frame.payload) is not None
        kept.append(frame)
        if len(kept) > KEPT:
            check(kept.popleft(), "when released")
        if frame.id % 50 == 0:
            os.write(pipe, f"id {frame.id} {n_held}\n".encode())

    ShmReceiver(channel(N_STAGES)).start(deliver)
    while True:
        time.sleep(1)


class Chain:
    """The programs of a chain, and what its last one reports."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        self.tasks: list[Callable[[], None]] = [
            lambda: source(self.last_id),
            *(lambda number=number: stage(number) for number in range(N_STAGES)),
            lambda: sink(self._write),
        ]
        self.last_id = self.n_in_pools = 0
        self.wrong: list[str] = []
        self._text = ""
        self.pids = [start(task) for task in self.tasks]
        # It is not killed before the end.
        self.bystander = start(bystander)

    def read(self) -> None:
        try:
            self._text += os.read(self._read, 2**16).decode()
        except BlockingIOError:
            return
        *lines, self._text = self._text.split("\n")
        for line in lines:
            if line.startswith("id "):
                _, number, n_held = line.split()
                # A new source goes on from what the sink has seen, and may repeat some ids.
                self.last_id, self.n_in_pools = int(number), self.n_in_pools + int(int(n_held) > 0)
            else:
                self.wrong.append(line)

    def goes_on(self) -> bool:
        """Whether new frames arrive at the end."""
        self.read()
        before, deadline = self.last_id, time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.read()
            if self.last_id != before:
                return True
            time.sleep(0.01)
        return False

    def kill(self, index: int) -> None:
        os.kill(self.pids[index], signal.SIGKILL)
        os.waitpid(self.pids[index], 0)


def meet() -> None:
    """Come and go: this removes what dead programs left."""
    publisher = ShmPublisher("pool-kills-visit", ShmSettings())
    publisher.start()
    publisher.stop()


def main(where: str, prefix: str, seed: int, seconds: float) -> None:
    """Kill programs of a chain for so long, at least each of them once."""
    user_folder.SHM, nodes.PREFIX = Path(where), prefix
    rng = random.Random(seed)
    chain = Chain()
    deadline = time.monotonic() + seconds
    rounds = 0
    if not chain.goes_on():
        chain.wrong.append("nothing arrives")
    while (rounds < len(chain.pids) or time.monotonic() < deadline) and not chain.wrong:
        victims = {rounds % len(chain.pids)} | {
            index for index in range(len(chain.pids)) if rng.random() < 0.25
        }
        rounds += 1
        time.sleep(rng.uniform(0, 0.2))
        stopped = rng.randrange(len(chain.pids))
        if rng.random() < 0.5:
            # While it is stopped, others are killed; it continues with what it holds.
            os.kill(chain.pids[stopped], signal.SIGSTOP)
            time.sleep(rng.uniform(0, 0.2))
        for index in victims:
            chain.kill(index)
            time.sleep(rng.uniform(0, 0.02))
        for index in victims:
            chain.pids[index] = start(chain.tasks[index])
        os.kill(chain.pids[stopped], signal.SIGCONT)
        if not chain.goes_on():
            chain.wrong.append(f"round {rounds}: nothing arrives after {sorted(victims)} died")
    for index in rng.sample(range(len(chain.pids)), len(chain.pids)):
        chain.kill(index)
    os.kill(chain.bystander, signal.SIGKILL)
    os.waitpid(chain.bystander, 0)
    chain.read()
    if not chain.n_in_pools:
        chain.wrong.append("no frame came from a pool")
    if not ended(start(meet)):
        chain.wrong.append("no visit after kills")
    for wrong in chain.wrong + leftovers():
        sys.stdout.write(f"{wrong}\n")
    sys.stdout.write(f"rounds: {rounds}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
