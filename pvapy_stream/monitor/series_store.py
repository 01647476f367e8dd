"""Series in an SQLite file: written by monitors, read by reports, downsampled."""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pvapy_stream.errors import MonitorError

if TYPE_CHECKING:
    from pvapy_stream.monitor.alarms import AlarmEvent

FORMAT = 1

_BUSY = 2.0  # s; how long a file that another program holds is waited for
_KEPT_IN_MEMORY = 100_000  # rows, while the file cannot be written
_KEPT_EVENTS = 10_000
_DAY = 86400.0
_PRUNE_PERIOD = 600.0  # s
# A time of day that jumps by more than this is not trusted to remove anything for a while.
_JUMP = 3600.0  # s

_SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, monitor TEXT NOT NULL, subject TEXT NOT NULL, quantity TEXT NOT NULL,
    unit TEXT NOT NULL, UNIQUE (monitor, subject, quantity));
CREATE TABLE IF NOT EXISTS samples (
    series INTEGER NOT NULL, time REAL NOT NULL, value REAL, PRIMARY KEY (series, time))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, monitor TEXT NOT NULL, subject TEXT NOT NULL,
    change TEXT NOT NULL, rule TEXT NOT NULL, value REAL, message TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS monitors (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, started REAL NOT NULL,
    updated REAL NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    monitor TEXT NOT NULL, subject TEXT NOT NULL, time REAL NOT NULL, caption TEXT NOT NULL,
    png BLOB NOT NULL, PRIMARY KEY (monitor, subject));
"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a series.

    Attributes:
        subject: what it is about: a path, a channel, a machine.
        quantity: such as ``free``.
        value: NaN when there is none.
        unit: of the value.
        time: when it was so, s since 1970; None: now.
    """

    subject: str
    quantity: str
    value: float
    unit: str = ""
    time: float | None = None


def connect(path: str | Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a file with series.

    Raises:
        MonitorError: it is missing, of another version, or no SQLite file.
    """
    path = str(path)
    try:
        if read_only:
            if not Path(path).is_file():
                raise MonitorError(f"there is no file {path}; is it the --series of a monitor?")
            uri = Path(path).absolute().as_uri() + "?mode=ro"
            connection = sqlite3.connect(uri, _BUSY, uri=True, check_same_thread=False)
        else:
            connection = sqlite3.connect(path, _BUSY, check_same_thread=False)
        connection.isolation_level = None
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        n_tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version != FORMAT and (n_tables or read_only):
            connection.close()
            raise MonitorError(
                f"{path} has no series of format {FORMAT}; give another file with --series"
            )
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version={FORMAT}")
    except sqlite3.Error as error:
        raise MonitorError(f"cannot open the series {path}: {error}") from error
    return connection


