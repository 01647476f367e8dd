"""A bsread source to try things with: it sends what is asked for, and faults on request."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pvapy_stream.accounting.keeper import LedgerKeeper
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.bsread.channel_values import encode_value
from pvapy_stream.bsread.codec import ChannelHeader, Encoder, Packed
from pvapy_stream.bsread.packing import Buffer
from pvapy_stream.bsread.sockets import BsreadSender
from pvapy_stream.errors import LedgerError
from pvapy_stream.settings import BsreadSimSettings
from pvapy_stream.sim.gate import Gate
from pvapy_stream.sim.pacing import Pacer

KIND = "bsread-sim"
PATTERNS = 16  # different arrays of a channel
_NO_RECEIVER = "no receiver"
_STOP = b'{"htype":["bsr_stop-1.0"]}'


def value_of(header: ChannelHeader, pulse: int) -> object:
    """The value that a simulated channel has at a pulse: it contains which pulse it is.

    Scalars are the pulse id, as far as their type holds it; texts name it; arrays count up from
    pulse id modulo `PATTERNS`.
    """
    dtype = header.dtype
    if dtype is None:
        return f"pulse {pulse}"
    scalar = header.shape == (1,)
    if dtype.kind == "b":
        return bool(pulse % 2) if scalar else (_pattern(header, pulse) % 2).astype(dtype)
    if not scalar:
        return _pattern(header, pulse).astype(dtype)
    if dtype.kind == "f":
        return float(pulse)
    bits = dtype.itemsize * 8
    return pulse % 2 ** (bits - (dtype.kind == "i"))


def _pattern(header: ChannelHeader, pulse: int) -> Any:
    count = int(np.prod(header.shape))
    return (np.arange(count, dtype=np.int64) % 100 + pulse % PATTERNS).reshape(header.array_shape)


class MessageMaker:
    """Makes the messages of one list of channels.

    Args:
        channels: the channels.
        dh_compression: how the data header is sent.
    """

    def __init__(self, channels: Sequence[ChannelHeader], dh_compression: str) -> None:
        self._encoder = Encoder(channels, dh_compression)
        # Arrays are packed once: compressing them again and again would be what is measured.
        self._packed: dict[tuple[str, int], Packed] = {}

    def parts(self, pulse: int, time_ns: int, missing: frozenset[str]) -> list[Buffer]:
        """One message, with the values of the channels that are due and not missing."""
        values = {
            header.name: self._value(header, pulse)
            for header in self._encoder.channels
            if (header.modulo == 1 or (pulse - header.offset) % header.modulo == 0)
            and header.name not in missing
        }
        return self._encoder.encode(pulse, time_ns, values)

    def _value(self, header: ChannelHeader, pulse: int) -> Any:
        if header.shape == (1,):
            return value_of(header, pulse)
        key = header.name, pulse % PATTERNS
        packed = self._packed.get(key)
        if packed is None:
            packed = self._packed[key] = Packed(encode_value(header, value_of(header, pulse)))
        return packed

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its channels."""
        return tuple(header.name for header in self._encoder.channels)


def variants(channels: Sequence[ChannelHeader]) -> list[tuple[ChannelHeader, ...]]:
    """The lists of channels of a source whose channels change, one after the other."""
    given = tuple(channels)
    changed = [given, given[::-1], given[1:], (*given, ChannelHeader("SIM:ADDED", "int32"))]
    if given:
        first = given[0]
        other = "int32" if first.type != "int32" else "float64"
        changed.append((replace(first, type=other), *given[1:]))
    return changed


