"""Settings of monitors: what they watch, how often, and when they raise an alarm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from pvapy_stream.base_settings import Settings, opt
from pvapy_stream.settings.notify import NotifySettings
from pvapy_stream.settings.rules import AlarmRules, check_units, parse_rule
from pvapy_stream.settings.values import IdList, Names

# The default: every loss of frames, and stages that fail or have disconnected.
STREAM_ALARMS = tuple(
    parse_rule(text)
    for text in (
        "connected < 1 for 5 s",
        "failed > 0",
        "missed_rate > 0",
        "rejected_rate > 0",
        "error_rate > 0",
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
            "when to raise an alarm: 'QUANTITY[@SUBJECT] < VALUE [clear VALUE] [for TIME] [every"
            " TIME]'"
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


class DiskSettings(MonitorSettings):
    """Free space of disks."""

    QUANTITIES: ClassVar[Mapping[str, str]] = {
        "total": "GB",
        "used": "GB",
        "free": "GB",
        "used_percent": "%",
        "full_in": "h",
    }

    paths: Annotated[Names, opt("-p --path", "Disks", metavar="PATH", many=True)] = Field(
        (".",), min_length=1, description="a path on each disk to watch"
    )
    min_free: Annotated[float | None, opt("--min-free", "Disks", "GB", metavar="N")] = Field(
        None, ge=0, description="raise an alarm if less is free; GB are 2^30 bytes, as in df -h"
    )
    trend_time: Annotated[float, opt("--trend-time", "Disks", "min", metavar="T")] = Field(
        30,
        gt=0,
        description=(
            "the time until the disk is full is estimated from the change in this last time"
        ),
    )


class SystemSettings(MonitorSettings):
    """CPU, memory, network, disks and GPUs of this machine."""

    QUANTITIES: ClassVar[Mapping[str, str]] = {
        "cpu": "%", "memory": "%", "swap": "%", "load": "",
        "network_in": "MB/s", "network_out": "MB/s", "disk_read": "MB/s", "disk_write": "MB/s",
        "gpu": "%", "gpu_memory": "%", "gpu_temperature": "C",
    }  # fmt: skip


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


class StreamsSettings(MonitorSettings, ChannelsSettings):
    """Rates, losses, queues and latency of stages."""

    QUANTITIES: ClassVar[Mapping[str, str]] = {
        "connected": "", "failed": "", "received_rate": "Hz", "processed_rate": "Hz",
        "published_rate": "Hz", "missed": "", "missed_rate": "Hz", "rejected": "",
        "rejected_rate": "Hz", "errors": "", "error_rate": "Hz", "overruns": "", "queued": "",
        "latency_p50": "s", "latency_p90": "s", "latency_p99": "s", "silence": "s",
    }  # fmt: skip

    sampling_interval: Annotated[
        float, opt("-si --sampling-interval", "Monitor", "s", metavar="T")
    ] = Field(5, gt=0, description="time between samples")
    alarms: Annotated[AlarmRules, opt("-a --alarm", "Monitor", metavar="RULE", many=True)] = Field(
        STREAM_ALARMS,
        description=(
            "when to raise an alarm: 'QUANTITY[@CHANNEL] < VALUE [clear VALUE] [for TIME] [every"
            " TIME]'; '': never"
        ),
    )  # fmt: skip


class ImageSettings(MonitorSettings):
    """Statistics of images on channels."""

    QUANTITIES: ClassVar[Mapping[str, str]] = {
        "min": "",
        "max": "",
        "mean": "",
        "std": "",
        "saturated": "pixels",
        "age": "s",
    }

    image_channels: Annotated[
        Names, opt("-ic --image-channel", "Images", metavar="NAME", many=True)
    ] = Field(min_length=1, description="channels with images")
    every: Annotated[int, opt("--every", "Images", metavar="N")] = Field(
        0,
        ge=0,
        description=(
            "analyse every Nth image, which requires receiving all; 0: the newest one, once a"
            " sampling interval"
        ),
    )
    saturation: Annotated[float | None, opt("--saturation", "Images", metavar="N")] = Field(
        None, description="value from which a pixel is saturated; default: the largest of the type"
    )
    sampling_interval: Annotated[
        float, opt("-si --sampling-interval", "Monitor", "s", metavar="T")
    ] = Field(5, gt=0, description="time between samples")


class TableSettings(MonitorSettings):
    """Values that other programs write to a table."""

    file: Annotated[str, opt("-f --file", "Table", metavar="FILE")] = Field(
        min_length=1, description="text, CSV or SQLite file; it may be created later"
    )
    format: Annotated[Literal["auto", "text", "csv", "sqlite"], opt("--format", "Table")] = Field(
        "auto",
        description="text: columns separated by spaces; auto: by the extension, else text",
    )
    table: Annotated[str, opt("--table", "Table", metavar="NAME")] = Field(
        "", description="table of an SQLite file; default: its only one"
    )
    columns: Annotated[Names, opt("-c --column", "Table", metavar="NAME", many=True)] = Field(
        (), description="columns to watch; default: all with numbers"
    )
    time_column: Annotated[str, opt("--time-column", "Table", metavar="NAME")] = Field(
        "", description="column with the time, s since 1970; default: the time of reading"
    )
    header: Annotated[Names, opt("--header", "Table", metavar="NAME", many=True)] = Field(
        (), description="names of the columns, if the first line of the file does not contain them"
    )
    sampling_interval: Annotated[
        float, opt("-si --sampling-interval", "Monitor", "s", metavar="T")
    ] = Field(10, gt=0, description="time between samples")
