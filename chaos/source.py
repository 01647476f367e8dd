"""A source that is not ours: it writes no ledger, and its ids are odd.

``python -m chaos.source CHANNEL KIND N RATE SEED RECORD``; begins at a line on standard input.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pvaccess as pva

from pvapy_stream.frame import Frame
from pvapy_stream.pva.ntndarray import ObjectBuilder

_SIDE = 16


def ids(kind: str, n: int, seed: int) -> Iterator[int]:
    """The ids of a kind."""
    draw = random.Random(seed)
    value = 0
    again = draw.randrange(n // 3, n)
    for number in range(n):
        value += draw.choice((1, 2, 3, 7)) if kind == "irregular" else 1
        if kind == "jump" and number == again:
            value += draw.choice((5, 5_000, 3_000_000))
        if kind == "restart-ids" and number == again:
            value = 1
        yield value


def main(channel: str, kind: str, n: str, rate: str, seed: str, record: str) -> None:
    """Serve the channel, publish, and write down what was published."""
    server, builder = pva.PvaServer(), ObjectBuilder()
    first = Frame.of(0, np.zeros((_SIDE, _SIDE), np.uint32))
    server.addRecord(channel, builder.build(first).copy(), None)
    server.start()
    sys.stdin.readline()
    sent: list[int] = []
    start = time.monotonic()
    for number, value in enumerate(ids(kind, int(n), int(seed))):
        pixels = np.full((_SIDE, _SIDE), value, np.uint32)
        server.update(channel, builder.build(Frame.of(value, pixels)))
        sent.append(value)
        time.sleep(max(0.0, start + (number + 1) / float(rate) - time.monotonic()))
    Path(record).write_text("\n".join(map(str, sent)))
    sys.stdout.write("done\n")
    sys.stdout.flush()
    # Clients may not have taken the last frame yet.
    sys.stdin.readline()
    server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:7])
