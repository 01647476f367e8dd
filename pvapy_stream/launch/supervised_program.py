"""A program of a workflow under supervision: its words, its ledgers, its log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.files.run import RUN
from pvapy_stream.launch.entry import GO
from pvapy_stream.launch.programs import Launcher, Program, ProgramSpec
from pvapy_stream.launch.supervisor import RestartPolicy, Restarts, Supervised

# Exit codes of programs that ended in order, though not well.
_IN_ORDER = (1, 2)


class SupervisedProgram(Supervised[Program]):
    """One program of a stage, over all its incarnations.

    Args:
        spec: what it is.
        folder: where its files are.
        launcher: starts it.
        policy: when it is started again.
        say: takes a line about what happened.
        waits: whether it begins its work with the word ``go``.

    Attributes:
        past: accounts of incarnations that ended, as they last wrote it.
    """

    def __init__(
        self,
        spec: ProgramSpec,
        folder: Path,
        launcher: Launcher,
        policy: RestartPolicy,
        say: Callable[[str], None],
        *,
        waits: bool = False,
    ) -> None:
        # A writer that is started again, or resumed on whatever host, replaces nothing of its run.
        own = replace(spec, env={RUN: str(folder.resolve()), **spec.env})
        super().__init__(
            spec.name,
            lambda number: launcher.start(own.again(number), folder, number),
            Restarts(policy),
            say,
        )
        self.spec = spec
        self._waits = waits
        self._going = False
        self._forced = False
        self.past: list[Ledger] = []

    def start(self) -> None:
        """Start it.

        Raises:
            PvapyStreamError: it cannot be started here.
        """
        super().start()
        if self._going:
            super().tell(GO)

    def tell(self, word: str) -> None:
        """Send it a word; it is told ``go`` again after a restart."""
        self._going = self._going or word == GO
        super().tell(word)

    def kill(self) -> None:
        """End it by force."""
        self._forced = True
        super().kill()

    def begun(self) -> bool:
        if self._waits:
            return self._going
        return not self.spec.has_ledger or bool(self.now())

    def judge(self, process: Program, code: int) -> str | None:
        if code == 0:
            return ""
        if code > 0 and (self.stopping or code in _IN_ORDER):
            why = f"{self.name} ended with exit code {code}: {self.last_words(process)}"
            self._say(why)
            return why
        return None

    def cause(self, process: Program, code: int) -> str:
        if self._forced:
            return "it did not end when it was asked to, and was killed"
        return super().cause(process, code)

    def last_words(self, process: Program) -> str:
        lines = [line for line in process.log_tail().splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""

    def bury(self, process: Program, died: bool) -> None:
        self.past += process.ledgers() or []

    def ledgers(self) -> list[Ledger]:
        """Accounts of all incarnations, as last written."""
        return self.past + self.now()

    def now(self) -> list[Ledger]:
        """The account of the present incarnation alone."""
        return (self.process.ledgers() if self.process is not None else None) or []

    def state(self) -> str:
        """What a source says: ready or done; of a program that ended, done."""
        return self.process.state() if self.process is not None else "done"

    def log_tail(self) -> str:
        """The last lines of its log."""
        return self.process.log_tail() if self.process is not None else ""
