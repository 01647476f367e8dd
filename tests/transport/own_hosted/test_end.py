"""The end of a source: what it has sent arrives, also at a receiver that acknowledges slowly."""

from __future__ import annotations

import math
import socket
import struct
import threading
import time
from typing import Any

import pytest

from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.pva.net import base_link
from pvapy_stream.transport.own_monitor import OwnMonitorReceiver
from tests.support import PATIENCE, wait_until
from tests.transport.own_hosted.channels import Make, lazy

_N, _SIDE = 40, 400  # 12.8 MB: more than the kernel keeps for a connection


class Stage:
    """Takes an object when it may, and notes all that it is given."""

    def __init__(self, slow_after: float = math.inf) -> None:
        self.ids: list[int] = []
        self.go = threading.Event()
        self._slow_after = slow_after

    def take(self, obj: Any) -> None:
        self.ids.append(frame_of(obj).id)
        self.go.wait(PATIENCE)
        if self.ids[-1] > self._slow_after:
            time.sleep(0.01)


def test_what_is_under_way_at_the_end_arrives_though_the_receiver_acknowledges_it(
    make: Make,
) -> None:
    publisher = make()
    publisher.open(lazy(0))
    ids: list[int] = []
    go = threading.Event()

    def deliver(obj: Any) -> None:
        number = frame_of(obj).id
        if number:
            go.wait(PATIENCE)
            time.sleep(0.005)
        ids.append(number)

    receiver = OwnMonitorReceiver(
        publisher.channel, f"record[queueSize={_N + 2},pipeline=true]field()"
    )
    receiver.start(deliver)
    wait_until(lambda: ids)
    # The window of the receiver is open for all of them.
    for number in range(1, _N + 1):
        publisher.publish(lazy(number, _SIDE))
    go.set()
    publisher.finish(PATIENCE)
    publisher.stop()
    wait_until(lambda: not receiver.connected)
    assert ids == list(range(_N + 1))
    receiver.stop()


def test_what_a_killed_source_had_sent_is_read_though_nothing_can_be_sent_to_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_link, "_READS", 1)
    publisher = make()
    publisher.open(lazy(0))
    stage = Stage()
    ids, go = stage.ids, stage.go
    go.set()
    # It acknowledges every second object.
    receiver = OwnMonitorReceiver(publisher.channel, "record[queueSize=4,pipeline=true]field()")
    receiver.start(stage.take)
    wait_until(lambda: ids)
    # The kernel gets room for more with what is read.
    for number in range(1, 41):
        publisher.publish(lazy(number, _SIDE))
    wait_until(lambda: len(ids) == 41)
    go.clear()
    for number in range(41, 45):
        publisher.publish(lazy(number, _SIDE))
    hosted: Any = publisher._hosted  # pyright: ignore
    (client,) = hosted.channel.clients
    wait_until(lambda: client.arrived and len(ids) == 42)
    # As when a process is killed that had not read all: nothing more can be sent to it.
    client.link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    hosted.loop.call(lambda: client.close("it was killed"))
    wait_until(lambda: client.closed)
    go.set()
    # At the latest, it comes as the current object when the receiver has connected again.
    wait_until(lambda: 44 in ids)
    receiver.stop()
    assert ids[:45] == list(range(45))


@pytest.mark.parametrize("patience", [0.0, PATIENCE])
def test_what_waits_in_the_kernel_when_a_receiver_stops(make: Make, patience: float) -> None:
    """It is delivered, within the time that there is; what comes later is not."""
    publisher = make()
    publisher.open(lazy(0))
    # It takes longer than `stop` to see that what had come is delivered.
    stage = Stage(slow_after=20)
    ids, go = stage.ids, stage.go
    receiver = OwnMonitorReceiver(publisher.channel, "record[queueSize=100]field()")
    receiver.start(stage.take)
    wait_until(lambda: ids)
    for number in range(1, 21):
        publisher.publish(lazy(number, 30))
    publisher.finish(PATIENCE)
    stopping = threading.Thread(target=receiver.stop, args=(patience,))
    stopping.start()
    time.sleep(0.1)
    for number in range(21, 101):
        publisher.publish(lazy(number, 200))
    go.set()
    stopping.join()
    if patience:
        assert ids[:21] == list(range(21))
        assert len(ids) < 101
    else:
        assert ids == [0]
