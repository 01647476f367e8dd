"""Programs over shared memory that are killed at any instant; `python -m tests.transport.kills`.

A process of its own, which forks: a program takes a second to start, and what matters are the
milliseconds after that. It prints a line for each leftover and each program that did not get on.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pvapy_stream.settings import ShmSettings
from pvapy_stream.transport.shm import ShmPublisher, ShmReceiver, nodes, user_folder
from tests.transport.pairs import Ids, make_object

CHANNEL = "kills"
OBJECT = make_object(3)
PATIENCE = 60.0  # s


def publish() -> None:
    """Open the channel, publish and close it, again and again."""
    while True:
        publisher = ShmPublisher(CHANNEL, ShmSettings.of(shm_timeout=0.2))
        publisher.open(OBJECT)
        for _ in range(20):
            publisher.publish(OBJECT)
            time.sleep(0.002)
        publisher.stop()


def receive() -> None:
    """Subscribe and leave, again and again."""
    while True:
        receiver = ShmReceiver(CHANNEL)
        receiver.start(lambda _: None)
        time.sleep(0.08)
        receiver.stop(0.05)


def live() -> None:
    """Publish on a channel of its own."""
    publisher = ShmPublisher("living", ShmSettings())
    while True:
        publisher.publish(OBJECT)
        time.sleep(0.1)


def meet() -> None:
    """Exchange objects on another channel, and end."""
    ids = Ids()
    publisher, receiver = ShmPublisher("meeting", ShmSettings()), ShmReceiver("meeting")
    publisher.open(make_object(0))
    receiver.start(ids)
    while not publisher.subscribers:
        time.sleep(0.01)
    for number in range(1, 4):
        publisher.publish(make_object(number))
    while ids.new != [1, 2, 3]:
        time.sleep(0.01)
    receiver.stop(5)
    publisher.stop()


def start(task: Callable[[], None]) -> int:
    """Fork a program; its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        task()
        code = 0
    except BaseException as error:
        sys.stderr.write(f"{task.__name__}: {error!r}\n")
    finally:
        os._exit(code)


def ended(pid: int) -> bool:
    """Wait for the end of a program; whether it ended well."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status == 0
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def leftovers() -> list[str]:
    """All that is in shared memory but what every user has once."""
    here = user_folder.path()
    found = [p for p in here.rglob("*") if not p.is_dir()]
    found += [*here.glob("rooms/*"), *here.glob("iceoryx2/nodes/*")]
    found += Path("/dev/shm").glob(f"{nodes.PREFIX}*")
    return sorted({str(path) for path in found if not path.name.endswith(".global_mgmt")})


def play(rng: random.Random, known: set[str]) -> list[str]:
    """Start programs, stop one, kill all; what went wrong."""
    wrong: list[Any] = []
    tasks = rng.choices((publish, receive), k=rng.randint(1, 3))
    # Some are killed before they have begun, most while they work.
    pids = [start(task) for task in tasks]
    time.sleep(rng.uniform(0, rng.choice((0.01, 0.05, 0.2))))
    if rng.random() < 0.3:
        stopped = rng.choice(pids)
        os.kill(stopped, signal.SIGSTOP)
        if not ended(start(meet)):
            wrong.append(f"no meeting beside a stopped program of {[t.__name__ for t in tasks]}")
    for pid in pids:
        time.sleep(rng.uniform(0, 0.02))
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
    if not ended(start(meet)):
        wrong.append("no meeting after kills")
    # What one leaves that is killed while others live, it is enough to remove a little later.
    deadline = time.monotonic() + PATIENCE
    while (left := set(leftovers()) - known) and time.monotonic() < deadline and not wrong:
        time.sleep(0.02)
    return wrong + sorted(left)


def main(where: str, prefix: str, seed: int, seconds: float, others: str) -> None:
    """Play rounds for so long, at least one; alone, or beside a publisher that lives."""
    user_folder.SHM, nodes.PREFIX = Path(where), prefix
    rng = random.Random(seed)
    living = start(live) if others == "beside" else 0
    known: set[str] = set()
    while living and not any("/p-" in name for name in known):
        known = set(leftovers())
    deadline = time.monotonic() + seconds
    rounds = 0
    while not rounds or time.monotonic() < deadline:
        rounds += 1
        for wrong in play(rng, known):
            sys.stdout.write(f"round {rounds}: {wrong}\n")
    if living:
        os.kill(living, signal.SIGKILL)
        os.waitpid(living, 0)
    sys.stdout.write(f"rounds: {rounds}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
