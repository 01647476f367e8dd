"""Downloads from real servers: broken, complete, changed meanwhile, too large."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pvapy_stream.empiar.downloads import download
from pvapy_stream.errors import WorkflowError
from tests.workflow.servers import ftp_server, http_server

OLD, NEW = bytes(range(256)) * 40, bytes(range(255, -1, -1)) * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the server has: one file."""
    made = tmp_path / "server"
    made.mkdir()
    replace(made, OLD, 1_000_000_000)
    return made


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "movie.mrc"


def replace(folder: Path, data: bytes, changed: int) -> None:
    """Give the server other content, with this time of change."""
    (folder / "movie.mrc").write_bytes(data)
    os.utime(folder / "movie.mrc", (changed, changed))


def broken(url: str, target: Path) -> None:
    """A download that breaks off."""
    target.unlink(missing_ok=True)
    with pytest.raises(OSError, match=f"of {len(OLD)} bytes were received"):
        download(url, target)
    assert not target.exists()


def assert_here(target: Path, data: bytes) -> None:
    assert target.read_bytes() == data
    assert list(target.parent.iterdir()) == [target]


def test_the_rest_alone_is_fetched(folder: Path, target: Path) -> None:
    with http_server(folder, "break") as server:
        broken(f"{server.url}/movie.mrc", target)
        download(f"{server.url}/movie.mrc", target)
        assert [asked for _, asked in server.requests] == [None, "bytes=3000-"]
    assert_here(target, OLD)


def test_what_was_complete_but_for_its_name(folder: Path, target: Path) -> None:
    """The program was killed between the last byte and the new name."""
    part = target.with_name("movie.mrc.part")
    with http_server(folder, "break") as server:
        url = f"{server.url}/movie.mrc"
        broken(url, target)
        part.write_bytes(OLD)
        download(url, target)
        assert_here(target, OLD)
        assert [asked for _, asked in server.requests] == [None, f"bytes={len(OLD)}-"]
        # Of a part that nothing is known of, nothing is kept.
        for content in (OLD, NEW[:100], OLD + b"more"):
            part.write_bytes(content)
            download(url, target)
            assert_here(target, OLD)


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("data", [NEW, NEW[:3000], NEW[:2000], NEW + NEW])
def test_a_file_that_has_changed_is_fetched_anew(
    folder: Path, target: Path, heeds_if_range: bool, data: bytes
) -> None:
    with http_server(folder, "break") as server:
        server.heeds_if_range = heeds_if_range
        url = f"{server.url}/movie.mrc"
        broken(url, target)
        replace(folder, data, 1_000_000_100)
        if not heeds_if_range:
            with pytest.raises(OSError, match=r"another part|has changed"):
                download(url, target)
        download(url, target)
    assert_here(target, data)


def test_a_server_that_tells_no_version(folder: Path, target: Path) -> None:
    with http_server(folder, "break") as server:
        server.tells_versions = False
        broken(f"{server.url}/movie.mrc", target)
        replace(folder, NEW, 1_000_000_100)
        download(f"{server.url}/movie.mrc", target)
        assert [asked for _, asked in server.requests] == [None, None]
    assert_here(target, NEW)


def test_a_part_of_another_address_is_not_continued(folder: Path, target: Path) -> None:
    (folder / "other.mrc").write_bytes(NEW)
    with http_server(folder, "break") as server:
        broken(f"{server.url}/movie.mrc", target)
        download(f"{server.url}/other.mrc", target)
    assert_here(target, NEW)


@pytest.mark.parametrize("trouble", ["", "endless"])
def test_a_file_that_is_too_large(folder: Path, target: Path, trouble: str) -> None:
    with http_server(folder, *filter(None, [trouble])) as server:
        with pytest.raises(WorkflowError, match=r"movie\.mrc has more than 1e-05 GB"):
            download(f"{server.url}/movie.mrc", target, limit=10_000)
        assert list(target.parent.iterdir()) == []
        download(f"{server.url}/movie.mrc", target, limit=len(OLD))
    assert_here(target, OLD)


def test_ftp_continues_begins_anew_and_has_a_limit(folder: Path, target: Path) -> None:
    part = target.with_name("movie.mrc.part")
    with ftp_server(folder) as ftp:
        url = f"{ftp.url}/movie.mrc"
        ftp.breaks = 1
        broken(url, target)
        download(url, target)
        assert_here(target, OLD)
        assert "REST 2000" in ftp.commands
        # Complete but for its name: nothing is fetched.
        ftp.breaks = 1
        broken(url, target)
        part.write_bytes(OLD)
        ftp.commands.clear()
        download(url, target)
        assert_here(target, OLD)
        assert not [command for command in ftp.commands if command.startswith("RETR")]
        # Changed meanwhile, to the same size.
        ftp.breaks = 1
        broken(url, target)
        replace(folder, NEW, 1_000_000_100)
        ftp.commands.clear()
        download(url, target)
        assert_here(target, NEW)
        assert not [command for command in ftp.commands if command.startswith("REST")]
        target.unlink()
        with pytest.raises(WorkflowError, match="has more than"):
            download(url, target, limit=10_000)
        assert list(target.parent.iterdir()) == []


def test_empty_files(folder: Path, target: Path) -> None:
    (folder / "movie.mrc").write_bytes(b"")
    with http_server(folder) as server, ftp_server(folder) as ftp:
        for url in (server.url, ftp.url):
            download(f"{url}/movie.mrc", target)
            assert_here(target, b"")
