"""Programs of a run: started, and started again as a user would: another ledger, another file."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

END = 45.0  # s; longest time from the request to stop to the end
MOST_STARTS = 6
MARK = "CHAOS_RUN"  # in the environment of all processes of a run


class Program:
    """One program.

    Args:
        name: of its files.
        folder: where its output goes.
        words: its arguments, from how often it was started.
        env: what is added to the environment.
        file_limit: largest file it may write, bytes; 0 for no limit.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        words: Callable[[int], list[str]],
        env: Mapping[str, str],
        file_limit: int = 0,
    ) -> None:
        self.name = name
        self.starts = 0
        self.ending = False
        self._folder = folder
        self._words = words
        self._env = dict(env)
        self._limit = file_limit
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again."""
        self.starts += 1
        log = self._folder / f"{self.name}.{self.starts}.log"
        words = self._words(self.starts)
        with log.open("wb") as out:
            out.write((" ".join(words) + "\n").encode())
            out.flush()
            self.process = subprocess.Popen(
                [sys.executable, *words],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env={**os.environ, **self._env},
                start_new_session=True,
                preexec_fn=self._limit_files if self._limit else None,
            )

    def _limit_files(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._limit, self._limit))

    @property
    def running(self) -> bool:
        """Whether its first process runs."""
        return self.process.poll() is None

    def revive(self) -> bool:
        """Start it again when it ended before its time; whether it was started."""
        if self.running or self.ending or self.starts >= MOST_STARTS:
            return False
        self.start()
        return True

    def text(self) -> str:
        """What it printed since its last start."""
        log = self._folder / f"{self.name}.{self.starts}.log"
        return log.read_text(errors="replace")

    def workers(self) -> list[psutil.Process]:
        """The processes that can be hurt: itself, and the children that do its work."""
        try:
            me = psutil.Process(self.process.pid)
            return [me, *(c for c in me.children() if "spawn_main" in " ".join(c.cmdline()))]
        except psutil.Error:
            return []

    def tell(self, line: str) -> None:
        """Write a line to its standard input, if it still reads."""
        stream = self.process.stdin
        if stream is not None and self.running:
            try:
                stream.write(line.encode())
                stream.flush()
            except OSError:
                return

    def end(self) -> str:
        """Stop it in order; what was wrong with that, or ""."""
        self.ending = True
        if self.running:
            self.process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        try:
            code = self.process.wait(END)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
            return f"{self.name} did not end within {END:g} s of SIGTERM"
        if code < 0 and time.monotonic() - start > 0.1:
            return f"{self.name} ended by {signal.Signals(-code).name} at SIGTERM"
        return ""


def left_of(mark: str) -> list[psutil.Process]:
    """All processes of a run that still live."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
