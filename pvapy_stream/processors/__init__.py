"""Built-in processors: ``--processor-class pvapy_stream.processors.NAME``.

A file lists its processors in ``__all__``. It is imported when one of its classes is first used, so
that a consumer that bins images does not load the libraries for files or encryption.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from pathlib import Path
from typing import Any

_ALL = re.compile(r"^__all__ = \[([^]]*)\]", re.MULTILINE)


@cache
def _file_of() -> dict[str, str]:
    """File of each processor; found when a processor is first requested by name."""
    found: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        names = _ALL.search(path.read_text(encoding="utf-8"))
        if names:
            found.update(dict.fromkeys(re.findall(r"\w+", names[1]), path.stem))
    return found


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_file_of())
    file = _file_of().get(name)
    if file is None:
        raise AttributeError(
            f"{__name__} has no processor {name!r}; it has {', '.join(sorted(_file_of()))}"
        )
    return getattr(importlib.import_module(f"{__name__}.{file}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_file_of()})
