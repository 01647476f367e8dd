"""Keeps files below the folder that was given on the command line."""

from __future__ import annotations

from pathlib import Path

from pvapy_stream.errors import FileError, SettingsError


def fixed_folder(name_format: str) -> Path:
    """The folder of all files whose names follow a format: its parts before the first key."""
    folder = Path(name_format).parent
    while "{" in str(folder):
        folder = folder.parent
    return folder


def check_requested(name_format: str, folder: Path) -> None:
    """Check a file name that was given in a request.

    Args:
        name_format: path of the file, with keys.
        folder: the folder that was given on the command line.

    Raises:
        SettingsError: the name has ``..`` in it, or is not below the folder.
    """
    parts = Path(name_format).parts
    if parts[: len(folder.parts)] == folder.parts:
        parts = parts[len(folder.parts) :]
    if ".." in parts:
        raise SettingsError(f"{name_format}: a name in a request must not contain '..'")
    try:
        check_below(fixed_folder(name_format) / "file", folder)
    except FileError as error:
        raise SettingsError(str(error)) from error


def check_below(path: Path, folder: Path) -> None:
    """Check that a file is below a folder, with links followed.

    Raises:
        FileError: it is not.
    """
    root = folder.resolve()
    found = path.parent.resolve()
    if found != root and root not in found.parents:
        raise FileError(
            f"{path} is not below {folder}, the folder of the command line; choose a name below"
            " it, without links to outside of it"
        )
