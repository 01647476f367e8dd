"""Settings of the writer of bsread streams, and of its client."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from pvapy_stream.base_settings import Settings, lower, opt
from pvapy_stream.settings.common import (
    LedgerSettings,
    LoggingSettings,
    MetricsSettings,
    StatusSettings,
)
from pvapy_stream.settings.modes import StreamsHelp
from pvapy_stream.settings.text_types import LogLevel
from pvapy_stream.transport.registry import image_stream


class WriterSettings(LoggingSettings, LedgerSettings, MetricsSettings, StatusSettings):
    """A writer of pulses that are requested over REST."""

    stream: Annotated[str, StreamsHelp(), opt("STREAM", "Stream and file")] = Field(
        min_length=1,
        description=(
            "tcp://host:port of a bsread stream, buffer://host:port of a buffer's range port, or"
            " IMAGES of images"
        ),
    )
    output_file: Annotated[str, opt("OUTPUT_FILE", "Stream and file")] = Field(
        min_length=1,
        description=(
            "file to write, /dev/null to discard all data; with --service, the folder that must"
            " contain all files"
        ),
    )
    user_id: Annotated[int, opt("USER_ID", "Stream and file")] = Field(
        ge=-1,
        le=2**31 - 1,
        description="id of the user and group as which the writer runs; -1: unchanged",
    )
    rest_port: Annotated[int, opt("REST_PORT", "Stream and file")] = Field(
        ge=0, le=65535, description="port of the REST interface; 0: any free port"
    )
    mode: Annotated[
        Literal["pull", "sub"], BeforeValidator(lower), opt("--mode", "Stream and file")
    ] = Field(
        "pull",
        description="socket type of the stream: sub if the sender publishes, pull if it pushes",
    )
    id_field: Annotated[str, opt("-of --oid-field", "Stream and file", metavar="FIELD")] = Field(
        "uniqueId", min_length=1, description="field of images that becomes the pulse id"
    )
    keep_memory: Annotated[float, opt("--keep-memory", "Stream and file", "MB", metavar="N")] = (
        Field(
            0,
            ge=0,
            description=(
                "for images: memory for the newest ones, so that an acquisition may begin with a"
                " past image; 0: no limit, or no images are kept if --keep-seconds is 0 too"
            ),
        )
    )
    keep_seconds: Annotated[float, opt("--keep-seconds", "Stream and file", "s", metavar="T")] = (
        Field(0, ge=0, description="for images: keep those of this last time, like --keep-memory")
    )
    layout: Annotated[
        Literal["swissfel", "nexus"], BeforeValidator(lower), opt("--layout", "Stream and file")
    ] = Field(
        "swissfel",
        description=(
            "nexus: as pvapy-stream save, with the first image channel; all other values are its"
            " attributes"
        ),
    )
    start: Annotated[
        Literal["first", "now"] | Annotated[int, Field(ge=0, lt=2**63)] | None,
        opt("--start", "Acquisition", metavar="first|now|ID"),
    ] = Field(
        None,
        description=(
            "begin without a REST call: with the oldest available pulse, now, or with a pulse id,"
            " which may be past"
        ),
    )
    stop_pulse_id: Annotated[int | None, opt("--stop-pulse-id", "Acquisition", metavar="ID")] = (
        Field(None, ge=0, lt=2**63, description="with --start: end with this pulse")
    )
    seconds: Annotated[float, opt("--seconds", "Acquisition", "s", metavar="T")] = Field(
        0, ge=0, description="with --start: end this time after the first pulse; 0: when stopped"
    )
    service: Annotated[bool, opt("--service", "Run")] = Field(
        False, description="write one acquisition after another, instead of ending after the first"
    )
    parallel: Annotated[int, opt("--parallel", "Run", "acquisitions", metavar="N")] = Field(
        1, ge=1, le=64, description="maximum number of simultaneous acquisitions, with --service"
    )
    force: Annotated[bool, opt("--force", "Stream and file")] = Field(
        False,
        description=(
            "replace OUTPUT_FILE if it is a plain file; requests may then also replace files"
        ),
    )
    folder: Annotated[str, opt("--folder", "Stream and file", metavar="FOLDER")] = Field(
        "",
        description=(
            "folder in which requests may choose a file; default: that of OUTPUT_FILE, with"
            " --service OUTPUT_FILE itself"
        ),
    )
    silence_limit: Annotated[float, opt("--silence-limit", "Run", "s", metavar="T")] = Field(
        300.0, ge=0, description="end in error after this time without a message; 0: never"
    )
    start_limit: Annotated[float, opt("--start-limit", "Run", "s", metavar="T")] = Field(
        3600.0,
        ge=0,
        description="end in error if the first pulse does not arrive within this time; 0: never",
    )
    linger: Annotated[float, opt("--linger", "Run", "s", metavar="T")] = Field(
        1.0, ge=0, description="how long the REST interface answers after the end"
    )
    rest_host: Annotated[str, opt("--rest-host", "REST", metavar="ADDRESS")] = Field(
        "127.0.0.1",
        description="address of the REST interface; 0.0.0.0: reachable from other machines",
    )
    token_file: Annotated[str | None, opt("--token-file", "REST", metavar="FILE")] = Field(
        None,
        description=(
            "file with the bearer token that requests must have; default: PVAPY_STREAM_TOKEN in"
            " the environment"
        ),
    )
    report_period: Annotated[float, opt("-rp --report-period", "Reporting", "s", metavar="T")] = (
        Field(10.0, ge=0, description="time between progress messages without a terminal")
    )
    log_level: Annotated[
        LogLevel, opt("-ll --log-level --log_level", "Reporting", metavar="LEVEL")
    ] = Field(
        None,
        description=(
            "lowest level that is logged: debug, info, warning, error, critical; default: warning"
        ),
    )

    @model_validator(mode="after")
    def _status_is_no_stream(self) -> WriterSettings:
        if self.status_channel and self.stream == f"pva://{self.status_channel}":
            raise ValueError("--status-channel: the stream itself has this name")
        return self

    @model_validator(mode="after")
    def _only_images_are_kept(self) -> WriterSettings:
        if (self.keep_memory or self.keep_seconds) and image_stream(self.stream) is None:
            raise ValueError(
                "--keep-memory and --keep-seconds are for images; for a bsread stream, run a buffer"
                " and write from buffer://host:port"
            )
        return self

    @model_validator(mode="after")
    def _acquisition_is_one(self) -> WriterSettings:
        stops = self.stop_pulse_id is not None, self.seconds > 0
        if self.start is None and any(stops):
            raise ValueError(f"{'--stop-pulse-id' if stops[0] else '--seconds'} needs --start")
        if all(stops):
            raise ValueError("--stop-pulse-id and --seconds cannot be combined; give one of them")
        if self.start is not None and self.service:
            raise ValueError("--start is for one acquisition; with --service, start over REST")
        if isinstance(self.start, int) and stops[0] and (self.stop_pulse_id or 0) < self.start:
            raise ValueError("--stop-pulse-id is before --start; swap them")
        return self


class WriterClientSettings(Settings):
    """Address of a writer, and how to access it."""

    url: Annotated[str, opt("-u --url", "Writer", metavar="URL")] = Field(
        "http://127.0.0.1:8888", description="address of the writer's REST interface"
    )
    token_file: Annotated[str | None, opt("--token-file", "Writer", metavar="FILE")] = Field(
        None,
        description="file with the bearer token; default: PVAPY_STREAM_TOKEN in the environment",
    )
    timeout: Annotated[float, opt("-t --timeout", "Writer", "s", metavar="T")] = Field(
        30.0, gt=0, description="longest wait for an answer, and with --wait for the end"
    )
