"""Settings of the writer that is controlled as an HDF5 plugin of areaDetector."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pvapy_stream.base_settings import lower, opt
from pvapy_stream.settings.access import AccessSettings
from pvapy_stream.settings.common import LoggingSettings
from pvapy_stream.settings.modes import ModeChoice
from pvapy_stream.settings.text_types import mode_name


def _with_end(prefix: str) -> str:
    return prefix if prefix.endswith((":", ".", "-", "_")) else f"{prefix}:"


class AdWriterSettings(LoggingSettings, AccessSettings):
    """A writer with the records of areaDetector's HDF5 plugin."""

    prefix: Annotated[
        str, AfterValidator(_with_end), opt("-p --prefix", "Channels", metavar="PREFIX")
    ] = Field(
        min_length=1,
        pattern=r"^[!-~]+$",
        description="start of the names of all records, such as 13SIM1:HDF1:",
    )
    input_channel: Annotated[str, opt("-ic --input-channel", "Channels", metavar="NAME")] = Field(
        min_length=1, description="channel with the images"
    )
    input_mode: Annotated[
        str,
        BeforeValidator(mode_name),
        ModeChoice("input"),
        opt("-im --input-mode", "Channels"),
    ] = Field("pva", description="how images are received")
    folder: Annotated[str, opt("--folder", "Files", metavar="FOLDER")] = Field(
        min_length=1,
        description="folder that must contain all files; a FilePath outside of it is refused",
    )
    compression: Annotated[
        Literal["none", "lz4", "bslz4", "blosc"],
        BeforeValidator(lower),
        opt("-cmp --compression", "Files"),
    ] = Field(
        "none",
        description=(
            "compression of images until a client puts another; those that arrive compressed are"
            " stored unchanged"
        ),
    )
    queue_size: Annotated[int, opt("--queue-size", "Channels", "images", metavar="N")] = Field(
        100, ge=1, description="images that may wait to be written"
    )
    allow_gaps: Annotated[bool, opt("--allow-gaps", "Files")] = Field(
        False,
        description="ids may be missing, as behind a stage that filters; else they are a loss",
    )

    channel_access: Annotated[bool, opt("--channel-access", "Channels")] = Field(
        False, description="serve the records over Channel Access too"
    )

    @model_validator(mode="after")
    def _input_is_no_record(self) -> AdWriterSettings:
        if self.input_channel.startswith(self.prefix):
            raise ValueError("--prefix: the input channel begins with it; give another")
        return self
