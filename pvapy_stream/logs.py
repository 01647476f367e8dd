"""Where log messages go."""

from __future__ import annotations

import logging
from pathlib import Path

from pvapy_stream.errors import SettingsError
from pvapy_stream.settings import LoggingSettings

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def configure_logging(settings: LoggingSettings) -> None:
    """Send log messages to standard error or to the file that was asked for.

    Raises:
        SettingsError: the file cannot be written.
    """
    handler: logging.Handler
    if settings.log_file:
        try:
            handler = logging.FileHandler(Path(settings.log_file))
        except OSError as error:
            raise SettingsError(
                f"--log-file: cannot write {settings.log_file}: {error.strerror}"
            ) from error
    else:
        handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT))
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
