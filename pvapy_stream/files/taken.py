"""Finds a free name for the next file of a writer; files of the same run are never replaced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from pvapy_stream.errors import FileError
from pvapy_stream.files.disk import Identity, check_new, identity
from pvapy_stream.files.folder import check_below
from pvapy_stream.files.names import FileNames, part_of
from pvapy_stream.files.reading import open_any

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_UNKNOWN = "unknown"  # run of an HDF5 file that cannot be opened


class Claim(NamedTuple):
    """A name that the next file can use.

    Attributes:
        number: of the file, 1 for the first.
        path: its name.
        replaces: the file that has the name now and may be replaced.
        follows: a file of the same run with the preceding name, or None.
    """

    number: int
    path: Path
    replaces: Identity | None
    follows: Path | None


class Claims:
    """Finds names for the files of one writer.

    Args:
        names: makes the names.
        overwrite: whether plain files from before the run may be replaced.
        run: name of the run, see `run_id`; "" if all existing files are from before it.
        folder: no file may be outside of it; None for no limit.

    Attributes:
        begun: names of this writer's files so far; they are not used again.
    """

    def __init__(self, names: FileNames, overwrite: bool, run: str, folder: Path | None) -> None:
        self._names = names
        self._overwrite = overwrite
        self._run = run
        self._folder = folder
        self.begun: list[Path] = []
        # Names up to this number belong to files of the run; they are not checked again.
        self._seen: tuple[int, Path | None] = (0, None)

    def find(self, number: int, first_id: int) -> Claim:
        """The name for the next file.

        Args:
            number: of the file, if its name is free.
            first_id: id of its first image.

        Raises:
            FileError: a file that is not of this run has the name, or it is outside of the
                folder.
        """
        follows: Path | None = None
        if not self._names.depends_on_id and number <= self._seen[0]:
            number, follows = self._seen[0] + 1, self._seen[1]
        for candidate, path in self._names.candidates(number, first_id):
            if self._folder is not None:
                check_below(path, self._folder)
            taken = next(filter(os.path.lexists, (part_of(path), path)), None)
            if taken is not None and self._is_of_this_run(taken):
                follows = path
                self._seen = (candidate, path)
                continue
            check_new(path, self._overwrite and path not in self.begun)
            return Claim(candidate, path, identity(path), follows)
        raise AssertionError("no free file name was found")

    def _is_of_this_run(self, path: Path) -> bool:
        # A file that cannot be opened may be from a killed process of the run.
        return bool(self._run) and run_of(path) in (self._run, _UNKNOWN)


def run_of(path: Path) -> str:
    """Name of the run that wrote a file; "" for other files."""
    if identity(path) is None:
        return ""
    try:
        with path.open("rb") as raw:
            if raw.read(len(_SIGNATURE)) != _SIGNATURE:
                return ""
        with open_any(path) as file:
            return str(file.attrs.get("run", ""))
    except (OSError, RuntimeError, ValueError, KeyError, FileError):
        return _UNKNOWN
