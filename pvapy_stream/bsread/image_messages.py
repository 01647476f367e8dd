"""Images as bsread has them: the image under its channel's name, then its attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pvapy_stream.bsread.channel_values import ChannelValue, Packed, encode_value
from pvapy_stream.bsread.header import ChannelHeader
from pvapy_stream.bsread.packing import BITSHUFFLE_HEADER, Buffer
from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.frame import ColorMode, Frame

_CARRIED = ("bslz4", "lz4")
_PREFIX = 4  # bytes of the size before an lz4 block
_NUMBER = 24  # bytes, about, that an attribute takes while it waits to be written


class ImageChannels:
    """The channels that an image and its attributes are. Not locked.

    Args:
        name: channel of the image.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._known: dict[str, ChannelHeader] = {}

    def attributes(self, frame: Frame) -> dict[str, Any]:
        """Values of the attributes that bsread can carry, by channel."""
        values = {f"{self.name}:{name}": _plain(one) for name, one in frame.attributes.items()}
        return {name: value for name, value in values.items() if value is not None}

    def of(self, frame: Frame) -> Iterator[tuple[ChannelHeader, Any]]:
        """Channels and their values, the image's first; those that are as before are the same.

        Raises:
            PvapyStreamError: the frame has no image, or one that cannot be decoded.
        """
        shape, compression, payload = _image(frame)
        yield self._image_header(frame, shape, compression), Packed(payload)
        for name, value in self.attributes(frame).items():
            yield self._shared(_header(name, value)), value

    def values(self, frame: Frame) -> list[ChannelValue]:
        """Values as a message has them; an image that cannot be decoded is a damaged one."""
        try:
            pairs = list(self.of(frame))
        except PvapyStreamError:
            pairs = [(self._image_header(frame, frame.stored_shape, "none"), Packed(b""))]
        return [
            ChannelValue(header, encode_value(header, value), frame.time_ns, True)
            for header, value in pairs
        ]

    def _image_header(
        self, frame: Frame, shape: tuple[int, ...], compression: str
    ) -> ChannelHeader:
        order = "big" if frame.dtype.byteorder == ">" else "little"
        return self._shared(
            ChannelHeader(self.name, frame.dtype.name, shape[::-1], order, compression)
        )

    def _shared(self, header: ChannelHeader) -> ChannelHeader:
        known = self._known.setdefault(header.name, header)
        if known != header:
            known = self._known[header.name] = header
        return known


class ImageMessage:
    """An image where a message is taken: the file asks for its frame, or for its channels.

    Attributes:
        pulse_id: its id.
        timestamp_ns: its time, ns since 1970-01-01 UTC; None when unknown.
        nbytes: about its size.
        frame: the image.
        source: channels of the images of its stream.
    """

    __slots__ = ("_values", "frame", "nbytes", "pulse_id", "source", "timestamp_ns")

    def __init__(self, source: ImageChannels, frame: Frame, pulse_id: int) -> None:
        self.pulse_id = pulse_id
        self.timestamp_ns = frame.time_ns or None
        self.frame = frame
        self.source = source
        sizes = (getattr(value, "nbytes", _NUMBER) for value in frame.attributes.values())
        stored = frame.payload.nbytes if frame.codec in _CARRIED else frame.nbytes
        self.nbytes = stored + sum(sizes)
        self._values: list[ChannelValue] | None = None

    @property
    def channels(self) -> list[ChannelValue]:
        """A value for each channel."""
        if self._values is None:
            self._values = self.source.values(self.frame)
        return self._values


def _image(frame: Frame) -> tuple[tuple[int, ...], str, Buffer]:
    """Shape, compression and bytes of an image; compressed ones stay so where they can."""
    packed = _packed(frame)
    if packed is not None:
        return frame.stored_shape, *packed
    pixels = np.ascontiguousarray(frame.image)
    return pixels.shape, "none", pixels.reshape(-1).view(np.uint8).data


def _packed(frame: Frame) -> tuple[str, Buffer] | None:
    """Compression and bytes of a payload that bsread can carry; None when it must be decoded."""
    if frame.codec not in _CARRIED or frame.color_mode not in (ColorMode.MONO, ColorMode.RGB1):
        # Other colour modes have another order than (ny, nx, 3).
        return None
    payload, size = frame.payload.tobytes(), frame.nbytes
    has_size = len(payload) >= 8 and int.from_bytes(payload[:8], "big") == size
    if frame.codec == "bslz4":
        whole = payload if has_size else BITSHUFFLE_HEADER.pack(size, 0) + payload
        return "bitshuffle_lz4", whole
    # What has its size before it is in the form of HDF5's filter, which is not that of bsread.
    return None if has_size else ("lz4", size.to_bytes(_PREFIX, "little") + payload)


def _plain(value: object) -> object:
    """An attribute as bsread can carry it; None when it cannot."""
    if isinstance(value, str):
        # Replacements of bytes that are no UTF-8 cannot be sent.
        return value.encode(errors="surrogateescape").decode(errors="replace")
    if isinstance(value, (bool, int, float)):
        return value
    array = np.asarray(value)
    return array if array.dtype.kind in "biuf" and array.size else None


def _header(name: str, value: Any) -> ChannelHeader:
    if isinstance(value, str):
        return ChannelHeader(name, "string")
    if isinstance(value, bool):
        return ChannelHeader(name, "bool")
    if isinstance(value, int):
        return ChannelHeader(name, "int64" if value < 2**63 else "uint64")
    if isinstance(value, float):
        return ChannelHeader(name, "float64")
    return ChannelHeader(name, value.dtype.name, value.shape[::-1] or (1,))
