"""Loading of code that is not ours: users' processors and optional dependencies."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pvapy_stream.errors import MissingExtraError, ProcessorError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint

Found = TypeVar("Found")

_file_modules = itertools.count(1)


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Raises:
        MissingExtraError: naming the extra that carries it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"the Python module {module!r} is not installed ({error}); install it with:  pip"
            f" install 'pvapy-stream[{extra}]'"
        ) from error


def entries_of(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group, by their names."""
    # Imported late, as all entry points of the installation are read.
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=group)}


def load_entry(
    entry: EntryPoint, what: str, wanted: str, check: Callable[[Any], Found | None]
) -> Found:
    """Load what an entry point of another package names.

    Args:
        entry: the entry point.
        what: kind of plugin, as messages call it, such as ``transport``.
        wanted: what it has to be, in the words of messages.
        check: gives back what was loaded; None if it is nothing of the kind.

    Raises:
        SettingsError: it cannot be loaded, or is nothing of the kind.
    """
    where = f"{what} {entry.name!r} of the package {entry.dist.name if entry.dist else '?'}"
    try:
        loaded = entry.load()
    except Exception as error:
        raise SettingsError(
            f"{where} cannot be loaded: {type(error).__name__}: {error}; correct or uninstall it"
        ) from error
    found = check(loaded)
    if found is None:
        raise SettingsError(f"{where}: {entry.value} is not a {wanted}; correct or uninstall it")
    return found


def load_named(entry: EntryPoint, what: str, kind: type[Found]) -> Found:
    """Load an object of a class, whose `name` has to be that of its entry point.

    Args:
        entry: the entry point.
        what: as of `load_entry`.
        kind: the class.

    Raises:
        SettingsError: it cannot be loaded, or is nothing of the kind.
    """

    def check(found: object) -> Found | None:
        named = isinstance(found, kind) and getattr(found, "name", "") == entry.name
        return cast("Found", found) if named else None

    return load_entry(entry, what, f"{kind.__name__} with the name {entry.name!r}", check)


def load_processor_class(class_name: str, file: str | Path | None = None) -> type:
    """Load a processor class from a file, or from a module given as ``package.module.ClassName``.

    A file is executed anew at each call, so a changed file gives the changed class.

    Raises:
        ProcessorError: the file or module is missing or fails to import, it has no such class,
            or the class has no ``process`` method.
    """
    module, name = (
        (
            load_file(Path(file), "processor file", "; give the path of a Python file"),
            class_name,
        )
        if file
        else _module_from_path(class_name)
    )
    where = str(file) if file else module.__name__
    found = getattr(module, name, None)
    if not isinstance(found, type):
        classes = [
            n
            for n, v in vars(module).items()
            if isinstance(v, type) and v.__module__ == module.__name__
        ]
        raise ProcessorError(
            f"{where} has no class {name!r}; its classes are: {', '.join(classes) or 'none'}"
        )
    if not callable(getattr(found, "process", None)):
        raise ProcessorError(
            f"class {name!r} in {where} has no process(pvObject) method; add one or derive from"
            " UserDataProcessor"
        )
    return found


def made(found: type, config: dict[str, Any]) -> Any:
    """An object of a user's class, which takes its configuration or, as some do, nothing."""
    try:
        inspect.signature(found).bind(config)
    except TypeError:
        if not inspect.signature(found).parameters:
            return found()
    except ValueError:
        # A class of an extension module may not say what it takes.
        return found(config)
    return found(config)


def load_file(file: Path, what: str = "file", hint: str = "") -> ModuleType:
    """Execute a Python file anew.

    Raises:
        ProcessorError: it is missing, is no Python file, or fails.
    """
    if not file.is_file():
        raise ProcessorError(f"{what} {file} does not exist{hint}")
    # A new name for each load: a reloaded file must not find its old self in sys.modules.
    name = f"pvapy_stream_user_{file.stem}_{next(_file_modules)}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ProcessorError(f"{what} {file} is not a Python file (its name must end with .py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # Compiled from the source text: a cached .pyc of the same second would hide an edit from
        # `reload`.
        exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        raise ProcessorError(
            f"{what} {file} fails to load: {type(error).__name__}: {error}"
        ) from error
    return module


def _module_from_path(class_path: str) -> tuple[ModuleType, str]:
    module_name, _, name = class_path.rpartition(".")
    if not module_name:
        raise ProcessorError(
            f"processor class {class_path!r} has no module; give package.module.{class_path}, or"
            " its file too"
        )
    try:
        return importlib.import_module(module_name), name
    except Exception as error:
        raise ProcessorError(
            f"module {module_name!r} of processor class {class_path!r} fails to import: {error}"
        ) from error
