"""Writes the ledgers of a program to disk; errors of the disk do not stop the program."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from pvapy_stream.accounting.ledger import FORMAT, Ledger
from pvapy_stream.errors import LedgerError

Entries = Iterable[Ledger | dict[str, Any]]

_PERIOD = 1.0  # s
# Writing takes at most this share of the time, however large the ledgers are.
_SHARE = 0.05

_log = logging.getLogger(__name__)


class LedgerKeeper:
    """Writes ledgers periodically and at the end.

    If a ledger cannot be written, the stream continues: the error is logged once, the next write is
    attempted when it is due, and `problem` holds the error until a write succeeds.

    Args:
        path: the file; None or "": nothing is built or written.
        build: returns the ledgers; called only when they are written.
        period: time between two writes, s; longer if writing takes long.
    """

    def __init__(
        self, path: str | Path | None, build: Callable[[], Entries], period: float = _PERIOD
    ):
        self.path = Path(path) if path else None
        self.problem = ""
        self._build = build
        self._period = period
        self._due = float("-inf")
        self._logged = False

    def due(self, now: float) -> bool:
        """Whether a write is due; `now` is the value of `time.monotonic`, s."""
        return self.path is not None and now >= self._due

    def keep(self) -> None:
        """Write if a write is due. Raises nothing."""
        if self.due(time.monotonic()):
            self.write(final=False)

    def close(self) -> str:
        """Write for the last time and flush to disk; the error, or ""."""
        self.write(final=True)
        return self.problem

    def write(self, *, final: bool) -> None:
        """Write now; if `final`, mark the ledgers closed and flush to disk. Raises nothing."""
        if self.path is None:
            return
        start = time.monotonic()
        try:
            write_ledgers(self.path, [_entry(one, final) for one in self._build()], sync=final)
        except LedgerError as error:
            self.problem = str(error)
            if not self._logged:
                self._logged = True
                _log.error("%s; the write is retried, and the stream continues", error)
        else:
            if self.problem:
                _log.warning("ledger %s can be written again", self.path)
            self.problem, self._logged = "", False
        now = time.monotonic()
        self._due = now + max(self._period, (now - start) / _SHARE)


def _entry(entry: Ledger | dict[str, object], closed: bool) -> dict[str, Any]:
    """A ledger as plain values; plain values already contain whether it is closed."""
    return {**entry.to_dict(), "closed": closed} if isinstance(entry, Ledger) else entry


def write_ledgers(path: str | Path, ledgers: Entries, sync: bool = False) -> None:
    """Write ledgers to one file, which is replaced as a whole.

    Args:
        path: the file.
        ledgers: the ledgers.
        sync: flush the file to disk before returning.

    Raises:
        LedgerError: the file cannot be written.
    """
    path = Path(path)
    plain = [entry.to_dict() if isinstance(entry, Ledger) else entry for entry in ledgers]
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    content = msgspec.json.format(
        msgspec.json.encode({"format": FORMAT, "stages": plain}), indent=1
    )
    try:
        with part.open("wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
        if sync:
            sync_to_disk(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise LedgerError(
            f"cannot write ledger {path}: {error.strerror}; give another place with --ledger"
        ) from error


def sync_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk.

    Raises:
        OSError: they are not; some file systems say only then that there is no space.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
