"""Classes of protocols by the names that stand in files."""

from __future__ import annotations

import difflib
import importlib
import sys
from pathlib import Path
from typing import Any

from pvapy_stream.errors import PvapyStreamError, SettingsError
from pvapy_stream.plugins import load_file

_registered: dict[str, Any] = {}
_from_files: dict[tuple[str, int], Any] = {}


def register(kind: Any) -> Any:
    """Decorator: a protocol that files may name by its class name alone."""
    _registered[kind.__name__] = kind
    return kind


def registered() -> dict[str, Any]:
    """Protocols that come with the package, by name."""
    importlib.import_module("pvapy_stream.workflow.library")
    return dict(_registered)


def find_class(name: str, folder: Path | None = None) -> Any:
    """The protocol of a name: ``Mirror``, ``package.module:Class`` or ``file.py:Class``.

    Args:
        name: as it stands in a file.
        folder: where files are looked for.

    Raises:
        SettingsError: there is no such class; the nearest known name is told.
    """
    known = registered()
    if name in known:
        return known[name]
    where, colon, class_name = name.rpartition(":")
    if not colon:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
        raise SettingsError(
            f"unknown class {name!r}; {hint} A class of yours is written file.py:Class or"
            " package.module:Class"
        )
    module = _file(where, folder) if where.endswith(".py") else _module(where, name)
    found = getattr(module, class_name, None)
    if not isinstance(found, type) or not hasattr(found, "problems"):
        classes = [n for n, v in vars(module).items() if hasattr(v, "problems")]
        near = difflib.get_close_matches(class_name, classes, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(classes) or 'none'}"
        raise SettingsError(f"{where} has no protocol {class_name!r}; {hint}")
    return found


def reference(kind: type) -> str:
    """A name by which `find_class` finds a class, also in another process."""
    if kind.__name__ in registered() and _registered[kind.__name__] is kind:
        return kind.__name__
    module = sys.modules[kind.__module__]
    file = getattr(module, "__file__", None)
    by_file = kind.__module__ == "__main__" or kind.__module__.startswith("pvapy_stream_user_")
    if by_file and file:
        return f"{Path(file).resolve()}:{kind.__qualname__}"
    return f"{kind.__module__}:{kind.__qualname__}"


def _file(name: str, folder: Path | None) -> Any:
    path = Path(name)
    if not path.is_absolute() and folder is not None:
        path = folder / path
    key = (str(path.resolve()), path.stat().st_mtime_ns if path.exists() else 0)
    if key not in _from_files:
        try:
            _from_files[key] = load_file(path)
        except PvapyStreamError as error:
            raise SettingsError(str(error)) from error
    return _from_files[key]


def _module(where: str, name: str) -> Any:
    try:
        return importlib.import_module(where)
    except Exception as error:
        raise SettingsError(f"class {name!r}: module {where!r} fails to import: {error}") from error
