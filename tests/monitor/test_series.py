"""Series in SQLite: retention, downsampling, files that are locked, full or no database."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import pytest

from pvapy_stream.errors import MonitorError
from pvapy_stream.monitor import Sample
from pvapy_stream.monitor.series_reader import SeriesReader
from pvapy_stream.monitor.series_store import SeriesStore

DAY = 86400.0


def fill(store: SeriesStore, n: int, start: float = 0.0, step: float = 1.0) -> None:
    store.add(
        "m", [Sample("s", "x", float(k % 100), "Hz", start + k * step) for k in range(n)], (), start
    )


def test_many_samples_are_downsampled_and_keep_their_extremes(tmp_path: Path) -> None:
    store = SeriesStore(tmp_path / "a.sqlite")
    fill(store, 20_000)
    store.add("m", [Sample("s", "x", 1e6, "Hz", 12_345.5)], (), 0)
    reader = SeriesReader(tmp_path / "a.sqlite")
    (series,) = reader.series()
    assert (series.first, series.last, series.unit) == (0, 19_999, "Hz")
    points = reader.read(series.id, 0, 20_000, 200)
    assert len(points.times) == 200
    assert points.times == sorted(points.times)
    assert max(v for v in points.high if v is not None) == 1e6
    assert points.low == [0.0] * 200
    assert points.mean[0] == pytest.approx(49.5)
    few = reader.read(series.id, 100, 150, 200)
    assert few.times == [float(t) for t in range(100, 151)]
    assert few.mean[7] == 7.0
    edges, counts = reader.histogram([series.id], 0, 12_000, 10)
    assert len(edges) == 11
    assert sum(counts) == 12_001
    assert counts[0] == 1201 or counts[0] == 1200
    assert reader.last(series.id) == 99.0
    reader.close()
    store.close()


def test_what_is_no_number_is_a_gap(tmp_path: Path) -> None:
    store = SeriesStore(tmp_path / "a.sqlite")
    values = [1.0, math.nan, math.inf, 4.0]
    store.add("m", [Sample("s", "x", v, "", float(n)) for n, v in enumerate(values)], (), 0)
    reader = SeriesReader(tmp_path / "a.sqlite")
    assert reader.read(reader.series()[0].id, 0, 9).mean == [1.0, None, None, 4.0]
    assert reader.histogram([1], 0, 9, 3)[1] == [1, 0, 1]
    assert reader.histogram([1], 50, 90, 3) == ([], [])
    reader.close()
    store.close()


def test_old_samples_are_removed(tmp_path: Path) -> None:
    store = SeriesStore(tmp_path / "a.sqlite", retention=2)
    fill(store, 10, start=0, step=DAY)
    store.prune(9 * DAY)
    reader = SeriesReader(tmp_path / "a.sqlite")
    assert reader.read(1, 0, 1e9).times == [7 * DAY, 8 * DAY, 9 * DAY]
    reader.close()
    store.close()


def test_a_locked_file_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvapy_stream.monitor.series_store._BUSY", 0.1)
    file = tmp_path / "a.sqlite"
    store = SeriesStore(file)
    fill(store, 3)
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    fill(store, 3, start=10)
    assert "cannot be written (database is locked); rows are kept" in caplog.text
    holder.execute("ROLLBACK")
    holder.close()
    fill(store, 3, start=20)
    assert "can be written again" in caplog.text
    store.close()
    reader = SeriesReader(file)
    assert reader.read(1, 0, 99).times == [0, 1, 2, 10, 11, 12, 20, 21, 22]
    reader.close()
    assert store.n_lost == 0


def test_a_file_that_cannot_grow_loses_the_oldest_and_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvapy_stream.monitor.series_store._KEPT_IN_MEMORY", 50)
    store = SeriesStore(tmp_path / "a.sqlite")
    fill(store, 1)
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count={pages}")
    fill(store, 5000, start=100)
    assert store.n_lost == 4951 or store.n_lost == 4950
    store._connection.execute("PRAGMA max_page_count=1000000")
    fill(store, 1, start=99_999)
    store.close()
    reader = SeriesReader(tmp_path / "a.sqlite")
    times = reader.read(1, 0, 1e6).times
    assert len(times) in (51, 52)
    assert times[-1] == 99_999
    reader.close()


@pytest.mark.parametrize("kind", ["missing", "text", "foreign", "folder"])
def test_files_that_are_no_series(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "a.sqlite"
    if kind == "text":
        file.write_text("no database, but a long enough text " * 10)
    elif kind == "foreign":
        other = sqlite3.connect(file)
        other.execute("CREATE TABLE theirs (x)")
        other.close()
    elif kind == "folder":
        file.mkdir()
    with pytest.raises(MonitorError, match=r"a\.sqlite"):
        SeriesReader(file)
    if kind != "missing":
        with pytest.raises(MonitorError, match=r"a\.sqlite"):
            SeriesStore(file)
