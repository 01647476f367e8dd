"""Streams and buffers for tests: real sockets, on free ports."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from pvapy_stream.bsread.codec import ChannelHeader, Encoder
from pvapy_stream.bsread.sockets import BsreadSender
from pvapy_stream.bsread.stored import Packer, Stored
from pvapy_stream.daq.buffer import StreamBuffer
from pvapy_stream.daq.ranges import RangeReader, read_range
from pvapy_stream.settings import BufferSettings
from tests.support import wait_until

BASE = 1_700_000_000_000_000_000
PERIOD = 10_000_000  # ns between pulses
CHANNELS = (
    ChannelHeader("number", "int64"),
    ChannelHeader("wave", "uint16", (30, 20), "big", "bitshuffle_lz4"),
    ChannelHeader("text", "string"),
)


def time_of(pulse: int) -> int:
    return BASE + pulse * PERIOD


def values_of(pulse: int) -> dict[str, Any]:
    return {
        "number": pulse,
        "wave": np.full((20, 30), pulse % 60_000, ">u2"),
        "text": "" if pulse % 3 else f"pulse {pulse}",
    }


class Messages:
    """Makes the messages of a stream."""

    def __init__(self, channels: Iterable[ChannelHeader] = CHANNELS) -> None:
        self._encoder = Encoder(tuple(channels))
        self._names = {header.name for header in self._encoder.channels}
        self._packer = Packer()

    def parts(self, pulse: int, values: Mapping[str, Any] | None = None) -> list[bytes]:
        given = values_of(pulse) if values is None else values
        given = {name: value for name, value in given.items() if name in self._names}
        stamps = {name: time_of(pulse) + 1 for name in given}
        made = self._encoder.encode(pulse, time_of(pulse), given, stamps)
        return [bytes(part) for part in made]

    def stored(self, pulse: int) -> Stored:
        return self._packer.pack(self.parts(pulse), pulse, time_of(pulse))


class RunningBuffer:
    """A buffer that runs in a thread, and its source."""

    def __init__(self, **settings: Any) -> None:
        self.messages = Messages()
        self.source = BsreadSender("tcp://127.0.0.1:0", hwm=10_000, timeout=10)
        self.start_buffer(stream=self.source.address, output_port=0, **settings)

    def start_buffer(self, **settings: Any) -> None:
        self.buffer = StreamBuffer(BufferSettings.of(**settings))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.buffer.run, args=(self._stop,))
        self._thread.start()

    def stop_buffer(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self.buffer.close()

    def send(self, pulses: Iterable[int]) -> None:
        for pulse in pulses:
            self.source.publish(self.messages.parts(pulse))

    def fill(self, pulses: Iterable[int]) -> None:
        """Send, and wait until all has come."""
        pulses = list(pulses)
        before = self.buffer.intake.received
        self.send(pulses)
        self.wait_for(lambda: self.buffer.intake.received >= before + len(pulses))

    def wait_for(self, condition: Callable[[], Any], timeout: float = 15.0) -> None:
        wait_until(condition, timeout, f"{self.buffer.status()}")

    def read(self, start: int | None, stop: int | None = None, **options: Any) -> RangeReader:
        return read_range(self.buffer.server.address, start, stop, **options)

    def close(self) -> None:
        self.source.stop()
        self.stop_buffer()


@contextmanager
def running(**settings: Any) -> Iterator[RunningBuffer]:
    made = RunningBuffer(**settings)
    try:
        yield made
    finally:
        made.close()