class SeriesStore:
    """Writes samples and alarms. Rows wait in memory while the file is locked or the disk full.

    Args:
        path: SQLite file; made when it is not there.
        retention: days for which samples are kept.

    Attributes:
        n_lost: rows that were dropped, oldest first, because the file could not be written.

    Raises:
        MonitorError: the file cannot be used.
    """

    def __init__(self, path: str | Path, retention: float = 30.0) -> None:
        self.path = Path(path)
        self.retention = retention
        self.n_lost = 0
        self._connection = connect(path)
        self._ids: dict[tuple[str, str, str], int] = {}
        self._pending: list[tuple[str, tuple[object, ...]]] = []
        self._prune_due = -math.inf
        self._offset: float | None = None
        self._in_trouble = False
        self._lock = threading.Lock()

    def add(
        self,
        monitor: str,
        samples: Iterable[Sample],
        events: Iterable[AlarmEvent] = (),
        now: float = 0.0,
    ) -> None:
        """Write samples and alarms of a monitor at a time of day; raises nothing."""
        rows: list[tuple[str, tuple[object, ...]]] = [
            (
                "sample",
                (monitor, s.subject, s.quantity, s.unit, now if s.time is None else s.time,
                 s.value if math.isfinite(s.value) else None),
            )
            for s in samples
        ]  # fmt: skip
        rows += [
            (
                "INSERT INTO events (time, monitor, subject, change, rule, value, message)"
                " VALUES (?,?,?,?,?,?,?)",
                (now, monitor, e.subject, e.change, str(e.rule), e.value, e.message),
            )
            for e in events
        ]
        self._write(rows)
        self._prune_when_due(now)

    def _prune_when_due(self, now: float) -> None:
        steady = time.monotonic()
        offset = now - steady
        if self._offset is not None and abs(offset - self._offset) > _JUMP:
            _log.warning(
                "the system time has jumped by %.0f s; no old samples are removed for a day",
                offset - self._offset,
            )
            self._prune_due = steady + _DAY
        self._offset = offset
        if steady >= self._prune_due:
            self._prune_due = steady + _PRUNE_PERIOD
            self.prune(now)

    def note_monitor(self, name: str, kind: str, state: str, now: float) -> None:
        """Write how a monitor does."""
        self._write(
            [
                (
                    "INSERT INTO monitors VALUES (?,?,?,?,?) ON CONFLICT (name) DO UPDATE SET"
                    " kind=excluded.kind, state=excluded.state, updated=excluded.updated,"
                    " started=CASE WHEN state='FINISHED' THEN excluded.started ELSE started END",
                    (name, kind, state, now, now),
                )
            ]
        )

    def add_image(self, monitor: str, subject: str, png: bytes, caption: str, now: float) -> None:
        """Keep the latest image of a subject."""
        self._write(
            [("INSERT OR REPLACE INTO images VALUES (?,?,?,?,?)",
              (monitor, subject, now, caption, png))]
        )  # fmt: skip

    def prune(self, now: float) -> None:
        """Remove what is older than the retention."""
        oldest = now - self.retention * _DAY
        self._write(
            [
                ("DELETE FROM samples WHERE time < ?", (oldest,)),
                ("DELETE FROM events WHERE time < ?", (oldest,)),
                (
                    "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?",
                    (_KEPT_EVENTS,),
                ),
            ]
        )

    def _write(self, rows: Sequence[tuple[str, tuple[object, ...]]]) -> None:
        with self._lock:
            self._pending += rows
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    for statement, values in self._pending:
                        self._execute(statement, values)
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._ids.clear()
                    self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                self._keep(error)
                return
            if self._in_trouble:
                _log.warning("series %s can be written again", self.path)
            self._in_trouble = False
            self._pending.clear()

    def _execute(self, statement: str, values: tuple[Any, ...]) -> None:
        if statement != "sample":
            self._connection.execute(statement, values)
            return
        monitor, subject, quantity, unit, when, value = values
        series = self._ids.get((monitor, subject, quantity))
        if series is None:
            self._connection.execute(
                "INSERT OR IGNORE INTO series (monitor, subject, quantity, unit) VALUES (?,?,?,?)",
                (monitor, subject, quantity, unit),
            )
            (series,) = self._connection.execute(
                "SELECT id FROM series WHERE monitor=? AND subject=? AND quantity=?",
                (monitor, subject, quantity),
            ).fetchone()
            self._ids[monitor, subject, quantity] = series
        self._connection.execute(
            "INSERT OR REPLACE INTO samples VALUES (?,?,?)", (series, when, value)
        )

    def _keep(self, error: sqlite3.Error) -> None:
        """Keep rows for the next attempt; the oldest go when there are too many."""
        excess = len(self._pending) - _KEPT_IN_MEMORY
        if excess > 0:
            del self._pending[:excess]
            self.n_lost += excess
        if not self._in_trouble:
            self._in_trouble = True
            _log.error(
                "series %s cannot be written (%s); rows are kept in memory until it can",
                self.path,
                error,
            )

    def close(self) -> None:
        """Write what waits and close the file."""
        self._write([])
        with self._lock:
            if self._pending:
                self.n_lost += len(self._pending)
                _log.error("series %s: %d rows could not be written", self.path, self.n_lost)
                self._pending.clear()
            self._connection.close()
