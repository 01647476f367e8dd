"""Pushes bsread messages as fast as they are taken: ``python -m benchmarks.bsread_source KIND``.

``address`` on standard input is answered with the address, ``N`` with the seconds that N messages
took, as JSON lines. KIND is scalars, raw or packed (a camera of 1024x1280 uint16).
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from pvapy_stream.bsread.codec import ChannelHeader, Encoder
from pvapy_stream.bsread.sockets import BsreadSender

N_SCALARS = 10
SHAPE = (1024, 1280)
_DIFFERENT = 16  # images, so that no cache holds them all

SECOND = 10**9


def channels(kind: str) -> list[ChannelHeader]:
    """The channels of a kind of stream."""
    if kind == "scalars":
        return [ChannelHeader(f"S{k}") for k in range(N_SCALARS)]
    compression = "bitshuffle_lz4" if kind == "packed" else "none"
    return [ChannelHeader("CAM", "uint16", SHAPE[::-1], compression=compression)]


def images() -> list[Any]:
    """Different images with the noise of photons."""
    rng = np.random.default_rng(1)
    return [rng.poisson(20, SHAPE).astype(np.uint16) for _ in range(_DIFFERENT)]


def main() -> None:
    """Serve until standard input ends."""
    kind = sys.argv[1]
    encoder = Encoder(channels(kind))
    if kind == "scalars":
        values: list[dict[str, Any]] = [
            {f"S{k}": float(k + n) for k in range(N_SCALARS)} for n in range(_DIFFERENT)
        ]
    else:
        values = [{"CAM": image} for image in images()]
    made = [encoder.encode(0, time.time_ns(), one) for one in values]
    heads = [encoder.encode(pulse, time.time_ns(), {})[0] for pulse in range(100_000)]
    sender = BsreadSender("tcp://127.0.0.1:0", hwm=100, timeout=30)
    for line in sys.stdin:
        if line.strip() == "address":
            answer: dict[str, Any] = {"address": sender.address}
        else:
            start = time.perf_counter()
            for pulse in range(int(line)):
                sender.publish([heads[pulse], *made[pulse % _DIFFERENT][1:]])
            answer = {"seconds": time.perf_counter() - start}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
