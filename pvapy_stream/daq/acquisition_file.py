"""Outputs of an acquisition: files, and one that discards all data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.daq.items import Item
from pvapy_stream.files.ending import PLAIN, Ending


class AcquisitionFile(Protocol):
    """A file of items. One thread at a time; reading the attributes is for any."""

    @property
    def n_rows(self) -> int:
        """Messages taken."""
        ...

    @property
    def n_bytes(self) -> int:
        """Their size."""
        ...

    @property
    def n_steps(self) -> int:
        """Grows while it is at work, also within a call that takes long."""
        ...

    @property
    def bad_values(self) -> dict[str, int]:
        """Values that could not be written because they were damaged, by channel."""
        ...

    @property
    def damaged(self) -> IdSet:
        """Pulse ids of messages with such a value."""
        ...

    @property
    def unwritten(self) -> IdSet:
        """Pulse ids that were taken and are not flushed."""
        ...

    @property
    def lost(self) -> list[tuple[int, int]]:
        """After `close`: first and last pulse id of ranges that are not in it."""
        ...

    @property
    def saved(self) -> IdSet | None:
        """After `close`: the pulse ids that are in it; None when that is not known."""
        ...

    def add(self, message: Item, flags: int = 0) -> int:
        """Take a message; its row."""
        ...

    def keep_up(self) -> None:
        """Flush rows that have waited for too long."""
        ...

    def close(self, ending: Ending = PLAIN) -> None:
        """Write waiting rows, and complete the file."""
        ...


MakeFile = Callable[
    [Path, Mapping[str, str] | None, Mapping[str, str | int] | None, bool], AcquisitionFile
]


class DiscardedMessages:
    """Counts messages and discards them, if OUTPUT_FILE is /dev/null."""

    def __init__(
        self,
        path: Path,
        general: Mapping[str, str] | None = None,
        about: Mapping[str, str | int] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.n_rows = self.n_bytes = self.n_steps = 0
        self.bad_values: dict[str, int] = {}
        self.damaged = IdSet()
        self.unwritten = IdSet()
        self.lost: list[tuple[int, int]] = []
        self.saved: IdSet | None = None

    def add(self, message: Item, flags: int = 0) -> int:
        self.n_rows += 1
        self.n_bytes += message.nbytes
        return self.n_rows - 1

    def keep_up(self) -> None:
        pass

    def close(self, ending: Ending = PLAIN) -> None:
        self.lost = list(ending.lost)