class BsreadSimulator:
    """Sends messages until the end, or until it is stopped.

    Args:
        settings: what was asked for.

    Attributes:
        pulses: pulses that were made.
        sent: messages that were sent.
        not_taken: messages that nobody took in time.
        rate: messages/s, from the first that was taken to the last.

    Raises:
        TransportError: the address cannot be bound.
        BsreadError: channels that cannot be.
    """

    def __init__(self, settings: BsreadSimSettings) -> None:
        self.settings = settings
        channels = [
            ChannelHeader(c.name, c.type, c.shape, c.encoding, c.compression, c.modulo, c.offset)
            for c in settings.all_channels
        ]
        lists = variants(channels) if settings.change_every else [tuple(channels)]
        self._makers = [MessageMaker(each, settings.dh_compression) for each in lists]
        self._random = random.Random(settings.seed)  # noqa: S311 - trouble, not secrets
        self._sender = BsreadSender(settings.address, settings.mode, timeout=settings.send_timeout)
        self.address = self._sender.address
        self.pulses = self.sent = self.not_taken = 0
        self.rate = self._sent_first = self._sent_last = 0.0
        self.late = 0
        self.ledger = Ledger(stage=KIND, output_channel=self.address)
        self._keeper = LedgerKeeper(settings.ledger, lambda: [self.ledger])
        self._held: tuple[int, list[Buffer]] | None = None

    def run(self, stop: threading.Event, gate: Gate | None = None) -> int:
        """Send; returns the exit code.

        Args:
            stop: ends it.
            gate: says when to begin, and when everybody has all.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        try:
            if gate is not None:
                gate.begin(stop)
            self._send_all(stop if gate is None else gate.finish)
            problem = self._keeper.close()
            if gate is not None:
                gate.end(stop)
        finally:
            self._sender.stop()
        if problem:
            raise LedgerError(problem)
        return 0

    def _send_all(self, stop: threading.Event) -> None:
        settings = self.settings
        pacer = Pacer(settings.rate, stop, settings.runtime)
        while not settings.n_messages or self.pulses < settings.n_messages:
            if not pacer.wait(self.pulses):
                break
            self._pulse(settings.first_pulse + self.pulses * settings.pulse_step)
            self.pulses += 1
            self._keeper.keep()
        for pulse, parts in self._released():
            self._send(pulse, parts)
        self.late = pacer.late
        if self.sent > 1:
            self.rate = (self.sent - 1) / max(self._sent_last - self._sent_first, 1e-9)

    def _pulse(self, pulse: int) -> None:
        settings, happens = self.settings, self._happens
        if happens(settings.drop):
            return
        maker = self._makers[0]
        if settings.change_every:
            maker = self._makers[self.pulses // settings.change_every % len(self._makers)]
        parts = maker.parts(pulse, time.time_ns(), self._missing(maker))
        if self._held is None and happens(settings.reorder):
            self._held = pulse, parts
        else:
            self._send(pulse, parts)
            for held in self._released():
                self._send(*held)
        if happens(settings.duplicate):
            self._send(pulse, parts)
        if happens(settings.malformed):
            self._sender.offer(self._damaged(parts))
        if settings.stop_every and self.pulses % settings.stop_every == settings.stop_every - 1:
            self._sender.offer([_STOP])

    def _released(self) -> Iterator[tuple[int, list[Buffer]]]:
        held, self._held = self._held, None
        if held is not None:
            yield held

    def _send(self, pulse: int, parts: list[Buffer]) -> None:
        self.ledger.received.add(pulse)
        if self._sender.offer(parts):
            # Not from the start on: until a receiver comes, nothing goes out.
            self._sent_last = time.perf_counter()
            self._sent_first = self._sent_first or self._sent_last
            self.sent += 1
            self.ledger.processed.add(pulse)
            self.ledger.publish(pulse)
        else:
            self.not_taken += 1
            self.ledger.reject(_NO_RECEIVER, pulse)

    def _happens(self, part: float) -> bool:
        return part > 0 and self._random.random() < part

    def _missing(self, maker: MessageMaker) -> frozenset[str]:
        if not self.settings.missing:
            return frozenset()
        return frozenset(name for name in maker.names if self._happens(self.settings.missing))

    def _damaged(self, parts: list[Buffer]) -> list[Buffer]:
        """A message that nobody can read."""
        kind = self._random.randrange(4)
        if kind == 0:
            return parts[:-1]
        if kind == 1:
            return [*parts, b"one too many"]
        if kind == 2:
            return [bytes(parts[0])[:-5], *parts[1:]]
        return [parts[0], bytes(parts[1])[: len(parts[1]) // 2], *parts[2:]]

    def summary(self) -> Mapping[str, float]:
        """What was sent, for the last line."""
        return {
            "pulses": self.pulses,
            "sent": self.sent,
            "not taken": self.not_taken,
            "late": self.late,
            "rate": self.rate,
        }
