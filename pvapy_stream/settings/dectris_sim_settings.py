"""Settings of the simulator of DECTRIS Stream V2."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.common import LoggingSettings
from pvapy_stream.settings.text_types import Part


class DectrisSimSettings(LoggingSettings):
    """A simulated detector with the Stream V2 interface."""

    address: Annotated[str, opt("-a --address", "Stream", metavar="ADDRESS")] = Field(
        "tcp://127.0.0.1:31001", min_length=1, description="address to which a client connects"
    )
    nx: Annotated[int, opt("-nx --nx", "Images", "pixels", metavar="N")] = Field(
        256, ge=8, le=16384, description="width of the images"
    )
    ny: Annotated[int, opt("-ny --ny", "Images", "pixels", metavar="N")] = Field(
        256, ge=8, le=16384, description="height of the images"
    )
    pixel_type: Annotated[
        Literal["uint8", "uint16", "uint32"], opt("-dt --pixel-type", "Images")
    ] = Field("uint32", description="type of a pixel")
    compression: Annotated[Literal["none", "lz4", "bslz4"], opt("--compression", "Images")] = Field(
        "bslz4", description="compression of the images"
    )
    thresholds: Annotated[int, opt("--thresholds", "Images", "thresholds", metavar="N")] = Field(
        1, ge=1, le=4, description="number of thresholds, each with its own image"
    )
    n_images: Annotated[int, opt("-n --n-images", "Series", "images", metavar="N")] = Field(
        100, ge=1, le=10_000_000, description="images of a series"
    )
    n_series: Annotated[int, opt("--n-series", "Series", "series", metavar="N")] = Field(
        1, ge=0, description="number of series; 0: no limit"
    )
    first_series: Annotated[int, opt("--first-series", "Series", metavar="N")] = Field(
        1, ge=0, le=2**31, description="id of the first series"
    )
    rate: Annotated[float, opt("-fps --rate", "Series", "images/s", metavar="R")] = Field(
        100, ge=0, description="rate; 0: as fast as possible"
    )
    pause: Annotated[float, opt("--pause", "Series", "s", metavar="T")] = Field(
        0, ge=0, description="time between two series"
    )
    send_timeout: Annotated[float, opt("--send-timeout", "Series", "s", metavar="T")] = Field(
        60, gt=0, description="longest wait for a client; then the simulator ends with an error"
    )
    drop: Annotated[Part, opt("--drop", "Trouble", metavar="P")] = Field(
        0, description="fraction of images to omit"
    )
    reorder: Annotated[Part, opt("--reorder", "Trouble", metavar="P")] = Field(
        0, description="fraction of images to swap with the next one"
    )
    duplicate: Annotated[Part, opt("--duplicate", "Trouble", metavar="P")] = Field(
        0, description="fraction of images to send twice"
    )
    malformed: Annotated[Part, opt("--malformed", "Trouble", metavar="P")] = Field(
        0, description="fraction of images after which a damaged message is sent"
    )
    omit_last: Annotated[int, opt("--omit-last", "Trouble", "images", metavar="N")] = Field(
        0, ge=0, description="images to omit at the end of each series"
    )
    no_start: Annotated[bool, opt("--no-start", "Trouble")] = Field(
        False, description="send no start messages"
    )
    no_end: Annotated[bool, opt("--no-end", "Trouble")] = Field(
        False, description="send no end messages"
    )
    seed: Annotated[int, opt("--seed", "Trouble", metavar="N")] = Field(
        1, description="seed of the random faults"
    )
