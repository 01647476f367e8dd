"""Settings of programs that are the source of a stream: simulators, and replays."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.common import (
    LedgerSettings,
    LoggingSettings,
    MetricsSettings,
    StatusSettings,
)
from pvapy_stream.settings.incumbent import at_least
from pvapy_stream.settings.text_types import Names
from pvapy_stream.transport.mode import OutputMode


class SourceSettings(LoggingSettings, LedgerSettings, MetricsSettings, StatusSettings):
    """A program that publishes on one channel, and waits for those that receive from it."""

    channel_name: Annotated[str, opt("-cn --channel-name", "Channels", metavar="NAME")] = Field(
        "pvapy:image", min_length=1, description="channel to publish on"
    )
    wait_for_clients: Annotated[int, opt("--wait-for-clients", "Run", metavar="N")] = Field(
        0,
        ge=0,
        description=(
            "start when this number of clients monitor the channel, instead of after the start"
            " delay"
        ),
    )
    wait_for_stages: Annotated[Names, opt("--wait-for-stages", "Run", metavar="LIST")] = Field(
        (),
        description=(
            "start when the consumers and collectors with these status channels have received"
            " their first object and metadata, so that the whole chain is connected"
        ),
    )
    wait_timeout: Annotated[float, opt("--wait-timeout", "Run", "s", metavar="T")] = Field(
        60, gt=0, description="longest wait for these clients and stages; then the program fails"
    )
    start_delay: Annotated[
        float,
        at_least(0, "--start-delay", "no delay"),
        opt("-std --start-delay", "Run", "s", metavar="T"),
    ] = Field(10, ge=0, description="time before the first frame")
    shutdown_delay: Annotated[
        float,
        at_least(0, "--shutdown-delay", "no delay"),
        opt("-shd --shutdown-delay", "Run", "s", metavar="T"),
    ] = Field(10, ge=0, description="time after the last frame, in which clients can finish")
    report_period: Annotated[
        int, opt("-rp --report-period", "Reporting", "frames", metavar="N")
    ] = Field(
        1, description="number of frames between reports (at most 5 reports a second); 0: none"
    )
    disable_curses: Annotated[bool, opt("-dc --disable-curses", "Reporting")] = Field(
        False, description="print plain lines instead of a live line"
    )

    @model_validator(mode="after")
    def _names_differ(self) -> SourceSettings:
        if self.status_channel == self.channel_name:
            raise ValueError(
                f"--channel-name and --status-channel are both {self.channel_name}; give them"
                " different names"
            )
        return self

    @property
    def publishes(self) -> OutputMode:
        """What the output mode is."""
        raise NotImplementedError

    @property
    def hosted(self) -> list[str]:
        """PVA channels that the program serves for its objects."""
        return [self.channel_name] if self.publishes.hosts else []
