"""What was really published, and what is really in the files: both without any ledger."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import h5py

from chaos.pixels import is_hit, read
from pvapy_stream.files.nexus_layout import IMAGES

DAMAGED = 1
_BEGUN, _SENT = 0, 1
_ENTRY = struct.Struct("<QQBB")


class Record:
    """Binary record of a source: two entries a frame, before and after it is published.

    What was written is in the system's cache, and stays when the source is killed.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        os.close(self._file)

    def begin(self, number: int, frame_id: int, kind: int) -> None:
        os.write(self._file, _ENTRY.pack(number, frame_id, kind, _BEGUN))

    def sent(self, number: int, frame_id: int, kind: int) -> None:
        os.write(self._file, _ENTRY.pack(number, frame_id, kind, _SENT))


@dataclass(slots=True)
class Sent:
    """What was published, by the number of the frame.

    Attributes:
        ids: ids of all that was surely published.
        perhaps: ids of what a killed source was publishing when it ended.
        damaged: numbers of frames with a damaged payload.
    """

    ids: dict[int, int] = field(default_factory=dict)
    perhaps: dict[int, int] = field(default_factory=dict)
    damaged: set[int] = field(default_factory=set)

    def expected(self, filters: bool) -> dict[int, int]:
        """What has to be in the files: ids by number."""
        return {
            number: value
            for number, value in self.ids.items()
            if number not in self.damaged and (not filters or is_hit(value))
        }


def sent_of(records: Iterable[Path]) -> Sent:
    """Read the records of all processes of a source."""
    found = Sent()
    for path in records:
        content = path.read_bytes()
        for number, value, kind, state in _ENTRY.iter_unpack(
            content[: len(content) // _ENTRY.size * _ENTRY.size]
        ):
            (found.ids if state == _SENT else found.perhaps)[number] = value
            if kind == DAMAGED:
                found.damaged.add(number)
    for number in found.ids:
        found.perhaps.pop(number, None)
    return found


def counted(n: int) -> Sent:
    """What a simulator published that sent all of `n` frames; ids and numbers are the same."""
    return Sent({number: number for number in range(1, n + 1)})


@dataclass(slots=True)
class Saved:
    """What is in the files.

    Attributes:
        rows: id, number and marks of each image, file by file.
        unreadable: why files cannot be read.
    """

    rows: list[tuple[int, int, int]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def saved_in(paths: Sequence[Path]) -> Saved:
    """Read the pixels of all files; a `.part` by SWMR, as docs/saving.md says."""
    found = Saved()
    for path in paths:
        try:
            with h5py.File(path, "r", swmr=path.suffix == ".part") as file:
                found.rows += [read(image) for image in file[IMAGES][()]]
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            found.unreadable.append(f"{path.name}: {error}")
    return found
