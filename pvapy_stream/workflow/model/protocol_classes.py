"""Classes of protocols by the names that files give them.

A package adds its own with an entry point of the group ``pvapy_stream.protocols``, which has the
name of the class.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeGuard, TypeVar

from pvapy_stream.errors import PvapyStreamError, SettingsError
from pvapy_stream.plugins import entries_of, load_entry, load_file
from pvapy_stream.workflow.model.base_protocol import BaseProtocol
from pvapy_stream.workflow.model.spelling import nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_GROUP = "pvapy_stream.protocols"

_log = logging.getLogger(__name__)

Kind = type[BaseProtocol]
_K = TypeVar("_K", bound=Kind)

_registered: dict[str, Kind] = {}
_from_files: dict[tuple[str, int], ModuleType] = {}


def register(name: str) -> Callable[[_K], _K]:
    """Decorator of a protocol: the name by which files call it."""

    def keep(kind: _K) -> _K:
        _registered[name] = kind
        return kind

    return keep


def name_of(kind: type) -> str:
    """What files, and messages, call a protocol: the name it is registered by, or its class's."""
    return next((name for name, one in _registered.items() if one is kind), kind.__name__)


def registered() -> dict[str, Kind]:
    """Protocols that files may call by a name alone, those of plugins included.

    A plugin that cannot be loaded is logged and left out.
    """
    for name in _plugins().keys() - _registered.keys():
        try:
            _plugin(name)
        except SettingsError as error:
            _log.warning("%s", error)
    return dict(_registered)


@functools.cache
def _plugins() -> dict[str, EntryPoint]:
    return entries_of(_GROUP)


def _plugin(name: str) -> Kind:
    """Load the protocol of a plugin.

    Raises:
        SettingsError: it cannot be loaded, or is no protocol.
    """

    def check(found: object) -> Kind | None:
        return found if _is_protocol(found) else None

    made = load_entry(_plugins()[name], "class", "protocol or stage", check)
    _registered[name] = made
    return made


def find_class(name: str, folder: Path | None = None) -> Kind:
    """The protocol of a name: ``Mirror``, ``package.module:Class`` or ``file.py:Class``.

    Args:
        name: as a file has it.
        folder: where files are looked for.

    Raises:
        SettingsError: there is no such class; the message has the nearest known name.
    """
    if name in _registered:
        return _registered[name]
    if name in _plugins():
        return _plugin(name)
    where, colon, class_name = name.rpartition(":")
    if not colon:
        known = {*_registered, *_plugins()}
        hint = nearest(name, known, f"known: {', '.join(sorted(known))}")
        raise SettingsError(
            f"unknown class {name!r}; {hint} Write your own class as file.py:Class or"
            " package.module:Class"
        )
    module = _file(where, folder) if where.endswith(".py") else _module(where, name)
    found = getattr(module, class_name, None)
    if not _is_protocol(found):
        classes = [name for name, value in vars(module).items() if _is_protocol(value)]
        hint = nearest(class_name, classes, f"it has {', '.join(classes) or 'none'}")
        raise SettingsError(f"{where} has no protocol {class_name!r}; {hint}")
    return found


def _is_protocol(value: object) -> TypeGuard[Kind]:
    return isinstance(value, type) and issubclass(value, BaseProtocol)


def reference(kind: type) -> str:
    """A name by which `find_class` finds a class, also in another process."""
    name = name_of(kind)
    entry = _plugins().get(name)
    own = f"{kind.__module__}:{kind.__qualname__}"
    if _registered.get(name) is kind or (entry is not None and entry.value == own):
        return name
    module = sys.modules[kind.__module__]
    file = getattr(module, "__file__", None)
    by_file = kind.__module__ == "__main__" or kind.__module__.startswith("pvapy_stream_user_")
    if by_file and file:
        return f"{Path(file).resolve()}:{kind.__qualname__}"
    return own


def _file(name: str, folder: Path | None) -> ModuleType:
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


def _module(where: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except Exception as error:
        raise SettingsError(f"class {name!r}: module {where!r} fails to import: {error}") from error
