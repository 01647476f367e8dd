"""What servers hold, by HTTP(S) or FTP: lists of files, small answers, and repeated tries."""

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
from email.message import Message
from typing import Any

from pvapy_stream.errors import WorkflowError

_TIMEOUT = 30.0  # s; for each answer of a server
_LARGEST_ANSWER = 64 * 10**6  # bytes
_AGENT = {"User-Agent": "pvapy_stream"}
_NOT_THERE = (401, 403, 404, 410)
# Whatever a network does is one of these.
_TROUBLE = (OSError, http.client.HTTPException, ftplib.Error, EOFError)


class _GoneError(Exception):
    """The server says that there is no such file; asking again is of no use."""


class HttpError(OSError):
    """An HTTP server answered with an error.

    Attributes:
        code: its number.
        headers: of the answer.
    """

    def __init__(self, message: str, code: int, headers: Message) -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers


def with_retries(what: str, attempt: Callable[[], Any], retries: int, pause: float) -> Any:
    """Try until it works, with growing pauses.

    Args:
        what: for the message, such as ``movie.mrc``.
        attempt: is tried.
        retries: how often it is tried again.
        pause: s before the second try; then twice as long each time.

    Raises:
        WorkflowError: it never worked; the message has the last reason.
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
    """What an HTTP address gives, such as a list or metadata.

    Raises:
        WorkflowError: it is too long for that.
    """
    with opened(url) as answer:
        content = answer.read(_LARGEST_ANSWER + 1)
    if len(content) > _LARGEST_ANSWER:
        raise WorkflowError(
            f"{url} gives more than {_LARGEST_ANSWER // 10**6} MB; is it the address of a list?"
        )
    return content


def list_folder(url: str) -> list[str]:
    """Names of the files in a folder of a server, in order."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "ftp":
        with ftp_session(parts) as server:
            return sorted(name.rpartition("/")[2] for name in server.nlst(ftp_path(parts)))
    links = _Links()
    links.feed(read(url.rstrip("/") + "/").decode(errors="replace"))
    return sorted(set(links.names))


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
def opened(url: str, headers: dict[str, str] | None = None) -> Iterator[Any]:
    """The answer to an HTTP request.

    Raises:
        WorkflowError: it is no HTTP address.
        HttpError: the server answers with an error.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise WorkflowError(
            f"{url} is not an address of a server; write http://, https:// or ftp://"
        )
    request = urllib.request.Request(url, headers={**_AGENT, **(headers or {})})  # noqa: S310 - checked
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 - checked
            yield answer
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in _NOT_THERE:
            raise _GoneError(f"{url} gives {error.code} {error.reason}") from error
        message = f"{url} gives {error.code} {error.reason}"
        raise HttpError(message, error.code, error.headers) from error


# -- FTP -----------------------------------------------------------------------------------------


@contextmanager
def ftp_session(parts: urllib.parse.SplitResult) -> Iterator[ftplib.FTP]:
    """A session with the FTP server of an address."""
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


def ftp_path(parts: urllib.parse.SplitResult) -> str:
    """Path of a file on its FTP server."""
    return urllib.parse.unquote(parts.path)
