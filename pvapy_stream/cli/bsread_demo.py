"""``pvapy-stream demo --bsread``: simulator, buffer and writer, and a range with past pulses."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pvapy_stream.cli.console import make_console
from pvapy_stream.cli.writer_client import WriterClient
from pvapy_stream.errors import PvapyStreamError, SettingsError
from pvapy_stream.launch.programs import EntryPoint
from pvapy_stream.plugins import require
from pvapy_stream.signals import run_until_signal

_CAMERA = ("--camera", "320x256", "--camera-compression", "bitshuffle_lz4")
_READY_TIMEOUT = 30.0  # s; starting three processes on a busy machine
_END_TIMEOUT = 20.0  # s
_PAST = 50  # pulses
_GENERAL = {
    "general/created": "by pvapy-stream demo --bsread",
    "general/user": "demo",
    "general/process": "demo",
    "general/instrument": "simulator",
}

_NEXT = """\
The same by hand, in three terminals, and the calls in a fourth:
  pvapy-stream bsread-sim -ns 10
  pvapy-stream bsread-buffer tcp://127.0.0.1:9999
  pvapy-stream bsread-writer buffer://127.0.0.1:8083 run.h5 -1 8888
  pvapy-stream bsread-client start --pulse-id N        (N: see http://127.0.0.1:8084/status)
  pvapy-stream bsread-client stop --pulse-id M --wait
"""


def run_demo(folder: str | None, n_pulses: int) -> int:
    """Run it; 0 when every pulse of the range is in the file.

    Raises:
        PvapyStreamError: too few pulses, or a part did not start.
    """
    if n_pulses <= _PAST:
        raise SettingsError(f"--pulses: must be more than {_PAST} (given {n_pulses})")
    path = Path(folder or tempfile.mkdtemp(prefix="pvapy-stream-demo-bsread-"))
    return run_until_signal(WriterDemo(path, n_pulses).run)


class WriterDemo:
    """The chain: simulator, buffer, writer.

    Args:
        folder: folder of the file and the logs.
        n_pulses: how many are written.
    """

    def __init__(self, folder: Path, n_pulses: int) -> None:
        self._folder = folder
        self._n_pulses = n_pulses
        self._console = make_console()
        self._programs: list[subprocess.Popen[bytes]] = []

    def run(self, stop: threading.Event) -> int:
        """Run to the end; 0 when every pulse of the range is in the file.

        Raises:
            PvapyStreamError: a part did not start, or refused.
        """
        require("fastapi", "web")
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            return self._acquire(stop)
        finally:
            for program in reversed(self._programs):
                _end(program)

    def _acquire(self, stop: threading.Event) -> int:
        file = self._folder / "run.h5"
        stream = self._start(stop, r"on (tcp://\S+)", "bsread-sim", "-a", "tcp://127.0.0.1:0",
                             *_CAMERA)  # fmt: skip
        ranges, status = self._start(
            stop, r"ranges tcp://([^;\s]+); status (\S+)", "bsread-buffer", stream,
            "-o", "0", "--range-port", "0", "--rest-port", "0", "-b", "1000",
        )  # fmt: skip
        url = self._start(
            stop, r"(http://\S+)", "bsread-writer", f"buffer://{ranges}", str(file), "-1", "0"
        )
        newest = _wait(lambda: _newest(status), stop, "100 pulses in the buffer")
        client = WriterClient(url, timeout=self._n_pulses / 100 + _END_TIMEOUT)
        client.ask("POST", "parameters", _GENERAL)
        first, last = newest - _PAST + 1, newest - _PAST + self._n_pulses
        self._say(f"The source is at pulse {newest}; requesting pulses {first} to {last}.")
        client.start(first, stop_pulse_id=last)
        self._follow(client, stop)
        return self._report(file, first, last)

    def _start(self, stop: threading.Event, pattern: str, *args: str) -> Any:
        """Start a command and wait for its message that it is ready."""
        self._say(f"$ pvapy-stream {' '.join(args)}")
        path = self._folder / f"{args[0]}.log"
        with path.open("wb") as log:
            program = subprocess.Popen(EntryPoint.COMMAND.line(*args), stdout=log, stderr=log)
        self._programs.append(program)

        def ready() -> Any:
            found = re.search(pattern, path.read_text())
            if not found and program.poll() is not None:
                raise PvapyStreamError(f"{args[0]} ended early; see {path}")
            return found

        found = _wait(ready, stop, f"{args[0]}; see {path}")
        return found[1] if len(found.groups()) == 1 else found.groups()

    def _follow(self, client: WriterClient, stop: threading.Event) -> None:
        while not stop.wait(0.5):
            reply = client.ask("GET", "statistics")
            found = reply["statistics"]
            self._say(
                f"  {reply['status']}: {found['n_rows']} rows, last pulse"
                f" {found['last_pulse_id']}, {found['rate']:.0f} messages/s, lag"
                f" {found['lag'] or 0:.2f} s, {found['n_lost']} lost"
            )
            if reply["status"] in ("done", "error"):
                return

    def _report(self, file: Path, first: int, last: int) -> int:
        from pvapy_stream.files.completeness import verify

        report = verify(file)
        whole = report.ok and str(report.ids) == f"{first}-{last}"
        self._say(f"{file}: {report.n_images} rows, pulses {report.ids}")
        for line in (*report.problems, *(f"{what}: {ids}" for what, ids in report.lost.items())):
            self._say(f"  {line}")
        self._say(
            "All requested pulses are in the file."
            if whole
            else "NOT all requested pulses are in the file."
        )
        self._say(_NEXT)
        return 0 if whole else 1

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)


def _newest(status: str) -> int | None:
    """The buffer's newest pulse, when it has enough pulses before it."""
    with urllib.request.urlopen(status, timeout=5) as answer:  # noqa: S310 - our own, http
        found = json.load(answer)
    newest = found["newest"]
    return newest if newest is not None and found["messages"] >= 2 * _PAST else None


def _wait(condition: Callable[[], Any], stop: threading.Event, what: str) -> Any:
    deadline = time.monotonic() + _READY_TIMEOUT
    while not (value := condition()):
        if stop.wait(0.1):
            raise PvapyStreamError("interrupted")
        if time.monotonic() > deadline:
            raise PvapyStreamError(f"not within {_READY_TIMEOUT:g} s: {what}")
    return value


def _end(program: subprocess.Popen[bytes]) -> None:
    if program.poll() is None:
        program.terminate()
    try:
        program.wait(_END_TIMEOUT)
    except subprocess.TimeoutExpired:
        program.kill()
