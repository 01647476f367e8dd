"""Imports: movies from servers that fail, files that appear in a folder."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pvapy_stream.empiar.entry_import import EmpiarImport
from pvapy_stream.errors import SettingsError
from pvapy_stream.workflow import StreamSet, StreamState
from pvapy_stream.workflow.library.folder_import import FolderImport
from pvapy_stream.workflow.library.report_page import ReportPage
from pvapy_stream.workflow.library.thumbnails import Thumbnails
from pvapy_stream.workflow.run.steps import State
from tests.support import wait_until
from tests.workflow.servers import ENTRY, ftp_server, http_server, make_archive
from tests.workflow.test_steps import steps


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return make_archive(tmp_path / "archive")


def movies(folder: Path) -> list[dict[str, Any]]:
    return list(StreamSet.read(folder / "movies.sqlite"))


def an_import(url: str, **params: Any) -> EmpiarImport:
    given = {"entry_id": ENTRY, "amount": 3, "api": f"{url}/api", "files": url, "pause": 0.01}
    return EmpiarImport(**{**given, **params})


def test_movies_arrive_through_trouble_and_are_registered_once(
    archive: Path, tmp_path: Path
) -> None:
    with http_server(archive, "busy", "break", "break", "busy") as server:
        protocol = an_import(server.url)
        assert protocol.run(tmp_path / "run") is State.FINISHED, protocol.error
        asked = server.requests
    found = movies(tmp_path / "run")
    assert [Path(m["file"]).name for m in found] == [f"movie_{k:02d}.mrc" for k in (1, 2, 3)]
    original = archive / ENTRY / "data" / "Movies" / "movie_01.mrc"
    assert Path(found[0]["file"]).read_bytes() == original.read_bytes()
    assert (found[0]["columns"], found[0]["rows"], found[0]["frames"]) == (64, 48, 2)
    # What had come before the break was not fetched again.
    assert ("/10200/data/Movies/movie_01.mrc", "bytes=3000-") in asked
    made = StreamSet.read(tmp_path / "run" / "movies.sqlite")
    assert made.state is StreamState.CLOSED
    assert made.properties == {"title": "Apoferritin", "sampling_rate": 1.06}
    # One fetch after another; a movie is registered while the next one comes.
    by_name = [step for step in steps(tmp_path / "run") if step.name == "fetch"]
    assert [s.prerequisites for s in by_name] == [(1,), (2,), (4,)]
    # Resumed without a server: everything is there.
    assert an_import("http://127.0.0.1:1").run(tmp_path / "run") is State.FINISHED
    assert len(movies(tmp_path / "run")) == 3


def test_movies_by_ftp_continue_where_they_were_broken(archive: Path, tmp_path: Path) -> None:
    original = archive / ENTRY / "data" / "Movies" / "movie_01.mrc"
    with http_server(archive) as server, ftp_server(archive) as ftp:
        ftp.breaks = 1
        protocol = an_import(server.url, files=ftp.url, amount=2)
        assert protocol.run(tmp_path / "run") is State.FINISHED, protocol.error
    assert len(movies(tmp_path / "run")) == 2
    assert (tmp_path / "run" / "extra" / "movie_01.mrc").read_bytes() == original.read_bytes()
    assert "REST 2000" in ftp.commands


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"amount": 4}, "holds 3 files like *.mrc*, and 4 are requested"),
        ({"entry_id": "99999"}, "404"),
        ({"image_set": 2}, "has 1 image sets, not 2"),
        ({"pattern": "*.tif"}, "holds 0 files like *.tif"),
    ],
)
def test_what_an_entry_does_not_have(
    archive: Path, tmp_path: Path, params: dict[str, Any], words: str
) -> None:
    with http_server(archive) as server:
        protocol = an_import(server.url, **params)
        assert protocol.run(tmp_path / "run") is State.FAILED
    assert words in protocol.error


def test_a_damaged_movie_and_a_dead_server(archive: Path, tmp_path: Path) -> None:
    movie = archive / ENTRY / "data" / "Movies" / "movie_02.mrc"
    movie.write_bytes(movie.read_bytes()[:-100])
    with http_server(archive) as server:
        protocol = an_import(server.url)
        assert protocol.run(tmp_path / "run") is State.FAILED
    assert "movie_02.mrc is not a complete MRC file" in protocol.error
    protocol = an_import(server.url, retries=1)
    assert protocol.run(tmp_path / "other") is State.FAILED
    assert "2 tries); check the network, then resume" in protocol.error
    with pytest.raises(SettingsError, match="Entry: must be a number"):
        an_import(server.url, entry_id="EMPIAR-1").run(tmp_path / "none")


def test_a_file_dropped_in_mid_run_is_registered_soon_and_when_it_is_whole(
    tmp_path: Path,
) -> None:
    watched = tmp_path / "in"
    watched.mkdir()
    (watched / "before.tif").write_bytes(b"there")
    (watched / "other.txt").write_bytes(b"no image")
    protocol = FolderImport(
        watched=watched, pattern="*.tif", amount=3, stable=0.4, check_interval=0.5
    )
    run = threading.Thread(target=protocol.run, args=(tmp_path / "run",))
    run.start()
    wait_until(lambda: len(registered(tmp_path)) == 1)
    (watched / "dropped.tif").write_bytes(b"now")
    dropped = time.monotonic()
    wait_until(lambda: len(registered(tmp_path)) == 2)
    assert time.monotonic() - dropped < 0.5 + 1 + 1  # interval + 1 s, and a noisy machine
    with (watched / "growing.tif").open("wb") as file:
        for _ in range(6):
            file.write(b"x" * 10)
            file.flush()
            time.sleep(0.15)
    run.join(15)
    assert protocol.state is State.FINISHED, protocol.error
    found = {item["name"]: item["bytes"] for item in registered(tmp_path)}
    assert found == {"before.tif": 5, "dropped.tif": 3, "growing.tif": 60}


def registered(tmp_path: Path) -> list[dict[str, Any]]:
    path = tmp_path / "run" / "files.sqlite"
    return list(StreamSet.read(path)) if path.exists() else []


def test_thumbnails_and_a_page_of_them(tmp_path: Path) -> None:
    images = StreamSet.create(tmp_path / "images.sqlite")
    tifffile.imwrite(tmp_path / "a.tif", np.arange(64 * 32, dtype=np.uint16).reshape(32, 64))
    (tmp_path / "b.tif").write_text("no image")
    archive = make_archive(tmp_path / "archive", 1)
    for file in (tmp_path / "a.tif", tmp_path / "b.tif", *archive.rglob("*.mrc")):
        images.append({"file": str(file)})
    images.close()
    protocol = Thumbnails(images=StreamSet.read(tmp_path / "images.sqlite"), size=16)
    assert protocol.run(tmp_path / "small") is State.FINISHED, protocol.error
    made = StreamSet.read(tmp_path / "small" / "thumbnails.sqlite")
    problems = {Path(item["file"]).name: item["problem"] for item in made}
    assert problems["a.tif"] == problems["movie_01.mrc"] == ""
    assert "b.tif" in problems["b.tif"]
    page = ReportPage(items=made, title="Today's <images>")
    assert page.run(tmp_path / "page") is State.FINISHED, page.error
    text = (tmp_path / "page" / "extra" / "report.html").read_text()
    assert text.count("data:image/png;base64,") == 2
    assert "Today&#x27;s &lt;images&gt;" in text
    assert "<p>3 items</p>" in text
    assert "http" not in text
