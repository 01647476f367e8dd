"""Streaming sets: items in an SQLite file, open while more may come, closed at the end.

Any number of processes append and read; a reader sees an item within 0.2 s. A set that was closed
can be opened again and continued.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

from pvapy_stream.errors import WorkflowError
from pvapy_stream.workflow.run.database import connect, explained, transaction

Item = dict[str, Any]

_COMMIT_PERIOD = 0.08  # s; readers are promised 0.2
_MANY = 2000  # items after which the writer does not wait for the period
_PAGE = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, key TEXT UNIQUE, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


# Gives the items that a step appends their keys; set where steps are called.
key_maker: ContextVar[Callable[[], str] | None] = ContextVar("key_maker", default=None)


class StreamState(str, Enum):
    """Whether more items may come."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"


class StreamSet:
    """A set of items, each a dict of plain values, with an id from 1 on.

    Args:
        path: the SQLite file.
        properties: properties of all items, such as a sampling rate; given by the writer.

    Raises:
        WorkflowError: the file is missing, or is not a set.
    """

    def __init__(self, path: Path | str, db: sqlite3.Connection) -> None:
        self.path = Path(path)
        self._db = db
        self._lock = threading.RLock()
        self._pending: list[tuple[str | None, bytes]] = []
        self._committer: threading.Thread | None = None
        self._ended = threading.Event()
        self._failure: WorkflowError | None = None

    # -- opening ---------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path | str, properties: Mapping[str, object] | None = None) -> StreamSet:
        """Create a set, or continue an existing one; it is OPEN."""
        path = Path(path)
        made = cls(path, connect(path, _SCHEMA))
        made._write({"state": StreamState.OPEN.value})
        if properties:
            made.set_properties(**properties)
        return made

    @classmethod
    def join(cls, path: Path | str) -> StreamSet:
        """Open a set that another process made, to append to it; its state is unchanged."""
        path = Path(path)
        return cls(path, connect(path, _SCHEMA))

    @classmethod
    def read(cls, path: Path | str) -> StreamSet:
        """Open a set for reading."""
        path = Path(path)
        if not path.is_file():
            raise WorkflowError(f"set {path} does not exist; is its protocol running?")
        # With the tables: its writer may have made no more than the file yet.
        made = cls(path, connect(path, _SCHEMA))
        try:
            _ = made.state
        except WorkflowError:
            made.release()
            raise
        return made

    # -- reading ---------------------------------------------------------------------------------

    @property
    def state(self) -> StreamState:
        """OPEN or CLOSED."""
        return StreamState(self._meta().get("state", "OPEN"))

    @property
    def properties(self) -> dict[str, object]:
        """Properties of all items."""
        return {k: v for k, v in self._meta().items() if k != "state"}

    def __len__(self) -> int:
        """Number of items that readers see."""
        with self._lock, explained(self.path):
            (last,) = self._db.execute("SELECT max(id) FROM items").fetchone()
        # Ids have no gaps: nothing is ever deleted.
        return last or 0

    def __getitem__(self, number: int) -> Item:
        for item in self.page(number - 1, 1):
            if item["id"] == number:
                return item
        raise KeyError(number)

    def __iter__(self) -> Iterator[Item]:
        after = 0
        while page := self.page(after, _PAGE):
            yield from page
            after = page[-1]["id"]

    def page(self, after: int = 0, limit: int = _PAGE) -> list[Item]:
        """The next items after an id, at most `limit`; each with its ``id``."""
        with self._lock, explained(self.path):
            rows = self._db.execute(
                "SELECT id, data FROM items WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
            ).fetchall()
        return [{**msgspec.json.decode(data), "id": number} for number, data in rows]

    def _meta(self) -> dict[str, object]:
        with self._lock, explained(self.path):
            rows = self._db.execute("SELECT name, value FROM meta").fetchall()
        return {name: msgspec.json.decode(value) for name, value in rows}

    # -- writing ---------------------------------------------------------------------------------

    def append(self, item: Mapping[str, Any], key: str | None = None) -> None:
        """Append an item; its id is assigned when it is written.

        Args:
            item: plain values.
            key: identifies the item; an item whose key exists is not added. In a step, the default
                is made of the step and a number, so a step that is run again does not add items
                twice.

        Raises:
            WorkflowError: items cannot be written.
        """
        make_key = key_maker.get()
        if key is None and make_key is not None:
            key = make_key()
        data = msgspec.json.encode(dict(item))
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._pending.append((key, data))
            if len(self._pending) >= _MANY:
                self.flush()
            elif self._committer is None:
                self._committer = threading.Thread(
                    target=self._commit_now_and_then, name=f"set-{self.path.stem}", daemon=True
                )
                self._committer.start()

    def set_properties(self, **properties: object) -> None:
        """Set the properties of all items."""
        self._write(properties)

    def flush(self) -> None:
        """Write pending items, so that readers see them."""
        with self._lock:
            if not self._pending:
                return
            with transaction(self._db, self.path):
                self._db.executemany(
                    "INSERT INTO items (key, data) VALUES (?, ?) ON CONFLICT (key) DO NOTHING",
                    self._pending,
                )
            self._pending.clear()

    def close(self) -> None:
        """Write pending items, and CLOSE the set: no more items follow."""
        self._end_committer()
        try:
            self.flush()
        finally:
            self._write({"state": StreamState.CLOSED.value})
            self.release()

    def release(self) -> None:
        """Close the file; the state of the set is unchanged."""
        self._end_committer()
        with self._lock:
            self._db.close()

    def _write(self, values: Mapping[str, object]) -> None:
        rows = [(name, msgspec.json.encode(value)) for name, value in values.items()]
        with self._lock, transaction(self._db, self.path):
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def _end_committer(self) -> None:
        self._ended.set()
        if self._committer is not None:
            self._committer.join(30)

    def _commit_now_and_then(self) -> None:
        while not self._ended.wait(_COMMIT_PERIOD):
            try:
                self.flush()
            except WorkflowError as error:
                # Whoever appends next, or closes, gets the error.
                self._failure = error
                return


def close_set(path: Path) -> None:
    """CLOSE a set whose writer died."""
    if path.is_file():
        StreamSet.create(path).close()
