"""The tools of EPICS that follow channels."""

from __future__ import annotations

import queue
import signal
import subprocess
import threading
from typing import IO, Any

from tests.support import PATIENCE, TOOLS, as_json

# With any server, one in about a thousand does not begin: it finds no channel, or an update that
# comes very soon ends its monitor. Others have begun long before this, s.
_BEGINS = 20.0
_STARTS = 4


class Pvmonitor:
    """The program `pvmonitor`, which follows many channels; or `pvget -m`.

    Args:
        request: the fields and options.
        names: of the channels.
        program: the tool.
    """

    def __init__(self, request: str, *names: str, program: str = "pvmonitor") -> None:
        self._words = [TOOLS / program, *["-m"] * (program == "pvget"), "-M", "json", "-r", request]
        self._words += names
        self._starts = 0
        self._start()

    def _start(self) -> None:
        self._starts += 1
        self.process = subprocess.Popen(
            self._words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._began = False
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._came: dict[str, list[Any]] = {}
        threading.Thread(target=_read, args=(self.process.stdout, self._lines), daemon=True).start()

    def line(self) -> str:
        """The next line it prints."""
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE if self._began else _BEGINS)
            except queue.Empty:
                assert not self._began, f"{self._words[0]} prints nothing"
                line = ""
            fails = "bad_weak_ptr" in line or not (line or self._began)
            if not fails:
                assert line, f"{self._words[0]} has ended with {self.process.wait(PATIENCE)}"
                self._began = True
                return line
            assert self._starts < _STARTS, f"{self._words[0]} does not begin"
            self.close()
            self._start()

    def take(self, name: str) -> Any:
        """The next value of a channel."""
        while not self._came.get(name):
            shown, _, value = self.line().partition(" ")
            if value:
                self._came.setdefault(shown, []).append(as_json(value))
        return self._came[name].pop(0)

    def __call__(self, command: str, name: str) -> Any:
        """As the partners of other make are called."""
        assert command == "take"
        return self.take(name)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def close(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait(PATIENCE)


def _read(stream: IO[str] | None, lines: queue.SimpleQueue[str]) -> None:
    assert stream is not None
    with stream:
        for line in stream:
            lines.put(line)
    lines.put("")
