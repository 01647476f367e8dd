"""Downloads by HTTP(S) or FTP that continue where they were broken, if the file is still the same.

The bytes that have come are in ``NAME.part``. ``NAME.part.json`` has what the server reported about
the file they are of: an ETag or a time, and the size. A download continues only when the server
confirms this; otherwise it begins again.
"""

from __future__ import annotations

import ftplib
import http
import json
import re
import urllib.parse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pvapy_stream.empiar.servers import HttpError, ftp_path, ftp_session, opened
from pvapy_stream.errors import WorkflowError

_BLOCK = 1 << 18
_GB = 1e9
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a server reports about a file.

    Attributes:
        url: of the file.
        version: a strong ETag or the time of the last change; "" when it reports neither.
        size: bytes; None when it is not reported.
    """

    url: str
    version: str
    size: int | None


def download(url: str, target: Path, limit: int = 0) -> Path:
    """Download a file; what an earlier try left is continued if the file is still the same.

    Args:
        url: http://, https:// or ftp://.
        target: where it goes; it appears when it is complete.
        limit: most bytes it may have; 0 for no limit.

    Raises:
        OSError: it broke off; try again.
        WorkflowError: it is larger than the limit.
    """
    part = _Part(target, limit)
    if urllib.parse.urlsplit(url).scheme == "ftp":
        _by_ftp(url, part)
    else:
        _by_http(url, part)
    return part.finish()


class _Part:
    """A file on its way, with what is known of where it comes from."""

    def __init__(self, target: Path, limit: int) -> None:
        self._target = target
        self._path = target.with_name(f"{target.name}.part")
        self._notes = target.with_name(f"{target.name}.part.json")
        self._limit = limit
        self.origin: _Origin | None = None

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return self._path.stat().st_size if self._path.exists() else 0

    def earlier(self, url: str) -> _Origin | None:
        """What is known of an earlier try that can be continued; others are removed."""
        try:
            known = _Origin(**json.loads(self._notes.read_text()))
        except (OSError, ValueError, TypeError):
            known = None
        if known is None or known.url != url or not known.version or not self.size:
            self.forget()
            return None
        self.origin = known
        return known

    def begin(self, origin: _Origin) -> None:
        """Begin anew."""
        self.forget()
        self._check(origin.size or 0)
        # Before any byte: the notes must never be those of other bytes.
        self._notes.write_text(json.dumps(asdict(origin)))
        self.origin = origin

    def forget(self) -> None:
        """Remove what has come."""
        self._path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)
        self.origin = None

    def append_from(self, source: Any) -> None:
        """Append what `source.read` gives."""
        with self._path.open("ab") as file:
            size = file.tell()
            while block := source.read(_BLOCK):
                size = self._write(file, block, size)

    def append_by_ftp(self, server: ftplib.FTP, path: str) -> None:
        """Append the rest of a file."""
        with self._path.open("ab") as file:
            size = start = file.tell()

            def write(block: bytes) -> None:
                nonlocal size
                size = self._write(file, block, size)

            server.retrbinary(f"RETR {path}", write, _BLOCK, rest=start or None)

    def _write(self, file: Any, block: bytes, size: int) -> int:
        self._check(size + len(block))
        file.write(block)
        return size + len(block)

    def _check(self, size: int) -> None:
        if self._limit and size > self._limit:
            self.forget()
            raise WorkflowError(
                f"{self._target.name} has more than {self._limit / _GB:g} GB, the limit for one"
                " file; raise it if this is the right file"
            )

    def finish(self) -> Path:
        """Give the file its name.

        Raises:
            OSError: it is not complete.
        """
        size = None if self.origin is None else self.origin.size
        got = self.size
        if size is not None and got != size:
            if got > size:
                self.forget()
            raise OSError(f"{got} of {size} bytes were received")
        if not self._path.exists():
            self._path.touch()
        self._path.replace(self._target)
        self._notes.unlink(missing_ok=True)
        return self._target


# -- HTTP ----------------------------------------------------------------------------------------


def _by_http(url: str, part: _Part) -> None:
    earlier = part.earlier(url)
    have = part.size
    asked = {"Range": f"bytes={have}-", "If-Range": earlier.version} if earlier else None
    try:
        with opened(url, asked) as answer:
            if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
                # The file has changed, or the server knows no ranges: this is all of it.
                length = answer.headers.get("Content-Length")
                size = int(length) if length and length.isdigit() else None
                part.begin(_Origin(url, _version(answer.headers), size))
            elif earlier is None or not _continues(earlier, answer.headers, have):
                part.forget()
                raise OSError("the server sent another part than the requested one")
            part.append_from(answer)
    except HttpError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or earlier is None:
            raise
        # There is nothing after what has come: it is complete, or the file has become shorter.
        found = _CONTENT_RANGE.fullmatch(error.headers.get("Content-Range", ""))
        whole = found is not None and found[2] == str(have)
        if not whole or _is_other(earlier, error.headers) or earlier.size not in (None, have):
            part.forget()
            raise OSError("the file on the server has changed; it is downloaded again") from error


def _version(headers: Any) -> str:
    tag = headers.get("ETag", "")
    # A weak ETag does not promise the same bytes.
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _is_other(earlier: _Origin, headers: Any) -> bool:
    version = _version(headers)
    return bool(version) and version != earlier.version


def _continues(earlier: _Origin, headers: Any, have: int) -> bool:
    """Whether an answer continues what has come: not every server heeds If-Range."""
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if found is None or found[1] != str(have) or _is_other(earlier, headers):
        return False
    return earlier.size is None or found[2] in ("*", str(earlier.size))


# -- FTP -----------------------------------------------------------------------------------------


def _by_ftp(url: str, part: _Part) -> None:
    parts = urllib.parse.urlsplit(url)
    path = ftp_path(parts)
    with ftp_session(parts) as server:
        size = _size(server, path)
        now = _Origin(url, _changed(server, path), size)
        if part.earlier(url) != now or part.size > (size or 0):
            part.begin(now)
        if part.size != size or size == 0:
            part.append_by_ftp(server, path)


def _size(server: ftplib.FTP, path: str) -> int | None:
    """Bytes of a file; None when the server does not report them."""
    try:
        return server.size(path)
    except ftplib.error_perm as error:
        if str(error).startswith("550"):
            raise
        return None


def _changed(server: ftplib.FTP, path: str) -> str:
    """Time of the last change; "" when the server does not report it."""
    try:
        return server.sendcmd(f"MDTM {path}").partition(" ")[2].strip()
    except ftplib.error_perm as error:
        if str(error).startswith("550"):
            raise
        return ""
