"""The two JSON headers of a bsread message, in and out. Bytes only, no sockets.

The main header is different in each message, the data header (the list of channels) seldom is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from pvapy_stream.base_settings import PIXEL_TYPES
from pvapy_stream.bsread.packing import Buffer, MessageLimits, pack_header, unpack_header
from pvapy_stream.errors import BsreadError

MAIN_HEADERS = ("bsr_m-1.1", "bsr_m-1.0")
DATA_HEADERS = ("bsr_d-1.1", "bsr_d-1.0")
ELEMENT_TYPES = (*PIXEL_TYPES, "bool")
STRING = "string"
COMPRESSIONS = ("none", "lz4", "bitshuffle_lz4")

_DTYPES = {
    (name, encoding): np.dtype(name).newbyteorder("<" if encoding == "little" else ">")
    for name in ELEMENT_TYPES
    for encoding in ("little", "big")
}
_MAX_DIMENSIONS = 32
_SECOND = 1_000_000_000
_INT64 = range(-(2**63), 2**63)

_encode_json = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class ChannelHeader:
    """What the data header says of one channel.

    Attributes:
        name: name of the channel.
        type: ``int8`` … ``uint64``, ``float32``, ``float64``, ``bool`` or ``string``.
        shape: dimensions as they are sent, fastest first.
        encoding: byte order of the value and of its timestamp, ``little`` or ``big``.
        compression: ``none``, ``lz4`` or ``bitshuffle_lz4``.
        modulo: the channel has a value in one of so many pulses.
        offset: in which of them.
    """

    name: str
    type: str = "float64"
    shape: tuple[int, ...] = (1,)
    encoding: str = "little"
    compression: str = "none"
    modulo: int = 1
    offset: int = 0

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Type of one element, in the byte order it is sent in; None for strings."""
        return _DTYPES.get((self.type, self.encoding))

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Dimensions as numpy and HDF5 order them, slowest first; (1,) for a scalar."""
        return self.shape[::-1]

    @property
    def nbytes(self) -> int | None:
        """Uncompressed size of a value; None for strings."""
        dtype = self.dtype
        return None if dtype is None else math.prod(self.shape) * dtype.itemsize


@dataclass(frozen=True, slots=True)
class ControlMessage:
    """A message that is no data: the sender stops, or asks its receivers to connect elsewhere.

    Attributes:
        kind: what it asks for.
        address: where to connect to; "" for ``stop``.
    """

    kind: Literal["stop", "reconnect"]
    address: str = ""


@dataclass(frozen=True, slots=True)
class MainHeader:
    """The header of one pulse.

    Attributes:
        pulse_id: its number; 0 when the sender gives none.
        timestamp_ns: time of the pulse, ns since 1970-01-01 UTC; None when the sender gives none.
        hash: what the sender says identifies the data header; not checked.
        dh_compression: how the data header is compressed.
    """

    pulse_id: int
    timestamp_ns: int | None
    hash: str
    dh_compression: str


class _Time(msgspec.Struct):
    sec: int | None = None
    epoch: int | None = None
    ns: int = 0


class _Main(msgspec.Struct):
    htype: str | list[str] = ""
    pulse_id: int | None = None
    hash: str | None = None
    global_timestamp: _Time | None = None
    dh_compression: str | None = None
    address: str | None = None


class _Channel(msgspec.Struct):
    name: str
    type: str | None = None
    shape: list[int] | None = None
    encoding: str | None = None
    compression: str | None = None
    modulo: int | None = None
    offset: int | None = None


class _Data(msgspec.Struct):
    htype: str = DATA_HEADERS[0]
    channels: list[_Channel] | None = None


_decode_main = msgspec.json.Decoder(_Main).decode
_decode_data = msgspec.json.Decoder(_Data).decode
# What msgspec raises for bytes that are no JSON, no UTF-8, of other types, or nested too deeply.
_BAD_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)


def parse_main(raw: Buffer, limits: MessageLimits) -> MainHeader | ControlMessage:
    """Read the first part of a message.

    Raises:
        BsreadError: it is no main header.
    """
    if len(raw) > limits.main_header:
        raise BsreadError(f"the main header has {len(raw)} bytes, {limits.main_header} are allowed")
    try:
        main = _decode_main(raw)
    except _BAD_JSON as error:
        raise BsreadError(f"the main header is not readable: {error}") from error
    kinds = main.htype if isinstance(main.htype, list) else [main.htype]
    if not any(kind in MAIN_HEADERS for kind in kinds):
        return _control(kinds, main)
    pulse_id = main.pulse_id or 0
    if pulse_id not in _INT64:
        raise BsreadError(f"pulse id {pulse_id} does not fit into 64 bits")
    return MainHeader(
        pulse_id, _nanoseconds(main.global_timestamp), main.hash or "", main.dh_compression or ""
    )


def _control(kinds: Sequence[str], main: _Main) -> ControlMessage:
    for kind in kinds:
        if kind.startswith("bsr_stop-"):
            return ControlMessage("stop")
        if kind.startswith("bsr_reconnect-"):
            return ControlMessage("reconnect", main.address or "")
    shown = ", ".join(kind[:40] for kind in kinds[:4]) or "missing"
    raise BsreadError(f"htype of the main header is {shown!r}, {MAIN_HEADERS[0]!r} expected")


def _nanoseconds(time: _Time | None) -> int | None:
    if time is None:
        return None
    seconds = time.sec if time.sec is not None else time.epoch
    if seconds is None:
        return None
    total = seconds * _SECOND + time.ns
    return total if total in _INT64 else None


def parse_channels(
    raw: Buffer, compression: str, limits: MessageLimits
) -> tuple[ChannelHeader, ...]:
    """Read a data header.

    Raises:
        BsreadError: it is no data header, or describes what cannot be.
    """
    text = unpack_header(raw, compression, limits)
    try:
        data = _decode_data(text)
    except _BAD_JSON as error:
        raise BsreadError(f"the data header is not readable: {error}") from error
    if data.htype not in DATA_HEADERS:
        raise BsreadError(
            f"htype of the data header is {data.htype[:40]!r}, {DATA_HEADERS[0]!r} expected"
        )
    headers = tuple(_channel(channel) for channel in data.channels or ())
    if len({header.name for header in headers}) != len(headers):
        names = [header.name for header in headers]
        twice = next(name for name in names if names.count(name) > 1)
        raise BsreadError(f"the data header names channel {twice!r} twice; rename it at its source")
    return headers


def _channel(raw: _Channel) -> ChannelHeader:
    header = ChannelHeader(
        raw.name,
        (raw.type or "float64").lower(),
        (1,) if not raw.shape else tuple(raw.shape),
        (raw.encoding or "little").lower(),
        (raw.compression or "none").lower(),
        1 if raw.modulo is None else raw.modulo,
        raw.offset or 0,
    )
    check_channel(header)
    return header


def check_channel(header: ChannelHeader) -> None:
    """See that a channel can be decoded at all.

    Raises:
        BsreadError: an unknown type, byte order or compression, or an impossible shape.
    """
    where = f"channel {header.name!r}"
    if not header.name:
        raise BsreadError("the data header has a channel without a name")
    if header.type != STRING and header.type not in ELEMENT_TYPES:
        known = ", ".join((*ELEMENT_TYPES, STRING))
        raise BsreadError(f"{where}: type {header.type[:40]!r} is unknown; known are {known}")
    if header.encoding not in ("little", "big"):
        raise BsreadError(f"{where}: encoding {header.encoding[:40]!r} is neither little nor big")
    if header.compression not in COMPRESSIONS:
        raise BsreadError(
            f"{where}: compression {header.compression[:40]!r} is unknown; known are"
            f" {', '.join(COMPRESSIONS)}"
        )
    if len(header.shape) > _MAX_DIMENSIONS or any(not 0 <= n < 2**63 for n in header.shape):
        raise BsreadError(f"{where}: shape {str(list(header.shape))[:80]} is impossible")


def encode_channels(channels: Sequence[ChannelHeader], compression: str) -> tuple[bytes, str]:
    """The data header as it is sent, and its hash."""
    raw = _encode_json(
        {
            "htype": DATA_HEADERS[0],
            "channels": [
                {
                    "name": header.name,
                    "type": header.type,
                    "shape": list(header.shape),
                    "encoding": header.encoding,
                    "compression": header.compression,
                    "modulo": header.modulo,
                    "offset": header.offset,
                }
                for header in channels
            ],
        }
    )
    sent = pack_header(raw, compression)
    return sent, hashlib.md5(sent, usedforsecurity=False).hexdigest()


def encode_main(header: MainHeader) -> bytes:
    """The main header as it is sent."""
    fields: dict[str, object] = {
        "htype": MAIN_HEADERS[0],
        "pulse_id": header.pulse_id,
        "hash": header.hash,
    }
    if header.timestamp_ns is not None:
        seconds, nanoseconds = divmod(header.timestamp_ns, _SECOND)
        fields["global_timestamp"] = {"sec": seconds, "ns": nanoseconds}
    if header.dh_compression not in ("", "none"):
        fields["dh_compression"] = header.dh_compression
    return _encode_json(fields)
