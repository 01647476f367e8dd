"""Steps of a run and their states; stored in SQLite."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
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
    on_need: Callable[[Step, Sequence[int]], None] | None = field(default=None, repr=False)

    def add_prerequisites(self, *steps: Step | int) -> None:
        """Let it wait for further steps, such as those that `steps_check` has inserted.

        A step that an earlier run finished is run again after them.

        Raises:
            WorkflowError: it is running or has ended.
        """
        if self.on_need is None:
            raise WorkflowError(f"{self.words} belongs to no run")
        self.on_need(self, [id_of(one) for one in steps])

    def release(self) -> None:
        """Set a waiting step to new: it runs when its prerequisites have finished."""
        if self.state is State.WAITING and self.on_release is not None:
            self.on_release(self)

    @property
    def words(self) -> str:
        """Such as ``step 3 (register)``."""
        return f"step {self.id} ({self.name})"

    def row(self) -> tuple[Any, ...]:
        """As the database has it."""
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


def id_of(step: Step | int) -> int:
    """The id of a step that is given as itself or as its id."""
    return step.id if isinstance(step, Step) else int(step)


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
