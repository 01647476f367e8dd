"""Stages as programs of their own, controlled through their standard input, and supervised."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import msgspec

from pvapy_stream import settings as models
from pvapy_stream.accounting.ledger import Ledger, read_ledgers
from pvapy_stream.errors import LedgerError
from pvapy_stream.files.run_name import RUN
from pvapy_stream.launch.entry import GO
from pvapy_stream.launch.supervisor import Process, RestartPolicy, Restarts, Supervised
from pvapy_stream.signals import held_back

# Exit codes of programs that ended in order, though not well.
_IN_ORDER = (1, 2)
_TAIL = 4096  # bytes of the log that are shown


class EntryPoint(Enum):
    """Modules that are started as programs, from layers that may not import them."""

    COMMAND = "pvapy_stream.cli.main"
    STAGE = "pvapy_stream.cli.stage_program"

    def line(self, *args: object) -> list[str]:
        """The command line that starts it."""
        return [sys.executable, "-m", self.value, *map(str, args)]


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """What a program is: plain values only, so that it crosses to another host.

    Attributes:
        name: such as ``workers-2``; names its files.
        command: a command of ``pvapy-stream``.
        settings_class: its settings model, and `settings` the values; or
        argv: its arguments.
        env: what is set in its environment.
        has_ledger: whether it accounts for ids.
        place: name or address of the worker it must run on; "" for any.
    """

    name: str
    command: str
    settings_class: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    argv: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    has_ledger: bool = True
    place: str = ""

    @property
    def _fields(self) -> Mapping[str, Any]:
        """Those of its settings model."""
        return getattr(models, self.settings_class).model_fields if self.settings_class else {}

    @property
    def drain_timeout(self) -> float:
        """How long it may process what waits, once it is asked to stop, s."""
        default = self._fields["drain_timeout"].default if "drain_timeout" in self._fields else 0
        return float(self.settings.get("drain_timeout", default))

    def again(self, incarnation: int) -> ProgramSpec:
        """The same program for another incarnation: how often it was started, itself included."""
        if "incarnation" not in self._fields:
            return self
        return replace(self, settings={**self.settings, "incarnation": incarnation})


class Program(Process, Protocol):
    """A program that was started."""

    host: str

    def state(self) -> str:
        """What a source says: ready or done; "" before."""
        ...

    def ledgers(self) -> list[Ledger] | None:
        """Its account as last written; None before the first."""
        ...

    def log_tail(self) -> str:
        """The last lines of its log."""
        ...


class Launcher(Protocol):
    """Where programs are started.

    Attributes:
        address: of a cluster that runs steps too; "" for this machine.
    """

    address: str

    def start(self, spec: ProgramSpec, folder: Path, incarnation: int) -> Program:
        """Start a program whose files are in a folder."""
        ...

    def close(self) -> None:
        """Give back what was used."""


class LocalProgram:
    """A program on this machine.

    Args:
        spec: what it is.
        folder: where its log, ledger and state are.
        incarnation: how often it was started, itself included; each has a ledger of its own.
    """

    host = "localhost"

    def __init__(self, spec: ProgramSpec, folder: Path, incarnation: int) -> None:
        base = f"{spec.name}.{incarnation}"
        self._log = folder / "logs" / f"{spec.name}.log"
        self.ledger = folder / "extra" / f"{base}.ledger.json"
        self._state = folder / "tmp" / f"{base}.state"
        for file in (self._log, self.ledger, self._state):
            file.parent.mkdir(parents=True, exist_ok=True)
        # Of an earlier run in this folder.
        self.ledger.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)
        order: dict[str, object] = {"command": spec.command, "state": str(self._state)}
        if spec.argv is not None:
            order["argv"] = list(spec.argv)
        else:
            order["settings_class"] = spec.settings_class
            order["settings"] = dict(spec.settings)
            if spec.has_ledger:
                order["settings"]["ledger"] = str(self.ledger)
        with self._log.open("ab") as log, held_back():
            # What is before it is of other incarnations.
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                EntryPoint.STAGE.line(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **spec.env},
                # Ctrl-C at the terminal is for the workflow, which then stops its stages in order.
                start_new_session=True,
            )
        self.pid: int = self._process.pid
        self.send_word(msgspec.json.encode(order).decode())

    def poll(self) -> int | None:
        code = self._process.poll()
        if code is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        return code

    def send_word(self, word: str) -> None:
        pipe = self._process.stdin
        if pipe is not None:
            with contextlib.suppress(OSError, ValueError):
                pipe.write(word.encode() + b"\n")
                pipe.flush()

    def kill(self) -> None:
        # Its own children too: a writer of several files has them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(10)
        self.poll()

    def state(self) -> str:
        try:
            return self._state.read_text()
        except OSError:
            return ""

    def ledgers(self) -> list[Ledger] | None:
        try:
            return read_ledgers(self.ledger)
        except LedgerError:
            return None

    def log_tail(self) -> str:
        try:
            with self._log.open("rb") as log:
                log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - _TAIL))
                return log.read().decode(errors="replace")
        except OSError:
            return ""


class LocalPrograms:
    """Starts programs on this machine."""

    address = ""

    def start(self, spec: ProgramSpec, folder: Path, incarnation: int) -> LocalProgram:
        return LocalProgram(spec, folder, incarnation)

    def close(self) -> None:
        """Nothing is used."""


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
        self._last_tail = ""

    def start(self) -> None:
        """Start it.

        Raises:
            PvapyStreamError: it cannot be started here.
        """
        super().start()
        if self._going:
            super().send_word(GO)

    def send_word(self, word: str) -> None:
        """Send it a word; it gets ``go`` again after a restart."""
        self._going = self._going or word == GO
        super().send_word(word)

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
            return "it did not end when it was stopped, and was killed"
        return super().cause(process, code)

    def last_words(self, process: Program) -> str:
        lines = [line.strip() for line in process.log_tail().splitlines() if line.strip()]
        # What a summary says after an error is not the reason.
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or [""])[-1]

    def bury(self, process: Program, died: bool) -> None:
        self.past += process.ledgers() or []
        self._last_tail = process.log_tail()

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
        """The last lines of its log, also if it has ended."""
        return self.process.log_tail() if self.process is not None else self._last_tail
