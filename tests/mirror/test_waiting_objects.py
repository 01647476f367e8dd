"""Objects that had arrived when a mirror stops, and that it had not published yet."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from pvapy_stream.frame import Frame
from pvapy_stream.mirror.mirror_server import MirrorServer
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.settings import MirrorSettings
from pvapy_stream.transport.memory_mode import MemoryReceiver
from pvapy_stream.transport.shm.sender import ShmPublisher
from pvapy_stream.transport.shm_settings import ShmSettings
from tests.support import wait_until


@pytest.mark.parametrize("side", [8, 256], ids=["small", "in a pool"])
def test_objects_in_shared_memory_are_passed_on(prefix: str, side: int) -> None:
    source, name = f"{prefix}image", f"{prefix}mirror"
    publisher = ShmPublisher(source, ShmSettings.of(shm_queue_size=50))
    server = MirrorServer(MirrorSettings.of(channel_map=f"({name},{source},shm)"), hosted="memory")
    held, arrived, stop = threading.Event(), threading.Event(), threading.Event()
    sums: dict[int, int] = {}

    def hold(obj: Any) -> None:
        arrived.set()
        held.wait(60)
        sums[obj.id] = int(obj.frame.image.sum())

    output = MemoryReceiver(name)
    output.start(hold)
    thread = threading.Thread(target=server.run, args=(stop,))
    publisher.start()
    thread.start()
    try:
        wait_until(lambda: publisher.subscribers == 1)
        for number in range(1, 21):
            publisher.publish(LazyObject(Frame.of(number, np.full((side, side), number, "u2"))))
        assert arrived.wait(60)
        stop.set()
        receiver: Any = server.channels[0]._receivers[0]
        wait_until(lambda: receiver._stop_deadline is not None)
    finally:
        held.set()
        stop.set()
        thread.join(60)
        publisher.stop()
        output.stop()
    assert not thread.is_alive()
    (ledger,) = server.channels[0].ledgers()
    assert sums == {number: number * side**2 for number in range(1, 21)}
    assert str(ledger.received) == str(ledger.processed) == str(ledger.published) == "1-20"
