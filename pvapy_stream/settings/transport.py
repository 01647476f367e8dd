"""Settings of input and output modes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.modes import ArgsHelp, ModeChoice
from pvapy_stream.settings.text_types import JsonObject, mode_name
from pvapy_stream.transport import registry
from pvapy_stream.transport.mode import InputMode, OutputMode
from pvapy_stream.transport.pva_library import PvaSettings
from pvapy_stream.transport.shm_settings import ShmSettings


class PublishSettings(ShmSettings, PvaSettings):
    """How objects are published."""

    output_mode: Annotated[
        str,
        BeforeValidator(mode_name),
        ModeChoice("output", "pvas"),
        opt("-om --output-mode", "Channels"),
    ] = Field("pvas", description="how objects are published")
    output_args: Annotated[
        JsonObject, ArgsHelp("output"), opt("-oa --output-args", "Channels", metavar="JSON")
    ] = Field(
        default_factory=dict,
        description="JSON object with arguments of output MODES; other modes need none",
    )
    remote_timeout: Annotated[float, opt("--remote-timeout", "Channels", "s", metavar="T")] = Field(
        5,
        gt=0,
        description=(
            "longest time for which an object is retried if the other side of output mode pva or"
            " rpc fails"
        ),
    )

    @model_validator(mode="after")
    def _output_args_fit(self) -> PublishSettings:
        registry.check_args("--output-args", self.publishes, self.output_args)
        return self

    @property
    def publishes(self) -> OutputMode:
        """The declaration of the output mode."""
        return registry.output_mode(self.output_mode)


class TransportSettings(PublishSettings):
    """How objects are received, and how they are published."""

    input_mode: Annotated[
        str,
        BeforeValidator(mode_name),
        ModeChoice("input"),
        opt("-im --input-mode", "Channels"),
    ] = Field("pva", description="how objects are received")
    input_args: Annotated[
        JsonObject, ArgsHelp("input"), opt("-ia --input-args", "Channels", metavar="JSON")
    ] = Field(
        default_factory=dict,
        description="JSON object with arguments of input MODES; other modes need none",
    )

    @model_validator(mode="after")
    def _input_args_fit(self) -> TransportSettings:
        registry.check_args("--input-args", self.receives, self.input_args)
        return self

    @property
    def receives(self) -> InputMode:
        """The declaration of the input mode."""
        return registry.input_mode(self.input_mode)
