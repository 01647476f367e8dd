"""bsread: codec and ring in this process; the buffer as a program, with a source and a reader.

The incumbent here is sf_bsread_buffer of sf_bsread_writer 1.2; its figures, measured on two cores,
stand in the targets: it cannot run beside this package.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
import urllib.request
from collections.abc import Sequence
from typing import Any

from benchmarks.run import Child, wait_for
from benchmarks.table import Row
from pvapy_stream.bsread.codec import ChannelHeader, Decoder, Encoder
from pvapy_stream.bsread.stored import Packer
from pvapy_stream.daq.cursor import RangeCursor
from pvapy_stream.daq.ranges import read_range
from pvapy_stream.daq.ring import Ring, RingLimits

_MB = 2**20
_RATE = 100
# How long streams run; BENCH_SECONDS=60 is what the requirements ask for.
_SECONDS = float(os.environ.get("BENCH_SECONDS", "10"))
_STREAMS = {
    "300 scalars": ("-ns", 300),
    "camera 1280x1024 raw": ("-ns", 0, "--camera", "1280x1024"),
    "camera 1280x1024 bitshuffled": (
        "-ns", 0, "--camera", "1280x1024", "--camera-compression", "bitshuffle_lz4",
    ),
}  # fmt: skip


def run(quick: bool) -> list[Row]:
    """All of it."""
    seconds = 3.0 if quick else _SECONDS
    rows = [*_codec(), *_ring()]
    for name, options in _STREAMS.items():
        rows += _stream(name, options, seconds)
    return [*rows, *_fastest(quick), *_past(), _memory()]


def _us(work: Any, n: int) -> float:
    """Microseconds of CPU time that a call takes; the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(n):
            work()
        best = min(best, (time.process_time() - began) / n)
    return best * 1e6


def _codec() -> list[Row]:
    channels = [ChannelHeader(f"CHANNEL-{n}") for n in range(300)]
    encoder, decoder, packer = Encoder(channels), Decoder(), Packer()
    values = {header.name: 1.5 for header in channels}
    parts = [bytes(part) for part in encoder.encode(1, 1, values)]
    what = "bsread, message of 300 scalars"
    return [
        Row(f"{what}: encode", "us", _us(lambda: encoder.encode(1, 1, values), 100), None),
        Row(f"{what}: decode", "us", _us(lambda: decoder.decode(parts), 100), None),
        Row(f"{what}: read the headers", "us", _us(lambda: decoder.envelope(parts), 1000), None),
        Row(f"{what}: pack for the ring", "us", _us(lambda: packer.pack(parts, 1, 1), 1000), None),
    ]


