"""What a processor notes of the objects it sees, in a file that the benchmark reads."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


class Notes:
    """Written at the first object and on demand.

    The file has `at`, when the first object had been processed; `id` and `stamp` of that object
    (s since 1970, both); and `ids`, all ids so far.
    """

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self._first: dict[str, float] = {}
        self._ids: list[int] = []

    def add(self, obj: Any) -> None:
        """Note an object that was processed."""
        self._ids.append(obj["uniqueId"])
        if not self._first:
            stamp = obj["timeStamp.secondsPastEpoch"] + obj["timeStamp.nanoseconds"] / 1e9
            self._first = {"at": time.time(), "id": self._ids[0], "stamp": stamp}
            self.write()

    def write(self) -> None:
        """Write what was noted; a reader sees the whole of it or the one before."""
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps({**self._first, "ids": self._ids}))
        os.replace(part, self._file)
