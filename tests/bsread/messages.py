"""bsread messages for tests, made with the codec as a sender makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pvapy_stream.bsread.codec import ChannelHeader, Decoder, Encoder, Message

SECOND = 10**9
START = 1_700_000_000 * SECOND


class Stream:
    """Makes messages of one stream; channels may change at any time."""

    def __init__(self, *channels: ChannelHeader) -> None:
        self.encoder = Encoder(channels)
        self.decoder = Decoder()

    def channels(self, *channels: ChannelHeader) -> None:
        self.encoder = Encoder(channels)

    def parts(self, pulse_id: int, values: Mapping[str, Any], stamp: int = 0) -> list[Any]:
        stamps = dict.fromkeys(values, START + pulse_id * 1000 + stamp)
        return self.encoder.encode(pulse_id, START + pulse_id * 1000, values, stamps)

    def message(self, pulse_id: int, values: Mapping[str, Any], stamp: int = 0) -> Message:
        made = self.decoder.decode(self.parts(pulse_id, values, stamp))
        assert isinstance(made, Message)
        return made


def scalars(*names: str) -> list[ChannelHeader]:
    return [ChannelHeader(name) for name in names]


def camera(
    name: str = "CAM", shape: Sequence[int] = (320, 256), compression: str = "none"
) -> ChannelHeader:
    """Shape: fastest first."""
    return ChannelHeader(name, "uint16", tuple(shape), compression=compression)


def picture(number: int, shape: Sequence[int] = (256, 320)) -> np.ndarray:
    """An image that tells its number; shape: slowest first."""
    return (np.arange(np.prod(shape)).reshape(tuple(shape)) % 50 + number).astype(np.uint16)
