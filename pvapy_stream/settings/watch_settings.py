"""Settings of report, dashboard and top."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.common import HostSettings, LoggingSettings
from pvapy_stream.settings.monitor_settings import STREAM_ALARMS, ChannelsSettings
from pvapy_stream.settings.rules import AlarmRules
from pvapy_stream.settings.text_types import Names


class TopSettings(LoggingSettings, ChannelsSettings):
    """A table of stages on the terminal."""

    refresh: Annotated[float, opt("--refresh", "Display", "s", metavar="T")] = Field(
        1, ge=0.1, description="time between updates"
    )
    runtime: Annotated[float, opt("-rt --runtime", "Display", "s", metavar="T")] = Field(
        0, ge=0, description="stop after this time; 0: run until stopped"
    )

    def _needs_stages(self) -> bool:
        return False


class DashboardSettings(LoggingSettings, ChannelsSettings, HostSettings):
    """A live page."""

    control_channels: Annotated[
        Names, opt("-cc --control-channel", "Stages", metavar="NAME", many=True)
    ] = Field(
        (),
        description=(
            "control channels, in the order of the status channels, of stages whose status does"
            " not contain them; * as above"
        ),
    )
    image_channels: Annotated[
        Names, opt("-ic --image-channel", "Stages", metavar="NAME", many=True)
    ] = Field((), description="channels whose latest image is shown; default: outputs of stages")
    alarms: Annotated[AlarmRules, opt("-a --alarm", "Page", metavar="RULE", many=True)] = Field(
        STREAM_ALARMS, description="when to show an alarm, as for pvapy-stream monitor streams"
    )
    title: Annotated[str, opt("--title", "Page", metavar="TEXT")] = Field(
        "Streams", min_length=1, description="title of the page"
    )
    address: Annotated[str, opt("--address", "Page", metavar="HOST")] = Field(
        "127.0.0.1",
        min_length=1,
        description="address of the page; 0.0.0.0: reachable from other machines",
    )
    port: Annotated[int, opt("--port", "Page", metavar="PORT")] = Field(
        8080, ge=0, le=65535, description="port of the page; 0: any free port"
    )
    refresh: Annotated[float, opt("--refresh", "Page", "s", metavar="T")] = Field(
        1, ge=0.2, description="time between updates"
    )
    history: Annotated[float, opt("--history", "Page", "min", metavar="T")] = Field(
        10, gt=0, le=1440, description="time range of the charts"
    )
    token_file: Annotated[str, opt("--token-file", "Control", metavar="FILE")] = Field(
        "",
        description=(
            "file with the token for control commands; default: a new token, shown at the start"
        ),
    )
    read_only: Annotated[bool, opt("--read-only", "Control")] = Field(
        False, description="do not accept control commands"
    )


class ReportSettings(LoggingSettings, ChannelsSettings):
    """A page that is written to a file."""

    output: Annotated[str, opt("-o --output", "Report", metavar="FILE")] = Field(
        min_length=1, description="HTML file to write"
    )
    once: Annotated[bool, opt("--once", "Report")] = Field(
        False, description="write the report once and end"
    )
    interval: Annotated[
        float, opt("-si --interval --sampling-interval", "Report", "s", metavar="T")
    ] = Field(30, gt=0, description="time between two versions")
    monitor_time: Annotated[float, opt("-mt --monitor-time", "Report", "min", metavar="T")] = Field(
        0,
        ge=0,
        description="stop after this time; 0: when all stages have ended, or until stopped",
    )
    series: Annotated[Names, opt("--series", "Report", metavar="FILE", many=True)] = Field(
        (), description="SQLite files of monitors, whose series and alarms are shown too"
    )
    audit: Annotated[str, opt("--audit", "Report", metavar="FILE")] = Field(
        "",
        description=(
            "audit.json of a workflow's run; its result is shown as soon as the file exists"
        ),
    )
    image_channels: Annotated[
        Names, opt("-ic --image-channel", "Report", metavar="NAME", many=True)
    ] = Field((), description="channels whose latest image is shown")
    span: Annotated[float, opt("--span", "Report", "h", metavar="T")] = Field(
        24, gt=0, description="time range that is shown"
    )
    title: Annotated[str, opt("--title", "Report", metavar="TEXT")] = Field(
        "Stream report", min_length=1, description="title of the page"
    )
    template: Annotated[str, opt("--template", "Report", metavar="FILE")] = Field(
        "", description="Jinja2 template that replaces the built-in one"
    )
    publish: Annotated[str, opt("--publish", "Report", metavar="COMMAND")] = Field(
        "",
        description=(
            "command to run after each version; %%(REPORT_FOLDER)s and %%(REPORT_PATH)s are"
            " replaced by folder and file"
        ),
    )

    def _needs_stages(self) -> bool:
        return not self.series
