"""Checks of the paths that options name, before anything starts."""

from __future__ import annotations

import os
from pathlib import Path

from pvapy_stream.errors import SettingsError
from pvapy_stream.settings import Settings, option_of

_WRITTEN = ("ledger", "log_file")
_READ = ("processor_file", "config_file", "access_security")


def check_paths(settings: Settings) -> None:
    """Check that files can be written, or exist and can be read.

    Raises:
        SettingsError: with the option, and the error of its path.
    """
    wrong = [
        f"{_flag(settings, name)}: {why}"
        for names, check in ((_WRITTEN, _unwritable), (_READ, _unreadable))
        for name in names
        if (path := getattr(settings, name, None)) and (why := check(Path(path)))
    ]
    if wrong:
        raise SettingsError("; ".join(wrong))


def _flag(settings: Settings, name: str) -> str:
    option = option_of(type(settings), name)
    return option.flags[-1] if option else name


def _unwritable(path: Path) -> str:
    folder = path.parent
    if path.is_dir():
        return f"{path} is a folder; give the name of a file in it"
    if not folder.is_dir():
        return f"cannot write {path}: folder {folder} does not exist; make it first"
    if path.exists() and not os.access(path, os.W_OK):
        return f"cannot write {path}: no permission; give another file"
    if not path.exists() and not os.access(folder, os.W_OK | os.X_OK):
        return f"cannot write {path}: no permission in folder {folder}; give another place"
    return ""


def _unreadable(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder; give the path of a file in it"
    if not path.exists():
        return f"{path} does not exist; check the path"
    return "" if os.access(path, os.R_OK) else f"{path} cannot be read: no permission"
