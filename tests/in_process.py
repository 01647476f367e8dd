"""A command of the package, called in the process of the tests.

It costs no start of a program: for messages and refusals of commands whose start another test sees.
"""

from __future__ import annotations

import io
import logging
import signal
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

from pvapy_stream import logs
from pvapy_stream.cli.main import main
from pvapy_stream.signals import STOP_SIGNALS


class Called(NamedTuple):
    """A command that has ended: its exit code and what it printed, line by line."""

    code: int
    out: list[str]
    err: list[str]

    @property
    def text(self) -> str:
        return "".join(self.out) + "".join(self.err)


def call(*args: object) -> Called:
    """Call a command and wait for its end; what it sets for its process is set back."""
    out, err = io.StringIO(), io.StringIO()
    root = logging.getLogger()
    handlers, level, configured = root.handlers[:], root.level, logs._configured[:]
    taken = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = main([*map(str, args)])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
        root.handlers[:] = handlers
        root.setLevel(level)
        logs._configured[:] = configured
    return Called(code, out.getvalue().splitlines(True), err.getvalue().splitlines(True))
