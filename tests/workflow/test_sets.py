"""Streaming sets, and protocols chained by them."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest

from pvapy_stream.errors import WorkflowError
from pvapy_stream.workflow.run import database
from pvapy_stream.workflow.run.steps import State
from pvapy_stream.workflow.run.stream_set import StreamSet, StreamState
from tests.support import wait_until
from tests.workflow.protocols import Count, Double


def test_open_closed_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "items.sqlite"
    written = StreamSet.create(path, {"sampling_rate": 1.5})
    read = StreamSet.read(path)
    assert (read.state, len(read)) == (StreamState.OPEN, 0)
    written.append({"name": "a"}, key="a")
    written.append({"name": "a again"}, key="a")
    written.append({"name": "b"})
    written.close()
    assert read.state is StreamState.CLOSED
    assert list(read) == [{"name": "a", "id": 1}, {"name": "b", "id": 2}]
    again = StreamSet.create(path)
    assert read.state is StreamState.OPEN
    again.append({"name": "a"}, key="a")
    again.append({"name": "c"})
    again.close()
    assert [item["name"] for item in read] == ["a", "b", "c"]
    assert read.properties == {"sampling_rate": 1.5}
    assert read[3]["name"] == "c"
    with pytest.raises(KeyError):
        read[4]


def test_a_reader_sees_an_item_soon(tmp_path: Path) -> None:
    written = StreamSet.create(tmp_path / "items.sqlite")
    read = StreamSet.read(tmp_path / "items.sqlite")
    delays = []
    for number in range(1, 4):
        written.append({"n": number})
        start = time.monotonic()
        wait_until(lambda number=number: len(read) == number)
        delays.append(time.monotonic() - start)
    written.close()
    assert min(delays) < 0.2


def test_5000_items_a_second_and_pages(tmp_path: Path) -> None:
    written = StreamSet.create(tmp_path / "items.sqlite")
    start = time.process_time()
    for number in range(10000):
        written.append({"number": number, "file": f"/data/image_{number:06d}.tif"})
    written.close()
    assert time.process_time() - start < 10
    read = StreamSet.read(tmp_path / "items.sqlite")
    assert [item["id"] for item in read.page(9990, 100)] == list(range(9991, 10001))
    assert sum(1 for _ in read) == len(read) == 10000


def test_what_is_no_set_and_a_locked_database(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(WorkflowError, match="does not exist"):
        StreamSet.read(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("no database at all, but some text")
    with pytest.raises(WorkflowError, match="another kind of file"):
        StreamSet.read(tmp_path / "text.sqlite")
    StreamSet.create(tmp_path / "items.sqlite").release()
    holder = sqlite3.connect(tmp_path / "items.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    connect = database.connect
    monkeypatch.setattr(
        "pvapy_stream.workflow.run.stream_set.connect",
        lambda path, schema="": connect(path, schema, 0.1),
    )
    with pytest.raises(WorkflowError, match="another process has locked it"):
        StreamSet.create(tmp_path / "items.sqlite")
    holder.close()


def test_a_full_disk_is_told_and_nothing_is_half_written(tmp_path: Path) -> None:
    written = StreamSet.create(tmp_path / "items.sqlite")
    written.append({"n": 1})
    written.flush()
    (pages,) = written._db.execute("PRAGMA page_count").fetchone()
    written._db.execute(f"PRAGMA max_page_count = {pages}")
    for _ in range(5):
        written.append({"text": "x" * 10000})
    with pytest.raises(WorkflowError, match="free space on the disk"):
        written.flush()
    written._db.execute("PRAGMA max_page_count = 100000")
    written.close()
    assert len(StreamSet.read(tmp_path / "items.sqlite")) == 6


def test_95_items_in_batches_of_10(tmp_path: Path) -> None:
    Count(n=95).run(tmp_path / "count")
    items = StreamSet.read(tmp_path / "count" / "items.sqlite")
    protocol = Double(items=items, batch=10)
    assert protocol.run(tmp_path / "double") is State.FINISHED, protocol.error
    found = list(StreamSet.read(tmp_path / "double" / "doubled.sqlite"))
    assert sorted(item["number"] for item in found) == list(range(2, 191, 2))
    assert {item["batch"] for item in found} == {10, 5}
    # Nothing is handed over twice, also in another run.
    assert Double(items=items, batch=10).run(tmp_path / "double") is State.FINISHED
    assert len(StreamSet.read(tmp_path / "double" / "doubled.sqlite")) == 95


def test_items_are_taken_while_they_come(tmp_path: Path) -> None:
    written = StreamSet.create(tmp_path / "items.sqlite")
    protocol = Double(items=StreamSet.read(tmp_path / "items.sqlite"))
    run = threading.Thread(target=protocol.run, args=(tmp_path / "double",))
    run.start()
    for number in (1, 2):
        written.append({"number": number})
        wait_until(
            lambda number=number: (
                (len(StreamSet.read(tmp_path / "double" / "doubled.sqlite")) == number)
                if (tmp_path / "double" / "doubled.sqlite").exists()
                else False
            )
        )
    assert run.is_alive()
    written.close()
    run.join(10)
    assert protocol.state is State.FINISHED, protocol.error
