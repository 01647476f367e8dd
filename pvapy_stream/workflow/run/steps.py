"""Steps of a run, with prerequisites and states; stored in SQLite."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

from pvapy_stream.errors import WorkflowError
from pvapy_stream.workflow.run.database import connect, explained, transaction

_SCHEMA = """
CREATE TABLE IF NOT EXISTS steps (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, args BLOB NOT NULL, prerequisites BLOB NOT NULL,
    state TEXT NOT NULL, dynamic INTEGER NOT NULL, waits INTEGER NOT NULL, results BLOB NOT NULL,
    error TEXT NOT NULL, started REAL, ended REAL);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""
_COLUMNS = "id, name, args, prerequisites, state, dynamic, waits, results, error, started, ended"


class State(str, Enum):
    """State of a step or of a protocol; only protocols have the last three."""

    NEW = "new"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    WAITING = "waiting"
    ABORTED = "aborted"
    SAVED = "saved"
    SCHEDULED = "scheduled"
    LAUNCHED = "launched"


ENDED = frozenset({State.FINISHED, State.FAILED, State.ABORTED})


@dataclass(slots=True, eq=False)
class Step:
    """One step; use it as a prerequisite of others, or to release it.

    Attributes:
        id: from 1 on, in the order of insertion.
        name: method of the protocol, or ``module:function``.
        args: plain values.
        prerequisites: ids of steps that must have finished.
        dynamic: whether it was inserted while the protocol ran.
        waits: whether it does not run until it is released.
        results: paths it returned.
    """

    id: int
    name: str
    args: bytes
    prerequisites: tuple[int, ...]
    state: State = State.NEW
    dynamic: bool = False
    waits: bool = False
    results: list[str] = field(default_factory=list)
    error: str = ""
    started: float | None = None
    ended: float | None = None
    on_release: Callable[[Step], None] | None = field(default=None, repr=False)

    def release(self) -> None:
        """Set a waiting step to new: it runs when its prerequisites have finished."""
        if self.state is State.WAITING and self.on_release is not None:
            self.on_release(self)

    @property
    def words(self) -> str:
        """Such as ``step 3 (register)``."""
        return f"step {self.id} ({self.name})"

    def row(self) -> tuple[Any, ...]:
        """As it stands in the database."""
        return (
            self.id,
            self.name,
            self.args,
            msgspec.json.encode(self.prerequisites),
            self.state.value,
            self.dynamic,
            self.waits,
            msgspec.json.encode(self.results),
            self.error,
            self.started,
            self.ended,
        )


