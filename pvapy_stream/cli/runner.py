"""What all commands share: signals, errors, exit codes."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from pvapy_stream.errors import PvapyStreamError


def stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set; the second signal ends the program at once."""
    stop = threading.Event()

    def on_signal(number: int, _: Any) -> None:
        if stop.is_set():
            # The first one asked for an orderly end that did not come.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop


def exit_code(run: Callable[[], int]) -> int:
    """Run a command; our errors become one line on standard error and their exit code."""
    try:
        return run()
    except PvapyStreamError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
