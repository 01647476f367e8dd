"""Doing to programs what the plan says."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping

import psutil

from chaos.chain import Fault
from chaos.programs import Program
from chaos.proxy import Proxy


class Faults:
    """Does faults when they are due, each in a thread of its own when it lasts.

    Args:
        programs: all of the run.
        proxy: of the run, if it has one.
        channels: outputs and status channels that hostile clients put into.
    """

    def __init__(
        self, programs: Mapping[str, Program], proxy: Proxy | None, channels: list[str]
    ) -> None:
        self._programs = programs
        self._proxy = proxy
        self._channels = channels
        self._threads: list[threading.Thread] = []

    def do(self, fault: Fault) -> None:
        """Do one."""
        if fault.what in ("cut", "stall", "pause", "puts"):
            thread = threading.Thread(target=self._last, args=(fault,), name=fault.what)
            thread.start()
            self._threads.append(thread)
            return
        program = self._programs[fault.whom]
        found = program.workers()
        try:
            if fault.what == "kill" and found:
                found[fault.child % len(found)].kill()
            elif fault.what == "term" and program.running:
                program.process.send_signal(signal.SIGTERM)
            elif fault.what == "interrupt":
                # As Ctrl-C does it: the whole group of processes.
                for process in found:
                    process.send_signal(signal.SIGINT)
        except psutil.Error:
            return

    def join(self) -> None:
        """Wait until all that last are over."""
        for thread in self._threads:
            thread.join(30)

    @property
    def over(self) -> bool:
        """Whether none lasts any more."""
        return not any(thread.is_alive() for thread in self._threads)

    def _last(self, fault: Fault) -> None:
        if fault.what == "puts":
            self._put()
        elif fault.what == "pause":
            found = self._programs[fault.whom].workers()
            _pause(found[fault.child % len(found)] if found else None, fault.length)
        elif self._proxy is not None:
            self._proxy.cut() if fault.what == "cut" else self._proxy.stall()
            time.sleep(fault.length)
            self._proxy.mend()

    def _put(self) -> None:
        """Put foreign objects and values into channels that are not to be put into."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [sys.executable, "-m", "chaos.puts", *self._channels],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=20, check=False,
            )  # fmt: skip


def _pause(process: psutil.Process | None, seconds: float) -> None:
    if process is None:
        return
    try:
        process.suspend()
        time.sleep(seconds)
        process.resume()
    except psutil.Error:
        return
