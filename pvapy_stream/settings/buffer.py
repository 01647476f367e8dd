"""Settings of the buffer."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from pvapy_stream.base_settings import opt
from pvapy_stream.settings.common import (
    HostSettings,
    LedgerSettings,
    LoggingSettings,
    StatusSettings,
)
from pvapy_stream.settings.modes import StreamsHelp, image_forms
from pvapy_stream.settings.values import LogLevel
from pvapy_stream.transport import registry

_PORT = 65535
_DEFAULT_MESSAGES = 100


class Ports(NamedTuple):
    """Where a buffer listens."""

    output: int
    ranges: int
    rest: int


class BufferSettings(LoggingSettings, LedgerSettings, HostSettings, StatusSettings):
    """A program that keeps the newest pulses of a stream and gives them out."""

    stream: Annotated[str, StreamsHelp(), opt("STREAM", "Stream")] = Field(
        min_length=1, description="tcp://host:port of a bsread sender; IMAGES of images"
    )
    mode: Annotated[Literal["pull", "sub"], opt("--mode", "Stream")] = Field(
        "pull", description="how a bsread sender is asked: sub for senders that publish"
    )
    id_field: Annotated[str, opt("-of --oid-field", "Stream", metavar="FIELD")] = Field(
        "uniqueId", min_length=1, description="field of images that becomes the pulse id"
    )
    skip_initial_updates: Annotated[
        int, opt("-siu --skip-initial-updates", "Stream", metavar="N")
    ] = Field(
        0,
        ge=0,
        description="first updates of a channel that are not kept: a monitor starts with the value"
        " already there",
    )
    server_queue_size: Annotated[
        int, opt("-sqs --server-queue-size", "Stream", "objects", metavar="N")
    ] = Field(
        0, ge=0, description="queue the channel's server keeps for us; 0: the server's default"
    )
    max_value: Annotated[float, opt("--max-value", "Stream", "MB", metavar="N")] = Field(
        1000, gt=0, le=4000, description="largest value that is taken"
    )
    late_pulses: Annotated[int, opt("--late-pulses", "Stream", "pulses", metavar="N")] = Field(
        100,
        ge=0,
        description="a pulse id that goes further back means that the source has started again",
    )
    buffer_length: Annotated[
        int | None, opt("-b --buffer_length --buffer-length", "Limits", "messages", metavar="N")
    ] = Field(
        None,
        ge=1,
        description=f"keep this many; {_DEFAULT_MESSAGES} when no limit at all is given",
    )
    memory: Annotated[float, opt("--memory", "Limits", "MB", metavar="N")] = Field(
        0, ge=0, description="keep what fits into this much memory; 0: no such limit"
    )
    seconds: Annotated[float, opt("--seconds", "Limits", "s", metavar="T")] = Field(
        0, ge=0, description="keep what came in this time; 0: no such limit"
    )
    spill_folder: Annotated[str | None, opt("--spill-folder", "Limits", metavar="DIR")] = Field(
        None, description="keep on disk, in this folder, what memory has no room for"
    )
    spill_size: Annotated[float, opt("--spill-size", "Limits", "GB", metavar="N")] = Field(
        10, gt=0, description="disk space for that"
    )
    interface: Annotated[str, opt("--interface", "Outputs", metavar="ADDRESS")] = Field(
        "127.0.0.1",
        min_length=1,
        description="interface of all outputs; with 0.0.0.0 whoever reaches this host may read",
    )
    output_port: Annotated[
        int, opt("-o --output_port --output-port", "Outputs", metavar="PORT")
    ] = Field(
        8082,
        ge=0,
        le=_PORT,
        description="push the stream on here; the two ports behind it are bound too, for ranges and"
        " for status; 0: a free port",
    )
    range_port: Annotated[int | None, opt("--range-port", "Outputs", metavar="PORT")] = Field(
        None, ge=0, le=_PORT, description="serve ranges here; the output port + 1 when not given"
    )
    rest_port: Annotated[int | None, opt("--rest-port", "Outputs", metavar="PORT")] = Field(
        None,
        ge=0,
        le=_PORT,
        description="show status and metrics here; the output port + 2 when not given",
    )
    no_rest: Annotated[bool, opt("--no-rest", "Outputs")] = Field(
        False, description="no status over HTTP"
    )
    max_readers: Annotated[int, opt("--max-readers", "Outputs", metavar="N")] = Field(
        100, ge=1, description="readers of ranges at a time"
    )
    reader_memory: Annotated[float, opt("--reader-memory", "Outputs", "MB", metavar="N")] = Field(
        64, ge=2, description="what may be on its way to one reader"
    )
    analyzer: Annotated[bool, opt("--analyzer", "Reporting")] = Field(
        False, description="look for anomalies in the stream, and report them at the end"
    )
    log_level: Annotated[
        LogLevel, opt("-ll --log-level --log_level", "Reporting", metavar="LEVEL")
    ] = Field(
        None, description="lowest level that is logged: debug, info, warning, error, critical"
    )
    runtime: Annotated[float, opt("-rt --runtime", "Run", "s", metavar="T")] = Field(
        0, ge=0, description="stop after this time; 0: run until stopped"
    )

    @model_validator(mode="after")
    def _known_source(self) -> BufferSettings:
        scheme, separator, rest = self.stream.partition("://")
        of_bsread = scheme in ("tcp", "ipc", "inproc") and separator and rest
        if not of_bsread and not registry.image_stream(self.stream):
            raise ValueError(
                f"STREAM: {self.stream!r} is no stream; write tcp://host:port, {image_forms()}"
            )
        if self.status_channel and self.stream == f"pva://{self.status_channel}":
            raise ValueError("--status-channel: the stream itself has this name")
        return self

    @property
    def messages(self) -> int:
        """Messages to keep; 0: no such limit."""
        if self.buffer_length is not None:
            return self.buffer_length
        return 0 if self.memory or self.seconds else _DEFAULT_MESSAGES

    @property
    def ports(self) -> Ports:
        """Output, range and REST port; 0: a free one."""
        output = self.output_port
        following = (output + 1, output + 2) if 0 < output < _PORT - 1 else (0, 0)
        return Ports(
            output,
            following[0] if self.range_port is None else self.range_port,
            following[1] if self.rest_port is None else self.rest_port,
        )
