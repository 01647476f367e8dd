"""Files of servers, by HTTP(S) or FTP: lists, and downloads that go on where they were broken."""

from __future__ import annotations

import ftplib
import html.parser
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pvapy_stream.errors import WorkflowError

_TIMEOUT = 30.0  # s; for each answer of a server
_BLOCK = 1 << 18
_AGENT = {"User-Agent": "pvapy_stream"}
_NOT_THERE = (401, 403, 404, 410)
# Whatever a network does is one of these.
_TROUBLE = (OSError, http.client.HTTPException, ftplib.Error, EOFError)


class _GoneError(Exception):
    """The server says that there is no such file; asking again is of no use."""


def with_retries(what: str, attempt: Callable[[], Any], retries: int, pause: float) -> Any:
    """Try until it works, with growing pauses.

    Args:
        what: for the message, such as ``movie.mrc``.
        attempt: is tried.
        retries: how often it is tried again.
        pause: s before the second try; then twice as long each time.

    Raises:
        WorkflowError: it never worked; the last reason is told.
    """
    for number in range(retries + 1):
        try:
            return attempt()
        except _GoneError as error:
            raise WorkflowError(f"{what}: {error}; check the address") from error
        except _TROUBLE as error:
            if number == retries:
                raise WorkflowError(
                    f"{what}: {error or type(error).__name__} ({retries + 1} tries); check the"
                    " network, then resume"
                ) from error
            time.sleep(min(pause * 2**number, 60.0))
    raise AssertionError("unreachable")


def read(url: str) -> bytes:
    """What an HTTP address gives."""
    with _opened(url) as answer:
        return answer.read()


def list_folder(url: str) -> list[str]:
    """Names of the files in a folder of a server, in order."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "ftp":
        with _ftp(parts) as server:
            return sorted(name.rpartition("/")[2] for name in server.nlst(_path(parts)))
    links = _Links()
    links.feed(read(url.rstrip("/") + "/").decode(errors="replace"))
    return sorted(set(links.names))


def download(url: str, target: Path) -> Path:
    """Download a file; what an earlier try left as ``.part`` is continued.

    Raises:
        OSError: it broke off; try again.
    """
    part = target.with_name(f"{target.name}.part")
    have = part.stat().st_size if part.exists() else 0
    parts = urllib.parse.urlsplit(url)
    size = _by_ftp(parts, part, have) if parts.scheme == "ftp" else _by_http(url, part, have)
    got = part.stat().st_size
    if size is not None and got != size:
        if got > size:
            part.unlink()
        raise OSError(f"{got} of {size} bytes came")
    part.replace(target)
    return target


# -- HTTP ----------------------------------------------------------------------------------------


class _Links(html.parser.HTMLParser):
    """Files in a listing that a web server makes of a folder."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        link = dict(attrs).get("href") if tag == "a" else None
        if link and "?" not in link and not link.endswith("/") and "//" not in link:
            self.names.append(urllib.parse.unquote(link).rpartition("/")[2])


@contextmanager
def _opened(url: str, headers: dict[str, str] | None = None) -> Iterator[Any]:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise WorkflowError(f"{url} is no address of a server; write http://, https:// or ftp://")
    request = urllib.request.Request(url, headers={**_AGENT, **(headers or {})})  # noqa: S310 - checked
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 - checked
            yield answer
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _NOT_THERE:
            raise _GoneError(f"{url} gives {error.code} {error.reason}") from error
        raise OSError(f"{url} gives {error.code} {error.reason}") from error


def _by_http(url: str, part: Path, have: int) -> int | None:
    """Fetch the rest; the size of the whole file, where the server tells it."""
    with _opened(url, {"Range": f"bytes={have}-"} if have else None) as answer:
        # A server that knows no ranges sends all of it.
        goes_on = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        length = answer.headers.get("Content-Length")
        with part.open("ab" if goes_on else "wb") as file:
            while block := answer.read(_BLOCK):
                file.write(block)
    return None if length is None else int(length) + (have if goes_on else 0)


# -- FTP -----------------------------------------------------------------------------------------


@contextmanager
def _ftp(parts: urllib.parse.SplitResult) -> Iterator[ftplib.FTP]:
    server = ftplib.FTP(timeout=_TIMEOUT)  # noqa: S321 - public archives offer no other
    try:
        server.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
        server.login(parts.username or "anonymous", parts.password or "anonymous@")
        server.voidcmd("TYPE I")
        yield server
    except ftplib.error_perm as error:
        if str(error).startswith("550"):
            raise _GoneError(f"{parts.geturl()} gives {error}") from error
        raise
    finally:
        server.close()


def _path(parts: urllib.parse.SplitResult) -> str:
    return urllib.parse.unquote(parts.path)


def _by_ftp(parts: urllib.parse.SplitResult, part: Path, have: int) -> int | None:
    with _ftp(parts) as server:
        size = server.size(_path(parts))
        if size is not None and have > size:
            part.unlink()
            have = 0
        if have != size:
            with part.open("ab") as file:
                server.retrbinary(
                    f"RETR {_path(parts)}", file.write, blocksize=_BLOCK, rest=have or None
                )
    return size
