"""Projects: a folder with a database of protocols, and a folder for each run."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pvapy_stream.errors import SettingsError, WorkflowError
from pvapy_stream.workflow.model.graph import Workflow
from pvapy_stream.workflow.model.node import Node
from pvapy_stream.workflow.model.streaming_stage import Site
from pvapy_stream.workflow.run.database import connect, explained, transaction
from pvapy_stream.workflow.run.free_ports import FreePorts
from pvapy_stream.workflow.run.steps import State

DATABASE = "project.sqlite"
_LOCK = "scheduler.lock"
_ROOT_VARIABLE = "PVAPY_STREAM_PROJECTS"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS protocols (
    id INTEGER PRIMARY KEY, label TEXT UNIQUE NOT NULL, class TEXT NOT NULL, params BLOB NOT NULL,
    after BLOB NOT NULL, comment TEXT NOT NULL, state TEXT NOT NULL, error TEXT NOT NULL,
    started REAL, ended REAL);
"""


@dataclass(frozen=True, slots=True)
class ProtocolRow:
    """A protocol as the database has it. Times: s since 1970."""

    id: int
    label: str
    class_name: str
    state: State
    error: str
    started: float | None
    ended: float | None


def projects_root() -> Path:
    """Default folder of projects."""
    return Path(os.environ.get(_ROOT_VARIABLE) or Path.home() / "pvapy_stream" / "projects")


