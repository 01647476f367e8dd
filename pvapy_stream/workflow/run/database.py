"""SQLite as all of a workflow's files use it: safe against two processes and a killed one."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pvapy_stream.errors import WorkflowError

_PATIENCE = 15.0  # s; how long another process may hold a database


def connect(path: Path, schema: str = "", patience: float = _PATIENCE) -> sqlite3.Connection:
    """Open a database, making it and its tables where they are missing.

    Readers do not wait for the writer (WAL); what was committed survives a killed process.

    Raises:
        WorkflowError: it cannot be opened, or is locked.
    """
    with explained(path):
        # Each holder has a lock of its own; the check of the module would forbid even that.
        connection = sqlite3.connect(
            path, timeout=patience, isolation_level=None, check_same_thread=False
        )
        deadline = time.monotonic() + patience
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                if schema:
                    connection.executescript(schema)
                return connection
            except sqlite3.Error as error:
                # Two processes that make a database at once do not wait for each other by
                # themselves.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    connection.close()
                    raise
                time.sleep(0.02)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, with the file and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "locked" in text or "busy" in text:
            hint = f"another process has locked it for more than {_PATIENCE:g} s; end that process"
        elif "full" in text:
            hint = "free space on the disk, then resume"
        elif "not a database" in text:
            hint = "it is another kind of file; give the right one"
        else:
            hint = "check the folder, its permissions and the disk"
        raise WorkflowError(f"database {path}: {text}; {hint}") from error


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """All or nothing.

    Raises:
        WorkflowError: it could not be written; nothing of it was.
    """
    with explained(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
