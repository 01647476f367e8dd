"""Settings of the measurement before a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.common import LoggingSettings
from pvapy_stream.settings.text_types import JsonObject, PixelType


class PreflightSettings(LoggingSettings):
    """What is measured."""

    input_channel: Annotated[str | None, opt("-ic --input-channel", "Frames", metavar="NAME")] = (
        Field(
            None,
            description="running source from which size, type and rate of the frames are taken",
        )
    )
    n_x_pixels: Annotated[int, opt("-nx --n-x-pixels", "Frames", "pixels", metavar="N")] = Field(
        256, ge=1, description="width of the frames, without --input-channel"
    )
    n_y_pixels: Annotated[int, opt("-ny --n-y-pixels", "Frames", "pixels", metavar="N")] = Field(
        256, ge=1, description="height of the frames, without --input-channel"
    )
    datatype: Annotated[PixelType, opt("-dt --datatype", "Frames")] = Field(
        "uint8", description="pixel type of the frames"
    )
    frame_rate: Annotated[float, opt("-fps --frame-rate", "Frames", "frames/s", metavar="R")] = (
        Field(0, ge=0, description="needed rate; 0: that of the source, or the highest possible")
    )
    processor_file: Annotated[
        str | None, opt("-pf --processor-file", "Processor", metavar="FILE")
    ] = Field(None, description="Python file with the processor class")
    processor_class: Annotated[
        str | None, opt("-pc --processor-class", "Processor", metavar="CLASS")
    ] = Field(None, description="class in that file; default: frames are passed on unchanged")
    processor_args: Annotated[
        JsonObject, opt("-pa --processor-args", "Processor", metavar="JSON")
    ] = Field(default_factory=dict, description="JSON object for the processor's constructor")
    output_directory: Annotated[
        str | None, opt("-od --output-directory", "Files", metavar="DIR")
    ] = Field(None, description="also measure writing to this folder; the files are removed")
    compression: Annotated[
        Literal["none", "lz4", "bslz4", "zstd", "blosc"], opt("-cmp --compression", "Files")
    ] = Field("none", description="compression of images")
    seconds: Annotated[float, opt("--seconds", "Run", "s", metavar="T")] = Field(
        2, gt=0, le=60, description="duration of each of the four to eight measurements"
    )
    pause: Annotated[float, opt("--pause", "Run", "s", metavar="T")] = Field(
        0.5, gt=0, description="longest pause of a consumer that the queues must cover"
    )
    queue_memory: Annotated[int, opt("--queue-memory", "Run", "MB", metavar="N")] = Field(
        1000, ge=1, description="memory limit of the queues"
    )

    @model_validator(mode="after")
    def _processor_is_complete(self) -> PreflightSettings:
        if self.processor_file and not self.processor_class:
            raise ValueError("--processor-file needs --processor-class")
        return self
