"""A live display on a terminal; all other output scrolls above it."""

from __future__ import annotations

import fcntl
import os
import select
import sys
import threading
from contextlib import suppress

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from pvapy_stream.cli.console import make_console
from pvapy_stream.signals import forget_last_words, on_leaving

_PERIOD = 0.05  # s; lines are printed together, since each time the display is drawn anew
_LAST_LINES = 2.0  # s; for what is still to be printed at the end
_PIECE = 2**16
_PIPE_SIZE = 2**20  # code that holds Python's lock while it writes has to find room


class LiveDisplay:
    """Shows one item in place; output of this process and its children scrolls above it.

    Args:
        console: on the terminal that standard output is.
    """

    def __init__(self, console: Console) -> None:
        self._terminal = os.fdopen(
            os.dup(console.file.fileno()), "w", encoding=console.encoding, errors="replace"
        )
        self._console = make_console(file=self._terminal)
        self._fit()
        self._live = Live(
            console=self._console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        self._above = _OutputAbove(self._console)
        self._closed = False
        on_leaving(self.close)

    def _fit(self) -> None:
        """Read the size of the terminal, since standard output is redirected while this is open."""
        with suppress(OSError):
            size = os.get_terminal_size(self._terminal.fileno())
            if size.columns > 0:
                self._console.size = size

    def update(self, shown: RenderableType) -> None:
        """Replace the displayed item."""
        self._fit()
        self._live.update(shown)

    def close(self) -> None:
        """Remove the display, and print the remaining output."""
        if self._closed:
            return
        self._closed = True
        forget_last_words(self.close)
        self._live.stop()
        self._above.close()
        self._terminal.close()


class _OutputAbove:
    """Prints output to file descriptors 1 and 2 on a console, if they are terminals.

    A file to which standard error was sent stays as it is. Replacing the descriptors, and not the
    streams of Python, also takes what C libraries and child processes write.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._reading, writing = os.pipe()
        with suppress(OSError):
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        _flush()
        self._kept = {number: os.dup(number) for number in (1, 2) if os.isatty(number)}
        for number in self._kept:
            os.dup2(writing, number)
        os.close(writing)
        self._rest = b""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="output-above", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.wait(_PERIOD):
            self._print_what_came()
        self._print_what_came()
        if self._rest:
            self._print(self._rest)

    def _print_what_came(self) -> None:
        *lines, self._rest = (self._rest + self._read()).split(b"\n")
        if lines:
            self._print(b"\n".join(lines))

    def _read(self) -> bytes:
        pieces = b""
        # A child may hold the other end after us: there is no waiting for the end of it.
        while len(pieces) < 4 * _PIECE and select.select([self._reading], [], [], 0)[0]:
            piece = os.read(self._reading, _PIECE)
            if not piece:
                break
            pieces += piece
        return pieces

    def _print(self, lines: bytes) -> None:
        # A closed terminal must not end this: writers would wait for a reader.
        with suppress(Exception):
            text = Text.from_ansi(lines.decode("utf-8", "replace"))
            self._console.print(text, soft_wrap=True)

    def close(self) -> None:
        _flush()
        for number, kept in self._kept.items():
            os.dup2(kept, number)
            os.close(kept)
        self._ending.set()
        self._thread.join(_LAST_LINES)
        os.close(self._reading)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