class StepStore:
    """The database of one run: its steps, and small values such as positions in input sets.

    What is put is written by `commit`, all of it in one transaction.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = connect(path, _SCHEMA)
        self._steps: dict[int, Step] = {}
        self._values: dict[str, object] = {}
        self._lock = threading.Lock()

    def load(self) -> list[Step]:
        """Steps of an earlier run."""
        with explained(self.path):
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM steps ORDER BY id").fetchall()  # noqa: S608 - constants
        return [
            Step(
                row[0],
                row[1],
                row[2],
                tuple(msgspec.json.decode(row[3])),
                State(row[4]),
                bool(row[5]),
                bool(row[6]),
                msgspec.json.decode(row[7]),
                *row[8:],
            )
            for row in rows
        ]

    def count_states(self) -> dict[str, int]:
        """How many steps are in each state."""
        with explained(self.path):
            query = "SELECT state, count(*) FROM steps GROUP BY state"
            return dict(self._db.execute(query).fetchall())

    def clear_steps(self) -> None:
        """Forget all steps; `put` those that stay."""
        with transaction(self._db, self.path):
            self._db.execute("DELETE FROM steps")

    def put(self, step: Step) -> None:
        """Keep a step as it is now."""
        with self._lock:
            self._steps[step.id] = step

    def put_value(self, name: str, value: object) -> None:
        """Keep a plain value."""
        with self._lock:
            self._values[name] = value

    def value(self, name: str, default: Any = None) -> Any:
        """A value that was kept."""
        with self._lock:
            if name in self._values:
                return self._values[name]
        with explained(self.path):
            row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return msgspec.json.decode(row[0]) if row else default

    def commit(self) -> None:
        """Write what was put.

        Raises:
            WorkflowError: it cannot be written.
        """
        with self._lock:
            rows = [step.row() for step in self._steps.values()]
            values = [(name, msgspec.json.encode(v)) for name, v in self._values.items()]
            if not rows and not values:
                return
            with transaction(self._db, self.path):
                self._db.executemany(
                    f"INSERT OR REPLACE INTO steps ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)",  # noqa: S608 - constants
                    rows,
                )
                self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values)
            self._steps.clear()
            self._values.clear()

    def close(self) -> None:
        """Write what was put, and close the file."""
        try:
            self.commit()
        finally:
            self._db.close()


class StepGraph:
    """Steps and what they wait for; says which can run. Any thread may insert and release."""

    def __init__(self, store: StepStore) -> None:
        self._store = store
        self._lock = threading.RLock()
        self.steps: dict[int, Step] = {}
        self._open_needs: dict[int, int] = {}
        self._needed_by: dict[int, list[int]] = {}
        self._ready: dict[int, None] = {}
        self._waiting: set[int] = set()
        # Steps of an earlier run that the new one may insert again, by name and arguments.
        self._earlier: dict[tuple[str, bytes], list[Step]] = {}
        self._next_id = 1
        self.last: Step | None = None

    def resume(self, stored: Iterable[Step]) -> None:
        """Remember the steps of an earlier run.

        Those inserted while it ran are taken over as they are, once the others are inserted.
        """
        self._store.clear_steps()
        for step in stored:
            self._earlier.setdefault((step.name, step.args), []).append(step)
            self._next_id = max(self._next_id, step.id + 1)

    def insert(
        self,
        name: str,
        args: Sequence[object],
        prerequisites: Iterable[Step | int] | None,
        *,
        wait: bool = False,
        dynamic: bool = False,
    ) -> Step:
        """Insert a step, or find the one an earlier run inserted with this name and arguments.

        Args:
            name: method of the protocol, or ``module:function``.
            args: plain values.
            prerequisites: None for the step inserted before, [] for none.
            wait: it does not run until it is released.
            dynamic: the protocol runs already.

        Raises:
            WorkflowError: the arguments are no plain values.
        """
        try:
            encoded = msgspec.json.encode(list(args))
        except (TypeError, OverflowError) as error:
            raise WorkflowError(
                f"step {name}: its arguments cannot be kept ({error}); pass numbers, text, lists,"
                " dicts or paths"
            ) from error
        with self._lock:
            if prerequisites is None:
                needs = (self.last.id,) if self.last else ()
            else:
                needs = tuple(p.id if isinstance(p, Step) else int(p) for p in prerequisites)
            earlier = self._earlier.get((name, encoded))
            if earlier:
                step = self._again(earlier.pop(0), needs, wait)
            else:
                step = Step(self._next_id, name, encoded, needs, dynamic=dynamic, waits=wait)
                self._next_id += 1
            if step.id not in self.steps:
                self._add(step)
            self.last = step
            return step

    def _again(self, step: Step, needs: tuple[int, ...], wait: bool) -> Step:
        """A step of an earlier run: finished only if its results are there and its needs kept."""
        if step.id in self.steps:
            return step
        step.prerequisites, step.waits = needs, wait
        kept = all(n in self.steps and self.steps[n].state is State.FINISHED for n in needs)
        there = all(Path(path).exists() for path in step.results)
        if not (step.state is State.FINISHED and kept and there):
            step.state, step.error, step.results = State.NEW, "", []
        return step

    def adopt_dynamic(self) -> None:
        """Take over what an earlier run inserted while it ran, and forget what does not fit."""
        with self._lock:
            left = sorted((s for same in self._earlier.values() for s in same), key=lambda s: s.id)
            for step in left:
                if step.dynamic:
                    self._add(self._again(step, step.prerequisites, step.waits))
                else:
                    self._earlier[(step.name, step.args)].remove(step)

    def _add(self, step: Step) -> None:
        step.on_release = self._release
        self.steps[step.id] = step
        if step.state is not State.FINISHED:
            step.state = State.WAITING if step.waits else State.NEW
            open_needs = 0
            for need in set(step.prerequisites):
                if need not in self.steps or self.steps[need].state is not State.FINISHED:
                    self._needed_by.setdefault(need, []).append(step.id)
                    open_needs += 1
            self._open_needs[step.id] = open_needs
            if step.waits:
                self._waiting.add(step.id)
            elif not open_needs:
                self._ready[step.id] = None
        else:
            self._tell(step.id)
        self._store.put(step)

    def _release(self, step: Step) -> None:
        with self._lock:
            if step.state is State.WAITING:
                step.state = State.NEW
                step.waits = False
                self._waiting.discard(step.id)
                if not self._open_needs[step.id]:
                    self._ready[step.id] = None
                self._store.put(step)

    def _tell(self, finished: int) -> None:
        for number in self._needed_by.pop(finished, ()):
            self._open_needs[number] -= 1
            if not self._open_needs[number] and self.steps[number].state is State.NEW:
                self._ready[number] = None

    def next(self) -> Step | None:
        """A step that can run; it is running now."""
        with self._lock:
            if not self._ready:
                return None
            number = next(iter(self._ready))
            del self._ready[number]
            step = self.steps[number]
            step.state, step.started = State.RUNNING, time.time()
            self._store.put(step)
            return step

    def finish(self, step: Step, results: list[str]) -> None:
        """A step has done its work."""
        with self._lock:
            step.state, step.results, step.ended = State.FINISHED, results, time.time()
            self._open_needs.pop(step.id, None)
            self._store.put(step)
            self._tell(step.id)

    def fail(self, step: Step, error: str) -> None:
        """A step has failed."""
        with self._lock:
            step.state, step.error, step.ended = State.FAILED, error, time.time()
            self._store.put(step)

    @property
    def waiting(self) -> bool:
        """Whether a step waits to be released."""
        return bool(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether a step can run."""
        return bool(self._ready)

    def unsatisfiable(self) -> list[tuple[Step, str]]:
        """Steps that can never run, when nothing runs and nothing waits; with the reason."""
        found: list[tuple[Step, str]] = []
        for step in self.steps.values():
            if step.state is State.NEW and step.id not in self._ready:
                needs = [n for n in step.prerequisites if not self._finished(n)]
                found.append((step, f"{step.words} can never run: {self._why(needs)}"))
        return found

    def _finished(self, number: int) -> bool:
        return number in self.steps and self.steps[number].state is State.FINISHED

    def _why(self, needs: list[int]) -> str:
        absent = [str(n) for n in needs if n not in self.steps]
        if absent:
            return f"it needs step {', '.join(absent)}, which does not exist"
        return "it needs " + ", ".join(
            f"{self.steps[n].words}, which is {self.steps[n].state.value}" for n in needs
        )
