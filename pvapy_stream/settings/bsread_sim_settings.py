"""Settings of the bsread simulator."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.common import LedgerSettings, LoggingSettings
from pvapy_stream.settings.text_types import Part

_SHAPE = re.compile(r"\d+(x\d+)*")
_EVERY = re.compile(r"every(\d+)(\+(\d+))?")
_COMPRESSIONS = ("none", "lz4", "bitshuffle_lz4")
_TYPES = "int8 uint8 int16 uint16 int32 uint32 int64 uint64 float32 float64 bool string".split()


@dataclass(frozen=True, slots=True)
class SimChannel:
    """A simulated channel; as in a data header."""

    name: str
    type: str = "float64"
    shape: tuple[int, ...] = (1,)
    encoding: str = "little"
    compression: str = "none"
    modulo: int = 1
    offset: int = 0


def _channel(text: str) -> SimChannel:
    name, _, description = text.partition("=")
    if not name:
        raise ValueError(f"{text!r} does not name a channel; write NAME or NAME=TYPE/SHAPE/…")
    given: dict[str, Any] = {}
    for word in filter(None, description.lower().split("/")):
        every = _EVERY.fullmatch(word)
        if word in _TYPES:
            given["type"] = word
        elif word in ("little", "big"):
            given["encoding"] = word
        elif word in _COMPRESSIONS:
            given["compression"] = word
        elif every and int(every[1]) > 0:
            given |= {"modulo": int(every[1]), "offset": int(every[3] or 0)}
        elif _SHAPE.fullmatch(word):
            given["shape"] = tuple(map(int, word.split("x")))
        else:
            raise ValueError(
                f"{word!r} in {text!r} is not a type, shape (1280x1024), byte order (little, big),"
                f" compression ({', '.join(_COMPRESSIONS)}) or rate (every10, every10+3)"
            )
    return SimChannel(name, **given)


def _channels(value: Any) -> object:
    if value is None:
        return ()
    if not isinstance(value, str):
        return tuple(value)
    channels = tuple(_channel(text.strip()) for text in value.split(",") if text.strip())
    if len({channel.name for channel in channels}) != len(channels):
        raise ValueError("a channel is named twice")
    return channels


SimChannels = Annotated[tuple[SimChannel, ...], BeforeValidator(_channels)]


class BsreadSimSettings(LoggingSettings, LedgerSettings):
    """A simulated source of bsread messages."""

    address: Annotated[str, opt("-a --address", "Stream", metavar="ADDRESS")] = Field(
        "tcp://127.0.0.1:9999", min_length=1, description="address to which receivers connect"
    )
    mode: Annotated[Literal["push", "pub"], opt("--mode", "Stream")] = Field(
        "push", description="push: each message to one receiver; pub: to all"
    )
    n_scalars: Annotated[int, opt("-ns --n-scalars", "Channels", metavar="N")] = Field(
        10, ge=0, description="float64 scalars SIM:SCALAR-0, …, whose value is the pulse id"
    )
    camera: Annotated[str, opt("--camera", "Channels", "pixels", metavar="WxH")] = Field(
        "", pattern=r"^(\d+x\d+)?$", description="a uint16 camera SIM:CAMERA of this size"
    )
    camera_compression: Annotated[
        Literal["none", "lz4", "bitshuffle_lz4"], opt("--camera-compression", "Channels")
    ] = Field("none", description="compression of the camera's images")
    channels: Annotated[SimChannels, opt("-c --channels", "Channels", metavar="LIST")] = Field(
        (),
        description=(
            "further channels, NAME=WORDS,NAME=WORDS: WORDS are type, shape (fastest dimension"
            " first), byte order, compression and rate, separated by /, as in"
            " X=uint16/100x2/big/lz4/every10+3"
        ),
    )
    dh_compression: Annotated[
        Literal["none", "lz4", "bitshuffle_lz4"], opt("--dh-compression", "Channels")
    ] = Field("none", description="compression of the data header")
    rate: Annotated[float, opt("-fps --rate", "Run", "messages/s", metavar="R")] = Field(
        100, ge=0, description="rate; 0: as fast as possible"
    )
    n_messages: Annotated[int, opt("-n --n-messages", "Run", "messages", metavar="N")] = Field(
        0, ge=0, description="stop after this number of pulses; 0: no limit"
    )
    runtime: Annotated[float, opt("-rt --runtime", "Run", "s", metavar="T")] = Field(
        0, ge=0, description="stop after this time; 0: run until stopped"
    )
    first_pulse: Annotated[int, opt("--first-pulse", "Run", metavar="ID")] = Field(
        1, ge=-(2**62), le=2**62, description="first pulse id"
    )
    pulse_step: Annotated[int, opt("--pulse-step", "Run", metavar="N")] = Field(
        1, ge=1, description="step from one pulse id to the next"
    )
    send_timeout: Annotated[float, opt("--send-timeout", "Run", "s", metavar="T")] = Field(
        0,
        ge=0,
        description="longest wait until a receiver takes a message; then the message is dropped",
    )
    drop: Annotated[Part, opt("--drop", "Trouble", metavar="P")] = Field(
        0, description="fraction of pulses to omit"
    )
    reorder: Annotated[Part, opt("--reorder", "Trouble", metavar="P")] = Field(
        0, description="fraction of messages to swap with the next one"
    )
    duplicate: Annotated[Part, opt("--duplicate", "Trouble", metavar="P")] = Field(
        0, description="fraction of messages to send twice"
    )
    missing: Annotated[Part, opt("--missing", "Trouble", metavar="P")] = Field(
        0, description="fraction of values to omit"
    )
    malformed: Annotated[Part, opt("--malformed", "Trouble", metavar="P")] = Field(
        0, description="fraction of pulses after which a damaged message is sent"
    )
    change_every: Annotated[int, opt("--change-every", "Trouble", "pulses", metavar="N")] = Field(
        0,
        ge=0,
        description=(
            "change the channels after this number of pulses: another order, one fewer, one more,"
            " another type"
        ),
    )
    stop_every: Annotated[int, opt("--stop-every", "Trouble", "pulses", metavar="N")] = Field(
        0, ge=0, description="send a stop command after this number of pulses, and continue"
    )
    seed: Annotated[int, opt("--seed", "Trouble", metavar="N")] = Field(
        1, description="seed of the random faults"
    )

    @property
    def all_channels(self) -> tuple[SimChannel, ...]:
        """Scalars, the camera, and further channels."""
        made = [SimChannel(f"SIM:SCALAR-{n}") for n in range(self.n_scalars)]
        if self.camera:
            width, height = map(int, self.camera.split("x"))
            made.append(
                SimChannel(
                    "SIM:CAMERA", "uint16", (width, height), compression=self.camera_compression
                )
            )
        return (*made, *self.channels)
