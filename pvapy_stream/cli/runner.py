"""What all commands share: errors and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable

from pvapy_stream.errors import PvapyStreamError


def exit_code(run: Callable[[], int]) -> int:
    """Run a command; our errors become one line on standard error and their exit code."""
    try:
        return run()
    except PvapyStreamError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
