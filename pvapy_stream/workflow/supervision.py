"""A program under supervision: started again when it dies, with growing pauses, within limits."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.hpc.launch.programs import Launcher, Program, ProgramSpec

_FIRST_PAUSE = 0.2  # s
_LONGEST_PAUSE = 20.0  # s
_HEALTHY_AFTER = 120.0  # s; who lived this long starts with a short pause, and a new count

_log = logging.getLogger(__name__)


class Supervised:
    """One program of a stage, over all its incarnations.

    Args:
        spec: what it is.
        folder: where its files are.
        launcher: starts it.
        max_restarts: how often it is started again, within `_HEALTHY_AFTER`.
        say: takes a line about what happened.

    Attributes:
        problem: why the run must not count as a success, or "".
        ended: it will not run again.
        gave_up: it died, and was not started again.
    """

    def __init__(
        self,
        spec: ProgramSpec,
        folder: Path,
        launcher: Launcher,
        max_restarts: int,
        say: Callable[[str], None],
    ) -> None:
        self.spec = spec
        self._folder = folder
        self._launcher = launcher
        self._max_restarts = max_restarts
        self._say = say
        self.program: Program | None = None
        self.incarnation = 0
        self.restarts = 0
        self.problem = ""
        self.ended = False
        self.gave_up = False
        self._asked = False
        self._started_at = 0.0
        self._start_again_at: float | None = None
        self._going = False
        # Accounts of incarnations that ended; of those that died, the last they wrote.
        self.past: list[Ledger] = []
        self.killed: list[Ledger] = []

    def start(self) -> None:
        """Start it.

        Raises:
            PvapyStreamError: it cannot be started here.
        """
        self.incarnation += 1
        self._start_again_at = None
        self._started_at = time.monotonic()
        self.program = self._launcher.start(self.spec, self._folder, self.incarnation)
        if self._going:
            self.program.tell("go")

    def tell(self, word: str) -> None:
        """Send it a word: go, finish or stop."""
        self._going = self._going or word == "go"
        self._asked = self._asked or word == "stop"
        if self._asked and self.program is None:
            self.ended = True
        if self.program is not None:
            self.program.tell(word)

    def kill(self) -> None:
        """End it by force."""
        if self.program is not None and not self.ended:
            self.problem = f"{self.spec.name} did not end when it was asked to and was killed"
            self._say(self.problem)
            self.program.kill()

    def poll(self) -> None:
        """Look after it: bury it, or start it again when its pause is over."""
        now = time.monotonic()
        if self._start_again_at is not None and now >= self._start_again_at:
            self._try_start()
        program = self.program
        if program is None or self.ended:
            return
        code = program.poll()
        if code is not None:
            self._bury(program, code, now)

    def _try_start(self) -> None:
        try:
            self.start()
        except Exception as error:
            self._give_up(f"{self.spec.name} cannot be started again: {error}")

    def _bury(self, program: Program, code: int, now: float) -> None:
        name = self.spec.name
        accounts = program.ledgers() or []
        self.past += accounts
        self.program = None
        if code == 0 or (code > 0 and (self._asked or accounts_closed(code))):
            self.ended = True
            if code:
                self.gave_up = True
                self.problem = f"{name} ended with exit code {code}: {_last_line(program)}"
                self._say(self.problem)
            return
        self.killed += accounts
        how = _words(code)
        if now - self._started_at > _HEALTHY_AFTER:
            self.restarts = 0
        if self._asked or self.restarts >= self._max_restarts:
            last = _last_line(program)
            after = f" after {self.restarts} restarts" if self.restarts else ""
            self._give_up(f"{name} died ({how}){after}{': ' + last if last else ''}")
            return
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self.restarts)
        self.restarts += 1
        self.problem = f"{name} died ({how}) and was started again"
        self._say(
            f"{name} died ({how}); restart {self.restarts} of at most {self._max_restarts} in"
            f" {pause:g} s"
        )
        self._start_again_at = now + pause

    def _give_up(self, problem: str) -> None:
        self.ended = self.gave_up = True
        self.problem = problem
        self._start_again_at = None
        self._say(problem)

    def ledgers(self) -> list[Ledger]:
        """Accounts of all incarnations, as last written."""
        current = self.program.ledgers() if self.program is not None else None
        return self.past + (current or [])

    def now(self) -> list[Ledger]:
        """The account of the present incarnation alone."""
        return (self.program.ledgers() if self.program is not None else None) or []

    def state(self) -> str:
        """What a source says: ready or done; of a program that ended, done."""
        return self.program.state() if self.program is not None else "done"

    def log_tail(self) -> str:
        """The last lines of its log."""
        return self.program.log_tail() if self.program is not None else ""


def accounts_closed(code: int) -> bool:
    """Whether an exit code is of a program that ended in order, though not well."""
    return code in (1, 2)


def _last_line(program: Program) -> str:
    lines = [line for line in program.log_tail().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _words(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
