"""Series read back: which there are, downsampled values, histograms, alarms, images."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pvapy_stream.errors import MonitorError
from pvapy_stream.monitor.series_store import connect


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """A series and its extent; times are s since 1970."""

    id: int
    monitor: str
    subject: str
    quantity: str
    unit: str
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Points:
    """A series for a chart: of each interval its mean, least and largest value; None for a gap."""

    times: list[float]
    mean: list[float | None]
    low: list[float | None]
    high: list[float | None]


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An alarm that was given or left."""

    time: float
    monitor: str
    subject: str
    change: str
    rule: str
    value: float | None
    message: str


class SeriesReader:
    """Reads a file that monitors may be writing.

    Raises:
        MonitorError: the file is missing or holds no series; also from any method, when it is
            locked for too long or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._connection = connect(path, read_only=True)

    def close(self) -> None:
        self._connection.close()

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise MonitorError(f"cannot read the series {self.path}: {error}") from error

    def series(self) -> list[SeriesInfo]:
        """All series that have samples."""
        found = []
        for row in self._rows(
            "SELECT id, monitor, subject, quantity, unit FROM series ORDER BY monitor, quantity,"
            " subject"
        ):
            # Two look-ups in the index; one query for both would read all samples.
            (first,) = self._rows("SELECT min(time) FROM samples WHERE series=?", row[0])[0]
            (last,) = self._rows("SELECT max(time) FROM samples WHERE series=?", row[0])[0]
            if last is not None:
                found.append(SeriesInfo(row[0], row[1], row[2], row[3], row[4], first, last))
        return found

    def read(self, series: int, start: float, end: float, points: int = 400) -> Points:
        """A series from `start` to `end`, at most about `points` intervals."""
        (count,) = self._rows(
            "SELECT count(*) FROM (SELECT 1 FROM samples WHERE series=? AND time>=? AND time<=?"
            " LIMIT ?)",
            series, start, end, points + 1,
        )[0]  # fmt: skip
        if count <= points:
            rows = self._rows(
                "SELECT time, value FROM samples WHERE series=? AND time>=? AND time<=? ORDER BY"
                " time",
                series, start, end,
            )  # fmt: skip
            values = [value for _, value in rows]
            return Points([when for when, _ in rows], values, values, values)
        # One range of the index after the other: grouping in one query sorts all rows first, which
        # takes several times as long.
        width = (end - start) / points
        rows = []
        # The last interval takes its end in.
        edges = [start + n * width for n in range(points)] + [end + 1e-6]
        for low, high in pairwise(edges):
            row = self._rows(
                "SELECT avg(time), avg(value), min(value), max(value) FROM samples WHERE series=?"
                " AND time>=? AND time<?",
                series,
                low,
                high,
            )[0]
            if row[0] is not None:
                rows.append(row)
        return Points(*([row[n] for row in rows] for n in range(4)))

    def last(self, series: int) -> float | None:
        """The newest value."""
        rows = self._rows(
            "SELECT value FROM samples WHERE series=? ORDER BY time DESC LIMIT 1", series
        )
        return rows[0][0] if rows else None

    def histogram(
        self, series: Sequence[int], start: float, end: float, bins: int = 30
    ) -> tuple[list[float], list[int]]:
        """Edges of bins, and how many values of these series are in each; empty for no values."""
        chosen = json.dumps(list(series))
        low, high = self._rows(
            "SELECT min(value), max(value) FROM samples WHERE series IN (SELECT value FROM"
            " json_each(?)) AND time>=? AND time<=?",
            chosen, start, end,
        )[0]  # fmt: skip
        if low is None:
            return [], []
        width = (high - low) / bins or 1.0
        rows = self._rows(
            "SELECT min(CAST((value - ?) / ? AS INTEGER), ?) AS bin, count(*) FROM samples WHERE"
            " series IN (SELECT value FROM json_each(?)) AND time>=? AND time<=? AND value IS NOT"
            " NULL GROUP BY bin",
            low, width, bins - 1, chosen, start, end,
        )  # fmt: skip
        counts = [0] * bins
        for index, count in rows:
            counts[index] = count
        return [low + n * width for n in range(bins + 1)], counts

    def events(self, start: float, limit: int = 100) -> list[StoredEvent]:
        """The newest alarms since a time, newest first."""
        return [
            StoredEvent(*row)
            for row in self._rows(
                "SELECT time, monitor, subject, change, rule, value, message FROM events"
                " WHERE time>=? ORDER BY id DESC LIMIT ?",
                start, limit,
            )
        ]  # fmt: skip

    def active(self) -> list[StoredEvent]:
        """Alarms that were given and not yet left."""
        return [
            StoredEvent(*row)
            for row in self._rows(
                "SELECT time, monitor, subject, change, rule, value, message FROM events WHERE id"
                " IN (SELECT max(id) FROM events GROUP BY monitor, subject, rule)"
                " AND change != 'leave' ORDER BY id DESC"
            )
        ]

    def monitors(self) -> list[tuple[str, str, str, float, float]]:
        """Name, kind, state, start and last step of each monitor."""
        return self._rows("SELECT name, kind, state, started, updated FROM monitors ORDER BY name")

    def images(self) -> list[tuple[str, str, float, str, bytes]]:
        """Monitor, subject, time, caption and PNG of the latest images."""
        return self._rows(
            "SELECT monitor, subject, time, caption, png FROM images ORDER BY monitor, subject"
        )
