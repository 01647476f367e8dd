"""``dashboard`` (watch): serve a live page: stages, images, alarms, controls."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.errors import SettingsError
from pvapy_stream.plugins import require
from pvapy_stream.settings import DashboardSettings
from pvapy_stream.signals import run_until_signal

_EPILOG = """\
examples:
  pvapy-stream dashboard -sc 'det:status:*' --ids 1,2,3,4 -ic det:image
  pvapy-stream dashboard -sc 'det:*status*' --address 0.0.0.0 --token-file ~/.dashboard-token
Anyone who can reach the port can view the page; commands to stages need the token.
exit codes: 0 all well; 1 the page cannot be served; 2 wrong options
"""


def run(settings: DashboardSettings) -> int:
    """Serve until a signal comes.

    Raises:
        PvapyStreamError: the page cannot be served.
    """
    for module in ("fastapi", "uvicorn"):
        require(module, "web")
    # Imported late: --help and wrong options need neither EPICS nor a web server.
    from pvapy_stream.web.app import serve

    token = read_token(settings)

    def say(address: str) -> None:
        lines = [f"dashboard: {address}"]
        if not settings.read_only and not settings.token_file:
            lines.append(f"token for commands: {token}")
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()

    run_until_signal(lambda stop: serve(settings, token, say, stop))
    return 0


def read_token(settings: DashboardSettings) -> str:
    """The token of the file that was given, else a new one.

    Raises:
        SettingsError: the file cannot be read, or holds no token.
    """
    if not settings.token_file:
        return secrets.token_urlsafe(16)
    try:
        token = Path(settings.token_file).expanduser().read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(
            f"--token-file: cannot read {settings.token_file}: {error.strerror}"
        ) from error
    if len(token) < 8:
        raise SettingsError(f"--token-file: {settings.token_file} needs at least 8 characters")
    return token


COMMAND = SettingsCommand(
    "pvapy-stream dashboard",
    "Serve a live page: the chain, rates, queues, latency, images, alarms and controls.",
    DashboardSettings,
    run,
    _EPILOG,
)
main = COMMAND.main
