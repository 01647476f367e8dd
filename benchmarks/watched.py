"""Stages of ours that are watched through their status channels."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence

import pvaccess as pva

from benchmarks.run import OURS, SETTLE, Consumer, channel, wait_for
from pvapy_stream.sim.chain_ready import wait_for_stages

_CONNECT = 30.0  # s
_BEHIND = 10.0  # s; the longest that the last frame may take


class Stage:
    """A consumer or collector that passes on in the mode in which it receives."""

    def __init__(self, kind: type[Consumer], source: str, mode: str, *args: object) -> None:
        self.status = channel("status")
        ways = ("-im", mode, "-om", "pvas" if mode == "pva" else mode)
        self.program = kind(OURS, source, *ways, "-sc", self.status, *args, runtime=0)
        self._pv = pva.Channel(self.status)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.program.__exit__()

    def processed(self) -> int:
        """Objects that are done."""
        return self._pv.get("field(processorStats)")["processorStats"]["nProcessed"]

    def wait_processed(self, n: int) -> None:
        """Wait until so many are done.

        Raises:
            TimeoutError: they are not.
        """
        wait_for(lambda: self.processed() >= n, _BEHIND, f"{n} frames: {self.program.text}")

    def finish(self) -> tuple[int, float]:
        """Stop it; how many objects it processed, and at how many a second."""
        text = self.program.interrupt()
        n, rate = (
            re.findall(rf"{name}\W+([\d.]+)", text) for name in ("nProcessed", "processedRate")
        )
        if not n or not rate:
            raise RuntimeError(f"no counts in what the stage printed: {text}")
        return int(n[0]), float(rate[0])


def connected(stages: Sequence[Stage]) -> None:
    """Wait until each has had its initial update.

    Raises:
        RuntimeError: one had none.
    """
    missing = wait_for_stages([stage.status for stage in stages], _CONNECT, threading.Event())
    if missing:
        raise RuntimeError(f"no object came: {[stage.program.text for stage in stages]}")
    time.sleep(SETTLE)
