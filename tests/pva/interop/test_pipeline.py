"""Slow clients of other make that acknowledge: the source waits, and nothing is lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pvapy_stream.pva.lazy import pv_object
from pvapy_stream.transport.own_hosted import OwnHostedPublisher
from pvapy_stream.transport.own_monitor import OwnMonitorReceiver
from pvapy_stream.transport.pva_library import PvaSettings
from tests.pvmonitor import Pvmonitor
from tests.support import PATIENCE, wait_until
from tests.transport.own_hosted.channels import P4P, lazy

COUNT = 10_000
ASKED = "record[pipeline=true,queueSize=10]"
CHANCE = 0.002  # of a pause after an object
PAUSE = 0.05  # s; the longest

SCRIPT = """
import random, time
chance = random.Random(5)
got = queue.Queue()
def take(v):
    if chance.random() < CHANCE:
        time.sleep(chance.random() * PAUSE)
    got.put(v.uniqueId)
s = context.monitor(sys.argv[1], take, request="ASKEDfield()")
print("up", got.get(timeout=60), flush=True)
ids = [got.get(timeout=60) for _ in range(COUNT)]
print(ids == list(range(1, COUNT + 1)), flush=True)
s.close(); context.close()
"""


@pytest.fixture
def publisher(prefix: str) -> Iterator[OwnHostedPublisher]:
    made = OwnHostedPublisher(f"{prefix}image", PvaSettings.of(pva_timeout=60))
    made.open(lazy(0))
    yield made
    made.stop()


def publish(publisher: OwnHostedPublisher) -> None:
    for number in range(1, COUNT + 1):
        publisher.publish(lazy(number))


def test_p4p_loses_nothing(publisher: OwnHostedPublisher) -> None:
    script = P4P + textwrap.dedent(SCRIPT)
    for name, value in (("COUNT", COUNT), ("CHANCE", CHANCE), ("PAUSE", PAUSE), ("ASKED", ASKED)):
        script = script.replace(name, str(value))
    program = subprocess.Popen(
        [sys.executable, "-c", script, publisher.channel], stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "up 0\n"
    publish(publisher)
    assert program.communicate(timeout=PATIENCE)[0] == "True\n"
    assert publisher.counts().rejected == 0


@pytest.mark.parametrize("program", ["pvmonitor", "pvget"])
def test_the_tools_of_epics_lose_nothing(publisher: OwnHostedPublisher, program: str) -> None:
    """They are stopped and continued at random."""
    client = Pvmonitor(f"{ASKED}field(uniqueId)", publisher.channel, program=program)
    try:
        assert client("take", publisher.channel) == {"uniqueId": 0}
        source = threading.Thread(target=publish, args=(publisher,), daemon=True)
        source.start()
        chance = random.Random(5)
        ids: list[int] = []
        while len(ids) < COUNT:
            if chance.random() < CHANCE:
                client.signal(signal.SIGSTOP)
                time.sleep(chance.random() * PAUSE)
                client.signal(signal.SIGCONT)
            ids.append(client("take", publisher.channel)["uniqueId"])
        source.join(PATIENCE)
    finally:
        client.close()
    assert ids == list(range(1, COUNT + 1))
    assert publisher.counts().rejected == 0


BURST = """
import sys
from p4p.nt import NTScalar
from p4p.server import Server
from p4p.server.thread import SharedPV
pv = SharedPV(nt=NTScalar("i"), initial=0)
with Server(providers=[{sys.argv[1]: pv}]):
    print("up", flush=True)
    sys.stdin.readline()
    for number in range(1, COUNT + 1):
        pv.post(number)
    sys.stdin.readline()
"""


def test_the_end_of_a_burst_of_pvxs_comes(prefix: str) -> None:
    """Its server keeps it back from clients that acknowledge, once their queue was full."""
    script = BURST.replace("COUNT", str(COUNT))
    seen: list[int] = []

    def take(obj: Any) -> bool:
        seen.append(pv_object(obj)["value"])
        if len(seen) < 20:
            time.sleep(PAUSE)
        return True

    server = subprocess.Popen(
        [sys.executable, "-c", script, f"{prefix}x"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    receiver = OwnMonitorReceiver(f"{prefix}x", f"{ASKED}field(value)")
    assert server.stdout is not None
    assert server.stdin is not None
    try:
        assert server.stdout.readline() == "up\n"
        receiver.start(take)
        wait_until(lambda: seen == [0])
        server.stdin.write("\n")
        server.stdin.flush()
        wait_until(lambda: seen[-1] == COUNT)
        assert seen == sorted(set(seen))
    finally:
        receiver.stop()
        server.kill()
        server.communicate(timeout=PATIENCE)
