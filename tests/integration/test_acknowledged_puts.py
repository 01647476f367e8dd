"""Every acknowledged put is processed, once, with its own pixels; a slow stage slows the client."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.hpc.deadline import Deadline
from pvapy_stream.hpc.inbox import QueueInbox
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.transport.pvas import PutReceiver
from tests.support import get, rounds, wait_until

N_FAST, N_SLOW = rounds(1000), rounds(250)

# Puts as fast as it goes, and tells which were acknowledged; the pixels carry the id.
CLIENT = """
import sys
import numpy as np, pvaccess as pva
from pvapy_stream.frame import Frame
from pvapy_stream.pva.ntndarray import ObjectBuilder
channel, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
pv = pva.Channel(channel)
pv.setTimeout(60)
builder = ObjectBuilder()
for number in range(first, last):
    pv.put(builder.build(Frame.of(number, np.full((8, 8), number, np.int32))), "")
    print(number)
"""


class Stage:
    """Takes objects, and looks whether the pixels are those of the id when it has had them long."""

    def __init__(self, pause: float = 0.0) -> None:
        self.ids: list[int] = []
        self.wrong: list[int] = []
        self._pause = pause

    def __call__(self, obj: Any) -> None:
        before = frame_of(obj).id
        if self._pause:
            time.sleep(self._pause)
        frame = frame_of(obj)
        if frame.id != before or not np.all(frame.image == frame.id):
            self.wrong.append(before)
        self.ids.append(before)


@pytest.fixture
def receiver(prefix: str) -> Iterator[PutReceiver]:
    made = PutReceiver(pva.PvaServer(), f"{prefix}in", ObjectBuilder().prototype)
    yield made
    made.stop()


def start_client(channel: str, first: int, last: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, channel, str(first), str(last)],
        stdout=subprocess.PIPE,
        text=True,
    )


def acknowledged(client: subprocess.Popen[str]) -> list[int]:
    out, _ = client.communicate(timeout=280)
    return [int(line) for line in out.split()]


@pytest.mark.parametrize(("pause", "count"), [(0.0, N_FAST), (0.005, N_SLOW)])
def test_each_id_once_with_its_own_pixels(receiver: PutReceiver, pause: float, count: int) -> None:
    stage = Stage(pause)
    receiver.start(stage)
    assert acknowledged(start_client(receiver.channel, 1, count + 1)) == [*range(1, count + 1)]
    assert stage.ids == [*range(1, count + 1)]
    assert stage.wrong == []
    assert receiver.counts().received == count
    assert receiver.counts().overruns == receiver.counts().errors == 0


def test_two_clients_and_a_queue_that_is_full(receiver: PutReceiver) -> None:
    stage, rejected = Stage(0.004), []
    inbox = QueueInbox(stage, lambda why, obj: rejected.append(why), size=3, waits=True)
    inbox.start()
    receiver.start(inbox.put)
    clients = [start_client(receiver.channel, first, first + 200) for first in (1, 1001)]
    told = [acknowledged(client) for client in clients]
    inbox.drain(Deadline(10))
    assert inbox.left() == []
    assert [len(ids) for ids in told] == [200, 200]
    assert sorted(stage.ids) == [*range(1, 201), *range(1001, 1201)]
    assert [number for number in stage.ids if number < 1000] == told[0]
    assert (stage.wrong, rejected) == ([], [])


def test_a_put_that_nobody_takes_is_refused_and_one_that_is_taken_for_long_is_not(
    receiver: PutReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver._served, "patience", 1.0)
    came, may_go = [], threading.Event()

    def stage(obj: Any) -> None:
        came.append(frame_of(obj).id)
        may_go.wait(60)

    receiver.start(stage)
    began = time.monotonic()
    client = start_client(receiver.channel, 1, 2)
    # It is acknowledged while the stage still has it.
    assert acknowledged(client) == [1]
    assert time.monotonic() - began > 1.0
    late = start_client(receiver.channel, 2, 3)
    assert acknowledged(late) == []
    assert late.returncode != 0
    wait_until(lambda: receiver.counts().overruns == 1)
    may_go.set()
    assert acknowledged(start_client(receiver.channel, 3, 4)) == [3]
    assert came == [1, 3]
    assert get(receiver.channel, "uniqueId") == 3


def test_the_stage_of_a_client_that_is_killed_gets_nothing_half(receiver: PutReceiver) -> None:
    stage = Stage(0.002)
    receiver.start(stage)
    client = start_client(receiver.channel, 1, 10**6)
    wait_until(lambda: len(stage.ids) > 50)
    client.kill()
    told = [int(line) for line in client.communicate(timeout=60)[0].split()]
    wait_until(lambda: stage.ids and stage.ids[-1] >= len(told))
    assert acknowledged(start_client(receiver.channel, 5 * 10**6, 5 * 10**6 + 2)) == [
        5 * 10**6, 5 * 10**6 + 1,
    ]  # fmt: skip
    assert stage.wrong == []
    assert len(set(stage.ids)) == len(stage.ids)
    assert set(told) <= set(stage.ids)
