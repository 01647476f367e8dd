"""Settings of subscriptions and publications."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from pvapy_stream.base_settings import Overflow, Settings, lower
from pvapy_stream.settings.modes import ModeChoice
from pvapy_stream.settings.text_types import JsonObject, mode_name
from pvapy_stream.settings.transport import TransportSettings
from pvapy_stream.transport import registry
from pvapy_stream.transport.mode import InputMode, OutputMode


class SubscriptionSettings(Settings):
    """What `subscribe` was asked for; its arguments are explained there."""

    channel: str = Field(min_length=1)
    mode: Annotated[str, BeforeValidator(mode_name), ModeChoice("input")] = "pva"
    queue_size: int = Field(64, ge=1)
    server_queue_size: int = Field(0, ge=0)
    overflow: Annotated[Overflow, BeforeValidator(lower)] = "block"
    overflow_timeout: float = Field(60.0, gt=0)
    timeout: float | None = Field(60.0, gt=0)
    initial: bool = False
    opening: bool = False
    args: JsonObject = Field(default_factory=dict)

    @model_validator(mode="after")
    def _arguments_fit(self) -> SubscriptionSettings:
        registry.check_args("args", self.receives, self.args)
        return self

    @property
    def receives(self) -> InputMode:
        """What the mode is."""
        return registry.input_mode(self.mode)


class PublicationSettings(Settings):
    """What `publish` was asked for; its arguments are explained there."""

    channel: str = Field(min_length=1)
    mode: Annotated[str, BeforeValidator(mode_name), ModeChoice("output", "pvas")] = "pvas"
    first_id: int = 1
    relay: bool = False
    overflow: Annotated[Overflow, BeforeValidator(lower)] = "block"
    timeout: float = Field(5.0, gt=0)
    args: JsonObject = Field(default_factory=dict)

    @model_validator(mode="after")
    def _arguments_fit(self) -> PublicationSettings:
        registry.check_args("args", self.publishes, self.args)
        return self

    @property
    def publishes(self) -> OutputMode:
        """What the mode is: for a program that makes its frames itself, unless it relays."""
        mode = registry.find(self.mode)
        output = registry.output_mode(self.mode)
        # A channel that belongs to the receiver is not ours, whoever made the frames.
        if self.relay or output.shared or mode.source is None:
            return output
        return mode.source

    @property
    def transport(self) -> TransportSettings:
        """The same for the transports."""
        return TransportSettings.of(
            pva_overflow=self.overflow,
            pva_timeout=self.timeout,
            shm_overflow=self.overflow,
            shm_timeout=self.timeout,
        )
