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
from pvapy_stream.settings.text_types import LogLevel
from pvapy_stream.transport import registry

_PORT = 65535
_DEFAULT_MESSAGES = 100


class Ports(NamedTuple):
    """Where a buffer listens."""

    output: int
    ranges: int
    rest: int


class BufferSettings(LoggingSettings, LedgerSettings, HostSettings, StatusSettings):
    """A program that keeps the newest pulses of a stream and serves ranges of them."""

    stream: Annotated[str, StreamsHelp(), opt("STREAM", "Stream")] = Field(
        min_length=1, description="tcp://host:port of a bsread sender, or IMAGES of images"
    )
    mode: Annotated[Literal["pull", "sub"], opt("--mode", "Stream")] = Field(
        "pull",
        description="socket type for a bsread sender: sub if it publishes, pull if it pushes",
    )
    id_field: Annotated[str, opt("-of --oid-field", "Stream", metavar="FIELD")] = Field(
        "uniqueId", min_length=1, description="field of images that becomes the pulse id"
    )
    skip_initial_updates: Annotated[
        int, opt("-siu --skip-initial-updates", "Stream", metavar="N")
    ] = Field(
        0,
        ge=0,
        description=(
            "number of first updates of a channel to skip: a monitor begins with the current"
            " object, which may be old"
        ),
    )
    server_queue_size: Annotated[
        int, opt("-sqs --server-queue-size", "Stream", "objects", metavar="N")
    ] = Field(0, ge=0, description="queue at the channel's server; 0: the server's default")
    max_value: Annotated[float, opt("--max-value", "Stream", "MB", metavar="N")] = Field(
        1000, gt=0, le=4000, description="largest accepted value"
    )
    late_pulses: Annotated[int, opt("--late-pulses", "Stream", "pulses", metavar="N")] = Field(
        100,
        ge=0,
        description="if pulse ids decrease by more than this, the source has restarted",
    )
    buffer_length: Annotated[
        int | None, opt("-b --buffer_length --buffer-length", "Limits", "messages", metavar="N")
    ] = Field(
        None,
        ge=1,
        description=(
            f"number of messages to keep; default: {_DEFAULT_MESSAGES} if no other limit is given"
        ),
    )
    memory: Annotated[float, opt("--memory", "Limits", "MB", metavar="N")] = Field(
        0, ge=0, description="memory for kept messages; 0: no such limit"
    )
    seconds: Annotated[float, opt("--seconds", "Limits", "s", metavar="T")] = Field(
        0, ge=0, description="keep messages received in this last time; 0: no such limit"
    )
    spill_folder: Annotated[str | None, opt("--spill-folder", "Limits", metavar="DIR")] = Field(
        None, description="folder for messages that exceed the limits of memory"
    )
    spill_size: Annotated[float, opt("--spill-size", "Limits", "GB", metavar="N")] = Field(
        10, gt=0, description="disk space in that folder"
    )
    interface: Annotated[str, opt("--interface", "Outputs", metavar="ADDRESS")] = Field(
        "127.0.0.1",
        min_length=1,
        description="interface of all ports; 0.0.0.0: any host can read, without authentication",
    )
    output_port: Annotated[
        int, opt("-o --output_port --output-port", "Outputs", metavar="PORT")
    ] = Field(
        8082,
        ge=0,
        le=_PORT,
        description=(
            "port on which the stream is pushed; the next two ports are used for ranges and"
            " status; 0: any free port"
        ),
    )
    range_port: Annotated[int | None, opt("--range-port", "Outputs", metavar="PORT")] = Field(
        None, ge=0, le=_PORT, description="port of ranges; default: the output port + 1"
    )
    rest_port: Annotated[int | None, opt("--rest-port", "Outputs", metavar="PORT")] = Field(
        None,
        ge=0,
        le=_PORT,
        description="port of status and metrics (HTTP); default: the output port + 2",
    )
    no_rest: Annotated[bool, opt("--no-rest", "Outputs")] = Field(
        False, description="do not serve status over HTTP"
    )
    max_readers: Annotated[int, opt("--max-readers", "Outputs", metavar="N")] = Field(
        100, ge=1, description="maximum number of simultaneous readers of ranges"
    )
    reader_memory: Annotated[float, opt("--reader-memory", "Outputs", "MB", metavar="N")] = Field(
        64, ge=2, description="memory for messages in transfer to one reader"
    )
    analyzer: Annotated[bool, opt("--analyzer", "Reporting")] = Field(
        False, description="check the stream for anomalies, and report them at the end"
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
                f"STREAM: {self.stream!r} is not a stream; write tcp://host:port, {image_forms()}"
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
