"""``python -m benchmarks.source CHANNEL SIZE [N [MODE]]``: publishes frames as it is told.

With N channels, a ``*`` in the name becomes 1…N, and frames go to them in turn. MODE is pva (on
pvapy's server), own (by PVAccess on our own sockets) or shm.

A line ``RATE N`` on standard input publishes N frames at RATE frames/s; the answer is a JSON line
with the first and the last id and the rate. Ends with its standard input.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import numpy as np
import pvaccess as pva

from pvapy_stream import bursts
from pvapy_stream.frame import Frame
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.sim.pacing import Pacer
from pvapy_stream.sim.stamping import stamping_for
from pvapy_stream.transport.mode import PublisherOptions
from pvapy_stream.transport.pva_library import PvaSettings
from pvapy_stream.transport.registry import make_source_publisher

_N_IMAGES = 50


def main() -> None:
    """Serve until standard input ends."""
    name, size = sys.argv[1], int(sys.argv[2])
    n_channels, mode = int([*sys.argv, "1"][3]), [*sys.argv, "1", "pva"][4]
    server = pva.PvaServer()
    settings = PvaSettings.of() if mode == "own" else None
    mode = "pva" if mode == "own" else mode
    publishers = [
        make_source_publisher(
            mode, PublisherOptions(name.replace("*", str(number)), server, settings=settings)
        )
        for number in range(1, n_channels + 1)
    ]
    stamping = stamping_for(publishers[0])
    build = stamping.build or ObjectBuilder().build
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (_N_IMAGES, size, size), np.uint8)
    objects = [build(Frame.of(0, image)) for image in images]
    for publisher in publishers:
        publisher.open(stamping.stamp(objects[0], 0, time.time_ns()))
    server.start()
    stop = threading.Event()
    last_id = 0

    def publish(rate: float, n: int) -> None:
        nonlocal last_id
        first_id = last_id + 1
        pacer = Pacer(rate, stop)
        start = now = time.perf_counter()
        for index in range(n):
            if not pacer.wait(index):
                break
            bursts.begin() if pacer.behind else bursts.end()
            last_id += 1
            obj = stamping.stamp(objects[index % _N_IMAGES], last_id, time.time_ns())
            publishers[last_id % n_channels].publish(obj)
            now = time.perf_counter()
            if not index:
                start = now
        bursts.end()
        seconds = now - start
        reached = (n - 1) / seconds if seconds else 0.0
        print(json.dumps({"first": first_id, "last": last_id, "rate": reached}), flush=True)

    # Reading goes on while a burst is under way, so the end of the input ends the program at once.
    workers: list[threading.Thread] = []
    for line in sys.stdin:
        rate, n = line.split()
        worker = threading.Thread(target=publish, args=(float(rate), int(n)), daemon=True)
        workers.append(worker)
        worker.start()
    stop.set()
    for worker in workers:
        worker.join(2)
    server.stop()
    for publisher in publishers:
        publisher.stop()


if __name__ == "__main__":
    main()