def _ring() -> list[Row]:
    parts = [bytes(part) for part in Encoder([ChannelHeader("x")]).encode(1, 1, {"x": 1.0})]
    message = Packer().pack(parts, 1, 1)
    costs = {}
    for length in (1000, 100_000):
        ring, number = Ring(RingLimits(messages=length)), 0

        def step(ring: Ring = ring) -> None:
            nonlocal number
            number += 1
            message.pulse_id = number
            ring.append(message, number)

        for _ in range(length):
            step()
        find = _us(lambda ring=ring: RangeCursor(ring, "pulse_id", ring.next // 2, None), 1000)
        costs[length] = _us(step, 10_000), find
    (short, _), (long, find) = costs[1000], costs[100_000]
    return [
        Row("buffer: keep a message, ring of 1,000", "us", short, None),
        Row(
            "buffer: keep a message, ring of 100,000", "us", long, None, "no more", long < 2 * short
        ),
        Row("buffer: find a pulse in a ring of 100,000", "us", find, None),
    ]


class _Buffer(Child):
    """The buffer as a program."""

    def __init__(self, stream: str, *options: object) -> None:
        super().__init__(
            "pvapy_stream.cli.main", "buffer", stream, "-o", 0, "--range-port", 0,
            "--rest-port", 0, *options,
        )  # fmt: skip
        line = wait_for(lambda: self.lines and self.lines[0], 20, "the buffer")
        self.ranges = re.findall(r"ranges (tcp://\S+?);", line)[0]
        self._rest = re.findall(r"status (\S+)", line)[0]

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(self._rest, timeout=10) as answer:
            return json.load(answer)


class _Simulator(Child):
    """The source."""

    def __init__(self, *options: object, address: str = "tcp://127.0.0.1:0") -> None:
        super().__init__(
            "pvapy_stream.cli.main", "bsread-sim", "-a", address, "--send-timeout", 30, *options
        )
        line = wait_for(lambda: self.lines and self.lines[0], 20, "the simulator")
        self.address = line.split()[-1]


def _stream(name: str, options: Sequence[object], seconds: float) -> list[Row]:
    n = round(seconds * _RATE)
    with _Simulator(*options, "-fps", _RATE, "-n", n) as source:
        with _Buffer(source.address, "--memory", 500) as buffer:
            before, got = buffer.cpu(), 0
            with read_range(buffer.ranges, 1, n) as reader:
                for _ in reader:
                    got += 1
            cpu = buffer.cpu() - before
    what = f"buffer, {name} at {_RATE} Hz for {seconds:g} s"
    known = "0; the original loses 9-12 %" if "raw" in name else "0"
    return [
        Row(f"{what}: lost on the way to a reader", "messages", n - got, None, known, got == n),
        Row(f"{what}: CPU per message", "us", cpu / n * 1e6, None),
    ]


def _fastest(quick: bool) -> list[Row]:
    """As fast as the source can send, without a reader; nothing is let go on the way in."""
    rows = []
    for name, options, n in (
        ("10 scalars", ("-ns", 10), 20_000),
        ("camera 1280x1024 raw", _STREAMS["camera 1280x1024 raw"], 2000),
    ):
        n = n // 4 if quick else n
        with _Simulator(*options, "-fps", 0, "-n", n) as source:
            with _Buffer(source.address, "--memory", 500) as buffer:
                text = source.wait(120)
                wait_for(lambda b=buffer, n=n: b.status()["received"] == n, 20, "the last")
        rate = float(re.findall(r"([\d.]+) messages/s", text)[0])
        known = "the original: 50-75" if "camera" in name else ""
        what = f"buffer, {name}: source and buffer unpaced"
        rows.append(Row(what, "messages/s", rate, None, known))
    return rows


def _past() -> list[Row]:
    """A range of 1,000 messages that lies 50 s back at 100 Hz."""
    n = 6000
    with _Simulator("-ns", 100, "-fps", 0, "-n", n) as source:
        with _Buffer(source.address, "-b", 10_000) as buffer:
            wait_for(lambda: buffer.status()["received"] == n, 60, "the messages")
            first, whole = [], []
            for _ in range(3):
                began, got = time.perf_counter(), 0
                with read_range(buffer.ranges, n - 5000, n - 4001) as reader:
                    for _ in reader:
                        if not got:
                            first.append(time.perf_counter() - began)
                        got += 1
                        if got == 1000:
                            whole.append(time.perf_counter() - began)
    what = "buffer, range of 1,000 messages of 100 scalars, 50 s back"
    worst = max(first) * 1000
    return [
        Row(f"{what}: first message, worst of 3", "ms", worst, None, "< 100", worst < 100),
        Row(f"{what}: all", "ms", max(whole) * 1000, None),
    ]


def _memory() -> Row:
    """What a full buffer takes over what an empty one does, and over its limit."""
    limit, n = 200, 150
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    with _Buffer(address, "--memory", limit) as buffer:
        before = buffer.rss()
        with _Simulator(*_STREAMS["camera 1280x1024 raw"], "-fps", 0, "-n", n, address=address):
            wait_for(lambda: buffer.status()["received"] == n, 60, "the messages")
            time.sleep(0.5)
            part = (buffer.rss() - before) / (limit * _MB)
    return Row(
        f"buffer, camera, limit of {limit} MB: memory it takes over the limit", "", part, None,
        "0.8 to 1.2", 0.8 <= part <= 1.2,
    )  # fmt: skip
