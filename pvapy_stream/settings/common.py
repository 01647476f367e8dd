"""Settings of every command: logging, the ledger."""

from __future__ import annotations

import logging
from typing import Annotated, TypeVar

from pydantic import Field, field_validator

from pvapy_stream.base_settings import Settings, opt
from pvapy_stream.errors import SettingsError
from pvapy_stream.settings.text_types import LogLevel, Names

Self = TypeVar("Self", bound="LedgerSettings")

_LINE_FORMATS = {
    "pvapy-stream": "%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    "pvapy": "%(asctime)s %(name)s %(levelname)s: %(message)s",
}


class LoggingSettings(Settings):
    """Level, file and format of log messages."""

    log_level: Annotated[LogLevel, opt("-ll --log-level", "Reporting", metavar="LEVEL")] = Field(
        None,
        description=(
            "lowest level that is logged: debug, info, warning (or warn), error, critical;"
            " default: warning"
        ),
    )
    log_file: Annotated[str | None, opt("-lf --log-file", "Reporting", metavar="FILE")] = Field(
        None, description="also log to this file, in addition to standard error"
    )
    log_format: Annotated[str, opt("--log-format", "Reporting", metavar="FORMAT")] = Field(
        "pvapy-stream",
        description=(
            "format of log lines: pvapy-stream, pvapy (as in PvaPy's programs), or a format"
            " string of Python's logging"
        ),
    )

    @property
    def level(self) -> int:
        """The numeric level of `logging`."""
        return getattr(logging, (self.log_level or "warning").upper())

    @property
    def line_format(self) -> str:
        """The format string for `logging`."""
        return _LINE_FORMATS.get(self.log_format, self.log_format)

    @field_validator("log_format")
    @classmethod
    def _is_a_format(cls, value: str) -> str:
        example = logging.LogRecord("name", logging.INFO, "file", 1, "message", (), None)
        try:
            logging.Formatter(_LINE_FORMATS.get(value, value)).format(example)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"is not a format of log lines ({error}); give {' or '.join(_LINE_FORMATS)}, or a"
                " text with fields such as %(asctime)s, %(levelname)s, %(name)s and %(message)s"
            ) from error
        return value


class LedgerSettings(Settings):
    """Where the ledger is written."""

    ledger: Annotated[str | None, opt("--ledger", "Accounting", metavar="FILE")] = Field(
        None, description="write the fate of every id to this JSON file, for pvapy-stream audit"
    )
    # No option: set by the program that restarts a stage.
    incarnation: int = Field(
        1, ge=1, description="how often the stage was started, including this time"
    )

    def again(self: Self, incarnation: int) -> Self:
        """The settings of a later incarnation."""
        return self.replace(incarnation=incarnation)


class StatusSettings(Settings):
    """Status channel of a program without a processor."""

    status_channel: Annotated[
        str | None, opt("-sc --status-channel", "Reporting", metavar="NAME")
    ] = Field(
        None,
        description=(
            "PVA channel with the status; _ means pvapy:KIND:ID:status; * is replaced by the id"
        ),
    )

    def status_names(self, kind: str, n: int = 1) -> list[str]:
        """Names of the status channels.

        Args:
            kind: of the program.
            n: how many it has; their ids begin with 1.

        Raises:
            SettingsError: there are several, and the name has no ``*``.
        """
        name = f"pvapy:{kind}:*:status" if self.status_channel == "_" else self.status_channel
        if not name:
            return []
        if n > 1 and "*" not in name:
            raise SettingsError(
                f"--status-channel {name}: each of the {n} channels of the channel map needs a"
                f" status channel; write it like {name}:*"
            )
        return [name.replace("*", str(number)) for number in range(1, n + 1)]


class HostSettings(Settings):
    """Host names that the HTTP servers of a program accept."""

    allow_host: Annotated[Names, opt("--allow-host", "HTTP", metavar="NAME", many=True)] = Field(
        (),
        description=(
            "further host names that HTTP requests may use, such as that of a proxy; IP"
            " addresses, localhost and the name of this machine are always accepted"
        ),
    )


class MetricsSettings(HostSettings):
    """Port and address of the metrics for Prometheus."""

    metrics_port: Annotated[int | None, opt("--metrics-port", "Metrics", metavar="PORT")] = Field(
        None,
        ge=0,
        le=65535,
        description="port of /metrics for Prometheus (needs the extra web); 0: any free port",
    )
    metrics_address: Annotated[str, opt("--metrics-address", "Metrics", metavar="HOST")] = Field(
        "127.0.0.1",
        min_length=1,
        description="address of /metrics; 0.0.0.0: reachable from other machines",
    )
