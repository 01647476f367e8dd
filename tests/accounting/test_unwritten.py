"""A ledger that cannot be written ends no stream, and shows; consumers: `test_stopping`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from pvapy_stream.bsread.simulator import BsreadSimulator
from pvapy_stream.daq.buffer import StreamBuffer
from pvapy_stream.errors import LedgerError
from pvapy_stream.frame import Frame
from pvapy_stream.mirror.mirror_server import MirrorServer
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.settings import (
    BsreadSimSettings,
    BufferSettings,
    MirrorSettings,
    SimulatorSettings,
)
from pvapy_stream.sim.sim_server import SimServer
from pvapy_stream.transport.memory_mode import MemoryPublisher, MemoryReceiver
from tests.support import image, wait_until

N = 20


def test_a_simulator_goes_on(tmp_path: Path, prefix: str) -> None:
    got: list[Any] = []
    receiver = MemoryReceiver(f"{prefix}image")
    receiver.start(got.append)
    simulator = SimServer(
        SimulatorSettings.of(
            channel_name=f"{prefix}image", output_mode="memory", n_publish=N, frame_rate=0,
            n_x_pixels=8, n_y_pixels=8, cache_size=3, start_delay=0, shutdown_delay=0,
            report_period=0, ledger=str(tmp_path / "gone" / "ledger.json"),
        )
    )  # fmt: skip
    assert simulator.run(threading.Event()) == 1
    receiver.stop()
    assert simulator.totals.frames == N <= len(got)
    assert "cannot write ledger" in simulator.snapshot().message


def test_a_mirror_goes_on(tmp_path: Path, prefix: str) -> None:
    source = MemoryPublisher(f"{prefix}image")
    source.start()
    mirror = MirrorServer(
        MirrorSettings.of(
            channel_map=f"({prefix}mirror,{prefix}image,memory)",
            ledger=str(tmp_path / "gone" / "ledger.json"),
        ),
        hosted="memory",
    )
    stop, codes = threading.Event(), list[int]()
    thread = threading.Thread(target=lambda: codes.append(mirror.run(stop)))
    thread.start()
    try:
        wait_until(lambda: "cannot write ledger" in mirror.snapshots()[0].message)
        build = ObjectBuilder().build
        for number in range(N + 1):
            source.publish(build(Frame.of(number, image(number))))
        wait_until(lambda: mirror.snapshots()[0].publisher_stats.n_published > N)
    finally:
        stop.set()
        thread.join(60)
        source.stop()
    assert codes == [1]
    assert "cannot write ledger" in mirror.problems()[0]


def test_a_buffer_and_its_simulator_go_on(tmp_path: Path) -> None:
    ledger = str(tmp_path / "gone" / "ledger.json")
    source = BsreadSimulator(
        BsreadSimSettings.of(
            address="tcp://127.0.0.1:0", n_messages=N, rate=0, send_timeout=60, ledger=ledger
        )
    )
    buffer = StreamBuffer(BufferSettings.of(stream=source.address, output_port=0, ledger=ledger))
    stop, problems = threading.Event(), list[str]()

    def run(program: Any) -> None:
        try:
            program.run(stop)
        except LedgerError as error:
            problems.append(str(error))

    threads = [threading.Thread(target=run, args=(one,)) for one in (source, buffer)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: buffer.status().received == N)
        assert "cannot write ledger" in buffer.status().last_error
        threads[0].join(60)
    finally:
        stop.set()
        threads[1].join(60)
        buffer.close()
    assert source.sent == N
    assert ["cannot write ledger" in one for one in problems] == [True, True]
