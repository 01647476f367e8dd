"""Who writes ledgers to disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pvapy_stream.accounting.ledger import FORMAT, Ledger
from pvapy_stream.errors import LedgerError


def write_ledgers(path: str | Path, ledgers: Sequence[Ledger | dict[str, Any]]) -> None:
    """Write ledgers to one file; a reader never sees a half-written one.

    Raises:
        LedgerError: the file cannot be written.
    """
    path = Path(path)
    plain = [entry.to_dict() if isinstance(entry, Ledger) else entry for entry in ledgers]
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(
            msgspec.json.format(msgspec.json.encode({"format": FORMAT, "stages": plain}), indent=1)
        )
        part.replace(path)
    except OSError as error:
        raise LedgerError(
            f"cannot write ledger {path}: {error.strerror}; give another place with --ledger"
        ) from error
