"""Values that other programs append to a text, CSV or SQLite file."""

from __future__ import annotations

import csv
import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field

from pvapy_stream.base_settings import opt
from pvapy_stream.errors import MonitorError
from pvapy_stream.monitor.base import Clock, Sample, SamplingMonitor
from pvapy_stream.monitor.kinds import MonitorKind
from pvapy_stream.monitor.outbox import Notifier
from pvapy_stream.monitor.series_store import SeriesStore
from pvapy_stream.settings import MonitorSettings
from pvapy_stream.settings.text_types import Names

_BUSY = 1.0  # s
_ENDINGS = {".csv": "csv", ".sqlite": "sqlite", ".db": "sqlite", ".sqlite3": "sqlite"}
_DELIMITERS = ",;\t|"

Row = dict[str, object]


class TableSettings(MonitorSettings):
    """Values that other programs write to a table."""

    file: Annotated[str, opt("-f --file", "Table", metavar="FILE")] = Field(
        min_length=1, description="text, CSV or SQLite file; it may be created later"
    )
    format: Annotated[Literal["auto", "text", "csv", "sqlite"], opt("--format", "Table")] = Field(
        "auto",
        description="text: columns separated by spaces; auto: by the extension, else text",
    )
    table: Annotated[str, opt("--table", "Table", metavar="NAME")] = Field(
        "", description="table of an SQLite file; default: its only one"
    )
    columns: Annotated[Names, opt("-c --column", "Table", metavar="NAME", many=True)] = Field(
        (), description="columns to watch; default: all with numbers"
    )
    time_column: Annotated[str, opt("--time-column", "Table", metavar="NAME")] = Field(
        "", description="column with the time, s since 1970; default: the time of reading"
    )
    header: Annotated[Names, opt("--header", "Table", metavar="NAME", many=True)] = Field(
        (), description="names of the columns, if the first line of the file does not contain them"
    )
    sampling_interval: Annotated[
        float, opt("-si --sampling-interval", "Monitor", "s", metavar="T")
    ] = Field(10, gt=0, description="time between samples")


class RowSource(Protocol):
    """Gives the rows that came since the last call."""

    def new_rows(self) -> list[Row]: ...


class TableMonitor(SamplingMonitor):
    """Watches columns of a table; each new row is a sample."""

    kind = "table"

    def __init__(
        self,
        settings: TableSettings,
        store: SeriesStore | None = None,
        notifiers: Iterable[Notifier] = (),
        clock: Clock | None = None,
    ) -> None:
        super().__init__(settings, store, notifiers, clock)
        self._settings = settings
        self._subject = Path(settings.file).name
        self._source = _source(settings, self.note_problem)
        self._looked_at: float | None = None

    def sample(self) -> list[Sample]:
        rows = self._source.new_rows()
        now = self.clock.wall()
        before, self._looked_at = self._looked_at, now
        time_column = self._settings.time_column
        if not time_column and before is None:
            # Nobody knows when the rows came that were there before.
            rows = rows[-1:]
        start = now if before is None else min(before, now)
        step = (now - start) / len(rows) if rows else 0.0
        samples: list[Sample] = []
        for n, row in enumerate(rows, 1):
            when = _number(row.get(time_column)) if time_column else start + n * step
            if math.isnan(when):
                self.note_problem(f"{self._subject}: column {time_column!r} has no time")
                continue
            samples += self._of_row(row, when)
        return samples

    def _of_row(self, row: Row, when: float) -> list[Sample]:
        wanted = self._settings.columns
        missing = [name for name in wanted if name not in row]
        if missing:
            raise MonitorError(
                f"{self._settings.file} has no column {', '.join(missing)}; it has"
                f" {', '.join(row)}; see --column and --header"
            )
        samples: list[Sample] = []
        for name in wanted or row:
            value = _number(row[name])
            # A column of names is no series, unless it was asked for.
            if name != self._settings.time_column and (wanted or not math.isnan(value)):
                samples.append(Sample(self._subject, name, value, "", when))
        return samples


def _number(value: object) -> float:
    try:
        return float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return math.nan


