"""bsread messages to bytes and back. Bytes only, no sockets.

A message is a list of parts: main header, data header, then a value and a timestamp for each
channel, in the order of the data header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pvapy_stream.bsread.channel_values import (
    ChannelValue,
    Hdf5Chunk,
    Packed,
    encode_value,
    read_stamp,
    write_stamp,
)
from pvapy_stream.bsread.header import (
    COMPRESSIONS,
    ChannelHeader,
    ControlMessage,
    MainHeader,
    check_channel,
    encode_channels,
    encode_main,
    parse_channels,
    parse_main,
)
from pvapy_stream.bsread.packing import Buffer, MessageLimits
from pvapy_stream.errors import BsreadError

__all__ = [
    "ChannelHeader",
    "ChannelValue",
    "ControlMessage",
    "Decoder",
    "Encoder",
    "Envelope",
    "Hdf5Chunk",
    "MainHeader",
    "Message",
    "MessageLimits",
    "Packed",
]

# Data headers kept parsed: those of a stream whose channels alternate between a few lists.
_KEPT_HEADERS = 8


@dataclass(slots=True)
class Message:
    """One pulse.

    Attributes:
        pulse_id: its number.
        timestamp_ns: time of the pulse, ns since 1970-01-01 UTC; None when the sender gives none.
        hash: the sender's name for the list of channels.
        channels: a value for each channel, present or not.
        parts: the message as received.
    """

    pulse_id: int
    timestamp_ns: int | None
    hash: str
    channels: list[ChannelValue]
    parts: Sequence[Buffer]

    @property
    def nbytes(self) -> int:
        """Its size as received."""
        return sum(map(len, self.parts))


class Envelope(NamedTuple):
    """What is known of a message without looking at its values."""

    main: MainHeader
    headers: tuple[ChannelHeader, ...]


class Decoder:
    """Reads the messages of one stream; remembers its last data headers. Not locked.

    Args:
        limits: what a message may unpack to.
    """

    def __init__(self, limits: MessageLimits | None = None) -> None:
        self.limits = limits or MessageLimits()
        self._raw: Buffer = b""
        self._compression = ""
        self._headers: tuple[ChannelHeader, ...] | None = None
        self._known: dict[tuple[bytes, str], tuple[ChannelHeader, ...]] = {}

    def main(self, part: Buffer) -> MainHeader | ControlMessage:
        """Read a main header alone.

        Raises:
            BsreadError: it is malformed.
        """
        return parse_main(part, self.limits)

    def envelope(self, parts: Sequence[Buffer]) -> Envelope | ControlMessage:
        """Read the headers of a message, and see that its parts are as many as they say.

        Raises:
            BsreadError: the message is malformed.
            MissingExtraError: the data header is compressed and the library is not installed.
        """
        if not parts:
            raise BsreadError("a message without parts")
        main = self.main(parts[0])
        if isinstance(main, ControlMessage):
            return main
        if len(parts) < 2:
            raise BsreadError("a message without a data header")
        headers = self._channels(parts[1], main.dh_compression)
        if len(parts) != 2 + 2 * len(headers):
            raise BsreadError(
                f"a message of {len(parts)} parts; {len(headers)} channels need"
                f" {2 + 2 * len(headers)}"
            )
        return Envelope(main, headers)

    def decode(self, parts: Sequence[Buffer]) -> Message | ControlMessage:
        """Read a message; its values are decoded only when they are asked for.

        Raises:
            BsreadError: the message is malformed.
            MissingExtraError: the data header is compressed and the library is not installed.
        """
        envelope = self.envelope(parts)
        if isinstance(envelope, ControlMessage):
            return envelope
        main, headers = envelope
        limits = self.limits
        channels: list[ChannelValue] = []
        for header, data, stamp in zip(headers, parts[2::2], parts[3::2], strict=True):
            try:
                timestamp = read_stamp(stamp, header.encoding)
            except BsreadError as error:
                raise BsreadError(f"channel {header.name!r}: {error}") from error
            # Nothing but a time is a value only where a value may be empty.
            present = len(data) > 0 or (len(stamp) > 0 and not header.nbytes)
            channels.append(ChannelValue(header, data, timestamp, present, limits))
        return Message(main.pulse_id, main.timestamp_ns, main.hash, channels, parts)

    def _channels(self, raw: Buffer, compression: str) -> tuple[ChannelHeader, ...]:
        # The bytes decide, not the hash: nothing says that senders keep to it.
        raw = bytes(raw)  # which compare faster than what they may be a view of
        if self._headers is not None and raw == self._raw and compression == self._compression:
            return self._headers
        key = raw, compression
        headers = self._known.pop(key, None)
        if headers is None:
            headers = parse_channels(raw, compression, self.limits)
        self._known[key] = headers
        if len(self._known) > _KEPT_HEADERS:
            del self._known[next(iter(self._known))]
        self._raw, self._compression, self._headers = key[0], compression, headers
        return headers


class Encoder:
    """Makes the messages of one stream. Not locked.

    Args:
        channels: the channels, in the order in which they are sent.
        dh_compression: how the data header is sent: ``none``, ``lz4`` or ``bitshuffle_lz4``.
        lz4_order: byte order of the size before lz4 blocks, ``little`` or ``big``.

    Raises:
        BsreadError: a channel that cannot be, or one that is named twice.
        MissingExtraError: the library of the header's compression is not installed.
    """

    def __init__(
        self,
        channels: Sequence[ChannelHeader],
        dh_compression: str = "none",
        lz4_order: str = "little",
    ) -> None:
        for header in channels:
            check_channel(header)
        if len({header.name for header in channels}) != len(channels):
            raise BsreadError("two channels have the same name")
        if dh_compression not in COMPRESSIONS:
            raise BsreadError(f"compression {dh_compression!r} of the data header is unknown")
        self.channels = tuple(channels)
        self._names = frozenset(header.name for header in channels)
        self._compression = dh_compression
        self._lz4_order = lz4_order
        self._data_header, self.hash = encode_channels(self.channels, dh_compression)

    def encode(
        self,
        pulse_id: int,
        timestamp_ns: int | None,
        values: Mapping[str, object],
        timestamps: Mapping[str, int] | None = None,
    ) -> list[Buffer]:
        """The parts of one message.

        Args:
            pulse_id: number of the pulse.
            timestamp_ns: time of the pulse; None to send none.
            values: by channel; a channel that is absent, or None, has no value in this message.
            timestamps: of values, in ns; those that are absent have the time of the pulse.

        Raises:
            BsreadError: a value that does not fit its channel, or of no channel.
        """
        if not self._names.issuperset(values):
            strange = next(name for name in values if name not in self._names)
            raise BsreadError(f"there is no channel {strange!r} to give a value to")
        main = MainHeader(pulse_id, timestamp_ns, self.hash, self._compression)
        parts: list[Buffer] = [encode_main(main), self._data_header]
        stamps = timestamps or {}
        for header in self.channels:
            value = values.get(header.name)
            if value is None:
                parts += (b"", b"")
                continue
            stamp = stamps.get(header.name, timestamp_ns or 0)
            parts.append(encode_value(header, value, self._lz4_order))
            parts.append(write_stamp(stamp, header.encoding))
        return parts
