"""What all commands share: errors and exit codes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from pvapy_stream.early import collect_garbage, is_program
from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.files.disk import failed_to_close
from pvapy_stream.signals import leave_by_force

_INTERRUPTED = 128 + signal.SIGINT  # as shells have it


def exit_code(run: Callable[[], int]) -> int:
    """Run a command; errors of this package become one line on standard error and an exit code.

    Ctrl-C that is not handled elsewhere ends the command without a message.
    """
    collect_garbage()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        # Until here it ended the program at once; now there may be something to clean up.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = _code_of(run)
    if failed_to_close() and is_program():
        leave_by_force(code)
    return code


def _code_of(run: Callable[[], int]) -> int:
    try:
        return run()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except PvapyStreamError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
