"""Puts to an input whose program is killed before it has answered."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pvaccess as pva
import pytest

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.net.server_channel import Put
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.transport.put import PutPublisher
from pvapy_stream.transport.pvas import PutReceiver
from tests.support import PATIENCE, wait_until
from tests.transport.pairs import make_object

# A stage that takes its time for each object.
SLOW = """
import sys, time
import pvaccess as pva
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.transport.pvas import PutReceiver
receiver = PutReceiver(pva.PvaServer(), sys.argv[1], ObjectBuilder().prototype)
def take(obj):
    print(frame_of(obj).id, flush=True)
    time.sleep(float(sys.argv[2]))
receiver.start(take)
print("up", flush=True)
time.sleep(300)
"""


class Stage:
    def __init__(self, channel: str, pause: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SLOW, channel, str(pause)], stdout=subprocess.PIPE, text=True
        )
        assert self.line() == "up"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=20)


def in_thread(publisher: PutPublisher, obj: Any) -> tuple[threading.Thread, list[str]]:
    outcome: list[str] = []

    def run() -> None:
        try:
            publisher.publish(obj)
            outcome.append("done")
        except TransportError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_a_stage_that_is_killed_with_a_put_and_comes_back(prefix: str) -> None:
    channel = f"{prefix}in"
    publisher = PutPublisher(channel, 60)
    first = Stage(channel, 60)
    thread, outcome = in_thread(publisher, make_object(1))
    assert first.line() == "1"
    first.kill()
    # What was not answered may have been taken, so it is not put again.
    thread.join(60)
    assert "whether it has the object" in outcome[0]
    second = Stage(channel, 0)
    publisher.publish(make_object(2))
    assert second.line() == "2"
    assert publisher.counts().published == 1
    assert publisher.counts().errors == 1
    publisher.stop()
    second.kill()


def test_a_stage_that_stands_still_for_a_while_gets_each_object_once(prefix: str) -> None:
    channel = f"{prefix}in"
    publisher = PutPublisher(channel, 5)
    stage = Stage(channel, 0)
    publisher.publish(make_object(1))
    assert stage.line() == "1"
    stage.process.send_signal(signal.SIGSTOP)
    thread, outcome = in_thread(publisher, make_object(2))
    time.sleep(3)
    stage.process.send_signal(signal.SIGCONT)
    thread.join(60)
    assert outcome == ["done"]
    publisher.publish(make_object(3))
    assert [stage.line(), stage.line()] == ["2", "3"]
    publisher.stop()
    stage.kill()


@pytest.mark.timeout(60)
def test_a_publisher_that_is_stopped_waits_no_longer(prefix: str) -> None:
    channel = f"{prefix}in"
    publisher = PutPublisher(channel, 5)
    stage = Stage(channel, 60)
    publisher.publish(make_object(1))
    thread, outcome = in_thread(publisher, make_object(2))
    time.sleep(0.5)
    publisher.stop()
    thread.join(10)
    assert "whether it has the object" in outcome[0]
    stage.kill()


def test_what_was_refused_is_not_kept_while_the_stage_hangs(prefix: str) -> None:
    """Clients put again what was refused: what is kept of each grows for as long as it hangs."""
    hangs, goes_on = threading.Event(), threading.Event()

    def take(obj: Any) -> None:
        hangs.set()
        goes_on.wait(PATIENCE)

    receiver = PutReceiver(pva.PvaServer(), f"{prefix}in", ObjectBuilder().prototype)
    receiver.start(take)
    served = receiver._served  # pyright: ignore
    served.patience = 0.1
    came: list[Put] = []
    comes = served.on_put
    assert comes is not None
    served.on_put = lambda put: (came.append(put), comes(put))[1]
    first, _ = in_thread(PutPublisher(f"{prefix}in", 20.0), make_object(1))
    assert hangs.wait(PATIENCE)
    second, outcome = in_thread(PutPublisher(f"{prefix}in", 0.2), make_object(2))
    second.join(PATIENCE)
    assert "nobody took" in outcome[0]
    wait_until(lambda: len(came) >= 2)
    wait_until(lambda: not any(put.value for put in came[1:]))
    goes_on.set()
    first.join(PATIENCE)
    receiver.stop()
    assert receiver.counts().received == 1