class Project:
    """A project on disk; any number of processes may open it, only one may run it.

    Args:
        folder: folder of the project.

    Raises:
        SettingsError: there is no project.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).resolve()
        if not (self.folder / DATABASE).is_file():
            raise SettingsError(
                f"there is no project in {folder}; make one with pvapy-stream project create"
            )
        self._path = self.folder / DATABASE
        self._db = connect(self._path, _SCHEMA)
        self._planned: tuple[Workflow, Site] | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    # -- making and finding ----------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        name: str,
        flow: Workflow | None = None,
        location: Path | None = None,
        comment: str = "",
    ) -> Project:
        """Create a project.

        Args:
            name: also of its folder.
            flow: its protocols.
            location: folder to make it in; it is then linked from the projects' folder.
            comment: for people.

        Raises:
            SettingsError: it exists, or the name or the workflow is wrong.
            WorkflowError: the folder cannot be made.
        """
        if not re.fullmatch(r"[^/\s.][^/\n]*", name):
            raise SettingsError(f"{name!r} is not a valid name of a project")
        root = projects_root()
        link = root / name
        folder = (location or root) / name
        if link.exists() or link.is_symlink() or folder.exists():
            raise SettingsError(f"project {name!r} exists already in {folder}; choose another name")
        made = cls.create_in(folder, flow, comment)
        if location is not None and folder.resolve() != link.resolve():
            root.mkdir(parents=True, exist_ok=True)
            link.symlink_to(folder.resolve())
        return made

    @classmethod
    def create_in(cls, folder: Path, flow: Workflow | None = None, comment: str = "") -> Project:
        """Create a project in a folder that must not exist.

        Raises:
            SettingsError: the folder exists, or the workflow is wrong.
            WorkflowError: it cannot be made.
        """
        planned: tuple[Workflow, Site] | None = None
        if flow is not None:
            flow = flow.copy()
            planned = flow, _site_of(flow, folder.resolve())
            flow.plan(planned[1]).check()
        # Made aside and moved: another process sees a whole project or none.
        aside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
        try:
            aside.mkdir(parents=True)
            db = connect(aside / DATABASE, _SCHEMA)
            _fill(aside / DATABASE, db, flow or Workflow(), comment)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.close()
            # Fails where a folder is that is not empty.
            aside.rename(folder)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            if folder.exists():
                raise SettingsError(f"{folder} exists already; choose another name") from error
            raise WorkflowError(f"cannot make project {folder}: {error.strerror}") from error
        made = cls(folder)
        made._planned = planned
        return made

    @classmethod
    def find(cls, name: str) -> Project:
        """A project by its name, or by its folder.

        Raises:
            SettingsError: there is none; the message lists existing projects.
        """
        for folder in (projects_root() / name, Path(name)):
            if (folder / DATABASE).is_file():
                return cls(folder)
        known = ", ".join(project.name for project in list_projects()) or "none"
        raise SettingsError(
            f"there is no project {name!r} in {projects_root()} and no such folder; known: {known}"
        )

    # -- content ---------------------------------------------------------------------------------

    def workflow(self) -> Workflow:
        """The graph of its protocols.

        Raises:
            SettingsError: a class no longer exists.
        """
        meta = self.meta()
        flow = Workflow(
            meta.get("workflow") or self.name,
            meta.get("description", ""),
            meta.get("channels", ""),
            Path(meta.get("sources") or "."),
        )
        for label, class_name, params, after, comment in self._rows(
            "label, class, params, after, comment"
        ):
            flow.add_node(
                Node(
                    label,
                    class_name,
                    flow.find(class_name),
                    msgspec.json.decode(params),
                    tuple(msgspec.json.decode(after)),
                    comment,
                )
            )
        return flow

    def next_run(self, ignored: Iterable[str] = ()) -> tuple[Workflow, Site]:
        """The workflow and the site of a run, which has unique channel names and ports.

        The plan of a project that was created in this process is reused.

        Args:
            ignored: labels of protocols to skip.
        """
        planned, self._planned = self._planned, None
        without = frozenset(ignored)
        if planned is not None and not without:
            return planned
        flow = self.workflow()
        return flow, _site_of(flow, self.folder, without)

    def protocols(self) -> list[ProtocolRow]:
        """All protocols with their states."""
        rows = self._rows("id, label, class, state, error, started, ended")
        return [
            ProtocolRow(number, label, class_name, State(state), error, started, ended)
            for number, label, class_name, state, error, started, ended in rows
        ]

    def state_of(self, label: str) -> State:
        """State of a protocol."""
        return next(row.state for row in self.protocols() if row.label == label)

    def _rows(self, columns: str) -> list[Any]:
        with explained(self._path):
            query = f"SELECT {columns} FROM protocols ORDER BY id"  # noqa: S608 - constants
            return self._db.execute(query).fetchall()

    def meta(self) -> dict[str, Any]:
        """Values that belong to the whole project."""
        with explained(self._path):
            rows = self._db.execute("SELECT name, value FROM meta").fetchall()
        return {name: msgspec.json.decode(value) for name, value in rows}

    def set_state(self, label: str, state: State, error: str = "") -> None:
        """Write the state of a protocol, and the time when it starts or ends."""
        now = time.time()
        times = {
            State.LAUNCHED: ", started = :now, ended = NULL",
            State.FINISHED: ", ended = :now",
            State.FAILED: ", ended = :now",
            State.ABORTED: ", ended = :now",
        }
        values = {"label": label, "state": state.value, "error": error, "now": now}
        with transaction(self._db, self._path):
            self._db.execute(
                f"UPDATE protocols SET state = :state, error = :error{times.get(state, '')}"  # noqa: S608 - constants
                " WHERE label = :label",
                values,
            )

    def run_folder(self, label: str) -> Path:
        """Folder of a protocol's run."""
        number = next(row.id for row in self.protocols() if row.label == label)
        plain = re.sub(r"[^\w-]+", "_", label)
        return self.folder / "Runs" / f"{number:06d}_{plain}"

    # -- the one process that runs it ------------------------------------------------------------

    @contextmanager
    def scheduling(self) -> Iterator[None]:
        """Lock the project for this process, which runs it.

        The lock is released when the process ends, also by a kill.

        Raises:
            WorkflowError: another process runs it.
        """
        with (self.folder / _LOCK).open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise WorkflowError(
                    f"project {self.name} is run by process {self.scheduler_pid()}; stop it with"
                    f" pvapy-stream project stop {self.name}"
                ) from error
            lock.seek(0)
            lock.truncate()
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def scheduler_pid(self) -> int | None:
        """Process that runs the project; None if it does not run."""
        try:
            with (self.folder / _LOCK).open("r") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except OSError:
                    return int(lock.read() or 0) or None
        except OSError:
            return None
        return None

    @property
    def died(self) -> bool:
        """Whether the process that ran it has died before the run ended."""
        live = {State.SCHEDULED, State.LAUNCHED, State.RUNNING}
        return self.scheduler_pid() is None and any(r.state in live for r in self.protocols())

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def _site_of(flow: Workflow, folder: Path, ignored: frozenset[str] = frozenset()) -> Site:
    prefix = flow.channels or f"wf{uuid.uuid4().hex[:6]}:"
    return Site(prefix, folder, flow.sources, FreePorts(), ignored)


def _fill(path: Path, db: sqlite3.Connection, flow: Workflow, comment: str) -> None:
    meta = {
        "workflow": flow.name,
        "description": flow.description,
        "channels": flow.channels,
        "sources": str(flow.sources.absolute()),
        "comment": comment,
        "created": time.time(),
    }
    with transaction(db, path):
        db.executemany(
            "INSERT INTO meta VALUES (?, ?)",
            [(name, msgspec.json.encode(value)) for name, value in meta.items()],
        )
        db.executemany(
            "INSERT INTO protocols (label, class, params, after, comment, state, error)"
            " VALUES (?, ?, ?, ?, ?, ?, '')",
            [
                (
                    node.label,
                    node.class_name,
                    msgspec.json.encode(node.params, enc_hook=str),
                    msgspec.json.encode(node.after),
                    node.comment,
                    State.SAVED.value,
                )
                for node in flow.nodes.values()
            ],
        )


def list_projects() -> list[Project]:
    """All projects of the projects' folder."""
    root = projects_root()
    if not root.is_dir():
        return []
    return [Project(path) for path in sorted(root.iterdir()) if (path / DATABASE).is_file()]
