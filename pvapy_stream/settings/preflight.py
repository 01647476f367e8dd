"""Settings of the measurement before a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.common import LoggingSettings
from pvapy_stream.settings.values import JsonObject, PixelType


class PreflightSettings(LoggingSettings):
    """What is to be measured."""

    input_channel: Annotated[str | None, opt("-ic --input-channel", "Frames", metavar="NAME")] = (
        Field(
            None,
            description="a running source, which tells size, type and rate of the frames",
        )
    )
    n_x_pixels: Annotated[int, opt("-nx --n-x-pixels", "Frames", "pixels", metavar="N")] = Field(
        256, ge=1, description="width of the frames when no source runs"
    )
    n_y_pixels: Annotated[int, opt("-ny --n-y-pixels", "Frames", "pixels", metavar="N")] = Field(
        256, ge=1, description="height of the frames"
    )
    datatype: Annotated[PixelType, opt("-dt --datatype", "Frames")] = Field(
        "uint8", description="type of a pixel"
    )
    frame_rate: Annotated[float, opt("-fps --frame-rate", "Frames", "frames/s", metavar="R")] = (
        Field(0, ge=0, description="the rate you need; 0: that of the source, or the highest")
    )
    processor_file: Annotated[
        str | None, opt("-pf --processor-file", "Processor", metavar="FILE")
    ] = Field(None, description="Python file with the processor class")
    processor_class: Annotated[
        str | None, opt("-pc --processor-class", "Processor", metavar="CLASS")
    ] = Field(None, description="the class; without one, frames are passed through")
    processor_args: Annotated[
        JsonObject, opt("-pa --processor-args", "Processor", metavar="JSON")
    ] = Field(default_factory=dict, description="JSON object for the processor's constructor")
    output_directory: Annotated[
        str | None, opt("-od --output-directory", "Files", metavar="DIR")
    ] = Field(None, description="measure writing to this folder too; nothing is left there")
    compression: Annotated[
        Literal["none", "lz4", "bslz4", "zstd", "blosc"], opt("-cmp --compression", "Files")
    ] = Field("none", description="how images are compressed")
    seconds: Annotated[float, opt("--seconds", "Run", "s", metavar="T")] = Field(
        2, gt=0, le=60, description="length of each measurement; there are four to eight"
    )
    pause: Annotated[float, opt("--pause", "Run", "s", metavar="T")] = Field(
        0.5, gt=0, description="longest interruption of a consumer that the queues shall bridge"
    )
    queue_memory: Annotated[int, opt("--queue-memory", "Run", "MB", metavar="N")] = Field(
        1000, ge=1, description="memory that the queues may take"
    )

    @model_validator(mode="after")
    def _processor_is_complete(self) -> PreflightSettings:
        if self.processor_file and not self.processor_class:
            raise ValueError("--processor-file needs --processor-class")
        return self
