"""Settings of input and output modes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.modes import ArgsHelp, ModeChoice
from pvapy_stream.settings.values import JsonObject, mode_name
from pvapy_stream.transport import registry
from pvapy_stream.transport.mode import InputMode, OutputMode
from pvapy_stream.transport.pva_library import PvaSettings
from pvapy_stream.transport.shm_settings import ShmSettings


class TransportSettings(ShmSettings, PvaSettings):
    """How objects come in, and how they go out."""

    input_mode: Annotated[
        str,
        BeforeValidator(mode_name),
        ModeChoice("input"),
        opt("-im --input-mode", "Channels"),
    ] = Field("pva", description="how objects come in")
    input_args: Annotated[
        JsonObject, ArgsHelp("input"), opt("-ia --input-args", "Channels", metavar="JSON")
    ] = Field(default_factory=dict, description="JSON object for input MODES; the others need none")
    output_mode: Annotated[
        str,
        BeforeValidator(mode_name),
        ModeChoice("output", "pvas"),
        opt("-om --output-mode", "Channels"),
    ] = Field("pvas", description="how objects go out")
    output_args: Annotated[
        JsonObject, ArgsHelp("output"), opt("-oa --output-args", "Channels", metavar="JSON")
    ] = Field(
        default_factory=dict, description="JSON object for output MODES; the others need none"
    )
    remote_timeout: Annotated[float, opt("--remote-timeout", "Channels", "s", metavar="T")] = Field(
        5,
        gt=0,
        description=(
            "longest time an object is tried again when the other side of output mode pva or rpc"
            " fails"
        ),
    )

    @model_validator(mode="after")
    def _arguments_fit(self) -> TransportSettings:
        registry.check_args("--input-args", self.receives, self.input_args)
        registry.check_args("--output-args", self.publishes, self.output_args)
        return self

    @property
    def receives(self) -> InputMode:
        """What the input mode is."""
        return registry.input_mode(self.input_mode)

    @property
    def publishes(self) -> OutputMode:
        """What the output mode is."""
        return registry.output_mode(self.output_mode)
