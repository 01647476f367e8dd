"""Settings of monitors: what they watch, how often, and when they raise an alarm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from pvapy_stream.base_settings import Settings, opt
from pvapy_stream.settings.notify import NotifySettings
from pvapy_stream.settings.rules import AlarmRules, check_units, parse_rule
from pvapy_stream.settings.text_types import IdList, Names

# The default: every loss of frames, and stages that fail or have disconnected. Single losses one
# after another are one alarm, which holds for a minute; what is 0 or 1 needs no such time.
STREAM_ALARMS = tuple(
    parse_rule(text)
    for text in (
        "connected < 1 for 5 s",
        "failed > 0",
        "missed_rate > 0 hold 1 min",
        "rejected_rate > 0 hold 1 min",
        "error_rate > 0 hold 1 min",
    )
)


class MonitorSettings(NotifySettings):
    """Settings of all monitors."""

    # Quantities and their units; empty if they are not known in advance.
    QUANTITIES: ClassVar[Mapping[str, str]] = {}

    name: Annotated[str, opt("--name", "Monitor", metavar="NAME")] = Field(
        "", description="name in messages and series; default: the kind of monitor"
    )
    sampling_interval: Annotated[
        float, opt("-si --sampling-interval", "Monitor", "s", metavar="T")
    ] = Field(60, gt=0, description="time between samples")
    monitor_time: Annotated[float, opt("-mt --monitor-time", "Monitor", "min", metavar="T")] = (
        Field(0, ge=0, description="stop after this time; 0: run until stopped")
    )
    alarms: Annotated[AlarmRules, opt("-a --alarm", "Monitor", metavar="RULE", many=True)] = Field(
        (),
        description=(
            "when to raise an alarm: 'QUANTITY[@SUBJECT] < VALUE [clear VALUE] [for TIME] [hold"
            " TIME] [every TIME]'"
        ),
    )
    working_dir: Annotated[str, opt("-wd --working-dir", "Series", metavar="DIR")] = Field(
        ".", description="folder for the monitor's files; it is created if necessary"
    )
    series: Annotated[str, opt("--series", "Series", metavar="FILE")] = Field(
        "monitors.sqlite",
        description="SQLite file in that folder for all samples and alarms; '': none",
    )
    retention: Annotated[float, opt("--retention", "Series", "days", metavar="T")] = Field(
        30, gt=0, description="how long samples are kept"
    )

    @model_validator(mode="after")
    def _rules_fit(self) -> MonitorSettings:
        if self.QUANTITIES:
            check_units(self.alarms, self.QUANTITIES)
        return self


class ChannelsSettings(Settings):
    """Which stages are watched."""

    status_channels: Annotated[
        Names, opt("-sc --status-channel", "Stages", metavar="NAME", many=True)
    ] = Field(
        (),
        description=(
            "status channels of stages; with *, give --ids, or the program pvlist finds them"
        ),
    )
    ids: Annotated[IdList, opt("--ids", "Stages", metavar="LIST")] = Field(
        None, description="ids that replace *: 1,2,5 or range(first,last+1[,step])"
    )
    id_format_spec: Annotated[str, opt("-ifs --id-format-spec", "Stages", metavar="SPEC")] = Field(
        "", description="Python format of the id in channel names, such as 02d"
    )
    workflow: Annotated[str, opt("--workflow", "Stages", metavar="FILE")] = Field(
        "", description="workflow file, whose stages are watched too"
    )

    @model_validator(mode="after")
    def _some_stage(self) -> ChannelsSettings:
        if self._needs_stages() and not self.status_channels and not self.workflow:
            raise ValueError("give --status-channel or --workflow: there is no stage to watch")
        try:
            format(1, self.id_format_spec)
        except ValueError as error:
            raise ValueError(
                f"--id-format-spec: {self.id_format_spec!r} cannot format an integer ({error})"
            ) from error
        return self

    def _needs_stages(self) -> bool:
        return True
