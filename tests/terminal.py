"""A terminal for programs under test, and what it shows."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from typing import IO

from tests.support import PATIENCE

_PARTS = re.compile(r"\x1b\[[?]?([0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """Lines of a terminal, with those that have scrolled out; knows what rich writes."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._row = self._column = 0
        self.lines = [""]

    def write(self, text: str) -> None:
        for number, code, control, plain in _PARTS.findall(text):
            if code == "A":
                self._row = max(0, self._row - int(number or 1))
            elif code == "K":
                self.lines[self._row] = ""
            elif control == "\r":
                self._column = 0
            elif control == "\n":
                self._new_line()
            elif plain:
                self._put(plain)

    def _new_line(self) -> None:
        self._row, self._column = self._row + 1, 0
        if self._row == len(self.lines):
            self.lines.append("")

    def _put(self, plain: str) -> None:
        for letter in plain:
            if self._column == self._columns:
                self._new_line()
            line = self.lines[self._row].ljust(self._column)
            self.lines[self._row] = line[: self._column] + letter + line[self._column + 1 :]
            self._column += 1


class TerminalProgram:
    """A command of the package on a terminal of its own.

    Args:
        columns: width of the terminal.
        args: command and options.
        errors: gets standard error in place of the terminal.

    Attributes:
        frames: what the terminal showed after each piece of output.
    """

    def __init__(self, columns: int, *args: object, errors: IO[str] | None = None) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        settings = termios.tcgetattr(slave)
        settings[1] &= ~termios.OPOST
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pvapy_stream.cli.main", *map(str, args)],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=errors if errors is not None else slave,
            env={**environment, "TERM": "xterm"},
            start_new_session=True,
        )
        os.close(slave)
        self._screen = Screen(columns)
        self.frames: list[list[str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._master, 65536)
            except OSError:
                return
            if not piece:
                return
            self._screen.write(piece.decode(errors="replace"))
            self.frames.append([line.rstrip() for line in self._screen.lines])

    @property
    def lines(self) -> list[str]:
        """What it shows now, and what has scrolled out."""
        return self.frames[-1] if self.frames else []

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(5)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._reader.join(5)
        os.close(self._master)
