"""Where log messages go: to standard error, and to a file if one is asked for.

Processors log with the standard library, or with the incumbent's `LoggingManager`, which has a
level and handlers of its own. Both are written by the handlers here, each message once.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pvapy_stream.errors import SettingsError
from pvapy_stream.settings import LoggingSettings

# For `extra`: the program itself writes this to standard error; only the log file needs it.
TOLD: Mapping[str, object] = {"told_by_program": True}

_configured: list[LoggingSettings] = []


def configure_logging(settings: LoggingSettings) -> None:
    """Send log messages to standard error, and to the file that was asked for.

    Raises:
        SettingsError: the file cannot be written.
    """
    handlers: list[logging.Handler] = [_TerminalHandler()]
    if settings.log_file:
        handlers.append(_FileHandler(settings.log_file))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(settings.line_format))
    logging.basicConfig(level=settings.level, handlers=handlers, force=True)
    _adopt_logging_manager(settings.level)
    _configured[:] = [settings]


def logging_settings() -> LoggingSettings:
    """How this process logs, for a process that it starts."""
    if _configured:
        found = _configured[0]
        return LoggingSettings.of(
            log_level=found.log_level, log_file=found.log_file, log_format=found.log_format
        )
    # A program of its own that uses the package: its handlers stay its own.
    level = logging.getLogger().getEffectiveLevel()
    return LoggingSettings.of(log_level=logging.getLevelName(level))


def _adopt_logging_manager(level: int) -> None:
    """Have the incumbent's loggers use our level and our handlers."""
    try:
        from pvapy.utility.loggingManager import LoggingManager
    except ImportError:
        return
    # It makes no handler for a stream whose name is taken.
    name = getattr(sys.stdout, "name", "<stdout>")
    LoggingManager.addHandler(f"stream://{name}", logging.NullHandler())
    LoggingManager.setLogLevel(logging.getLevelName(level))


class _OnceHandler(logging.Handler):
    """Leaves out what another handler writes to the same place, such as one of a processor's."""

    def filter(self, record: logging.LogRecord) -> Any:
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            for other in logger.handlers:
                if other is not self and other.level <= record.levelno and self.is_same(other):
                    return False
            logger = logger.parent
        return super().filter(record)

    def is_same(self, other: logging.Handler) -> bool:
        """Whether another handler writes to the same place."""
        raise NotImplementedError


class _TerminalHandler(_OnceHandler):
    """Writes to what is standard error at the time: a live table takes its place for a while."""

    def filter(self, record: logging.LogRecord) -> Any:
        return not TOLD.keys() & record.__dict__.keys() and super().filter(record)

    def is_same(self, other: logging.Handler) -> bool:
        with suppress(AttributeError, OSError, ValueError):
            return isinstance(other, logging.StreamHandler) and other.stream.fileno() in (1, 2)
        return False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class _FileHandler(_OnceHandler):
    """Appends to a file, each message in one piece: several processes write to it."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self._path = os.path.abspath(file)
        try:
            self._file = io.FileIO(self._path, "a")
        except OSError as error:
            raise SettingsError(f"--log-file: cannot write {file}: {error.strerror}") from error

    def is_same(self, other: logging.Handler) -> bool:
        return isinstance(other, logging.FileHandler) and other.baseFilename == self._path

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._file.write(f"{self.format(record)}\n".encode("utf-8", "backslashreplace"))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._file.close()
        super().close()
