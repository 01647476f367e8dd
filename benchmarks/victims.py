"""Stages that are killed while they hold payloads in shared memory, and started again."""

from __future__ import annotations

import time
from contextlib import suppress

import pvaccess as pva

from benchmarks.run import OURS, PROCESSORS, Child, channel

_TRANSPOSE = ("-pf", PROCESSORS[OURS], "-pc", "Transpose")


class _Victim(Child):
    """A consumer that is stopped by SIGKILL alone."""

    def __init__(self, source: str, output: str, *processor: object) -> None:
        self._status = channel("victim")
        super().__init__(
            "pvapy_stream.cli.main", "consumer", "-ic", source, "-im", "shm", "-oc", output,
            "-om", "shm", "-sc", self._status, "-dc", "-rt", 0, *processor,
        )  # fmt: skip

    def processed(self) -> int:
        """Objects that are done; 0 if it does not answer."""
        pv = pva.Channel(self._status)
        pv.setTimeout(1.0)
        with suppress(pva.PvaException):
            return pv.get("field(processorStats)")["processorStats"]["nProcessed"]
        return 0


class Victims:
    """Two stages in a row beside a chain; they are killed in turns. A context manager.

    The first reads the pool of the source and has one of its own; the second reads that.

    Args:
        source: channel that they receive from.
        period: time between two kills, s.

    Attributes:
        kills: how many were killed.
        idle: how many of them had not processed anything.
        died: how many ended by themselves.
    """

    def __init__(self, source: str, period: float) -> None:
        self._between, self._end = channel("between"), channel("end")
        self._source = source
        self._period = period
        self.kills = self.idle = self.died = 0
        self._victims = [self._start(0), self._start(1)]
        # Both shall have frames before the first kill.
        self._due: float | None = None

    def __enter__(self) -> Victims:
        return self

    def __exit__(self, *_: object) -> None:
        for victim in self._victims:
            victim.__exit__()

    def _start(self, number: int) -> _Victim:
        if number:
            return _Victim(self._between, self._end)
        return _Victim(self._source, self._between, *_TRANSPOSE)

    def look(self) -> None:
        """Kill one if it is time, and start it again."""
        now = time.monotonic()
        if self._due is None:
            if all(victim.processed() for victim in self._victims):
                self._due = now + self._period
            return
        number = self.kills % len(self._victims)
        victim = self._victims[number]
        if now < self._due:
            return
        busy = victim.processed()
        if not busy and now < self._due + self._period:
            # It may take long to start on a busy machine.
            return
        self._due = now + self._period
        self.died += victim.ended
        self.idle += not busy
        self.kills += 1
        victim.__exit__()
        if victim.process.returncode != -9:
            print(f"a stage ended by itself: {victim.text}", flush=True)
        self._victims[number] = self._start(number)
