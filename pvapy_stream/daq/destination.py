"""Which files a writer may write: requests choose within the limits of the command line."""

from __future__ import annotations

import os
from pathlib import Path

from pvapy_stream.errors import ConflictError, FileError, RangeError
from pvapy_stream.files.disk import check_new, file_error
from pvapy_stream.settings import WriterSettings


class Destination:
    """Finds the file of an acquisition, and whether it may replace one.

    Args:
        settings: OUTPUT_FILE, and the options that belong to it.
    """

    def __init__(self, settings: WriterSettings) -> None:
        self._service = settings.service
        self._force = settings.force
        self._own = _resolved(settings.output_file)
        folder = settings.output_file if settings.service else settings.folder
        # Where OUTPUT_FILE must be, too.
        self._limit = _resolved(folder) if folder else None
        # With a discarded output, requests cannot choose a file.
        beside = None if discards(self._own) else self._own.parent
        self._folder = self._limit or beside

    def path(self, requested: str | None) -> Path:
        """The file to write.

        Args:
            requested: what a request asks for; relative names are below the folder of the command
                line. None for OUTPUT_FILE.

        Raises:
            RangeError: no name was given, though one is needed.
            FileError: the name is not one of a file, or is outside of the folder.
        """
        if not requested:
            if self._service:
                raise RangeError("output_file is missing; give the name of the file to write")
            path, folder = self._own, self._limit
        else:
            folder = self._folder
            if folder is None:
                raise FileError(
                    f"{requested} is not {self._own}, the only file that this writer writes"
                )
            path = _resolved(requested, folder)
        if folder is not None and not path.is_relative_to(folder):
            raise FileError(
                f"{path} is outside of {folder}, the folder of the command line; give a name below"
                " it"
            )
        return path

    def may_replace(self, requested: str | None, force: bool) -> bool:
        """Whether a file that exists may be replaced: only with --force on the command line.

        Args:
            requested: what a request asks for.
            force: whether the request asks to replace it.
        """
        return self._force and (not requested or force)


def discards(path: Path) -> bool:
    """Whether data written to a path are discarded: it is the null device."""
    try:
        return os.path.samefile(path, os.devnull)
    except OSError:
        return False


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse a name that is taken.

    Raises:
        ConflictError: a file has it that may not be replaced.
        FileError: the folder cannot be looked at.
    """
    try:
        if os.path.lexists(path) and not overwrite:
            raise ConflictError(
                f"{path} exists; give another name, or start the writer with --force to replace it"
            )
        check_new(path, overwrite)
    except FileError as error:
        raise ConflictError(str(error)) from error
    except OSError as error:
        raise file_error("write", path, error) from error


def _resolved(name: str, folder: Path | None = None) -> Path:
    if "\0" in name:
        raise FileError(f"{name!r} is not a name of a file")
    try:
        return Path(folder or "", name).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise FileError(f"{name!r} is not a name of a file: {error}") from error