def _source(settings: TableSettings, note: Callable[[str], None]) -> RowSource:
    file = Path(settings.file)
    kind = settings.format
    if kind == "auto":
        kind = _ENDINGS.get(file.suffix.lower(), "text")
    if kind == "sqlite":
        return SqliteRows(file, settings.table)
    return TextRows(file, settings.header, kind == "csv", note)


class TextRows:
    """Rows of a text that grows; a last line without an end is left for the next time.

    Args:
        file: it may come later, be cut or be replaced by a new one.
        header: names of the columns; those of the first line when empty.
        is_csv: whether columns are separated by delimiters, else by blanks.
        note: called for lines that do not fit the header; they are left out.
    """

    def __init__(
        self, file: Path, header: Sequence[str], is_csv: bool, note: Callable[[str], None]
    ) -> None:
        self._file = file
        self._note = note
        self._given = tuple(header)
        self._header: tuple[str, ...] = self._given
        self._is_csv = is_csv
        self._delimiter = ""
        self._offset = 0
        self._inode = 0

    def new_rows(self) -> list[Row]:
        rows: list[Row] = []
        for line in self._new_lines():
            text = line.strip()
            is_comment = text.startswith("#")
            if not text or (is_comment and self._header):
                continue
            fields = self._split(text.lstrip("# ") if is_comment else text)
            if not self._header:
                self._header = tuple(fields)
            elif len(fields) == len(self._header):
                rows.append(dict(zip(self._header, fields, strict=True)))
            else:
                self._note(
                    f"{self._file}: a line has {len(fields)} columns, not"
                    f" {len(self._header)}: {text[:80]!r}"
                )
        return rows

    def _new_lines(self) -> list[str]:
        try:
            with self._file.open("rb") as file:
                size = file.seek(0, 2)
                inode = self._file.stat().st_ino
                if inode != self._inode or size < self._offset:
                    self._inode, self._offset = inode, 0
                    self._header, self._delimiter = self._given, ""
                file.seek(self._offset)
                content = file.read(size - self._offset)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise MonitorError(f"cannot read {self._file}: {error.strerror}") from error
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode("utf-8", errors="replace").splitlines()

    def _split(self, text: str) -> list[str]:
        if not self._is_csv:
            return text.split()
        if not self._delimiter:
            self._delimiter = max(_DELIMITERS, key=text.count)
        (fields,) = csv.reader([text], delimiter=self._delimiter, skipinitialspace=True)
        return [field.strip() for field in fields]


class SqliteRows:
    """Rows of a table in an SQLite file, in the order they were inserted."""

    def __init__(self, file: Path, table: str) -> None:
        self._file = file
        self._table = table
        self._last = 0

    def new_rows(self) -> list[Row]:
        if not self._file.exists():
            return []
        uri = self._file.absolute().as_uri() + "?mode=ro"
        try:
            with closing(sqlite3.connect(uri, _BUSY, uri=True)) as connection:
                table = self._table or self._only_table(connection)
                name = table.replace('"', '""')
                (newest,) = connection.execute(
                    f'SELECT max(rowid) FROM "{name}"'  # noqa: S608 - quoted
                ).fetchone()
                if (newest or 0) < self._last:
                    self._last = 0
                cursor = connection.execute(
                    f'SELECT rowid, * FROM "{name}" WHERE rowid > ? ORDER BY rowid',  # noqa: S608
                    (self._last,),
                )
                names = [column[0] for column in cursor.description]
                rows = cursor.fetchall()
        except sqlite3.Error as error:
            raise MonitorError(f"cannot read {self._file}: {error}") from error
        if rows:
            self._last = rows[-1][0]
        return [dict(zip(names[1:], row[1:], strict=True)) for row in rows]

    def _only_table(self, connection: sqlite3.Connection) -> str:
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        if len(tables) != 1:
            found = ", ".join(tables) or "none"
            raise MonitorError(f"{self._file} has the tables {found}; choose with --table")
        return tables[0]


MONITOR = MonitorKind(
    "table",
    TableSettings,
    TableMonitor,
    "values that other programs write to a text, CSV or SQLite file",
    rank=50,
)
