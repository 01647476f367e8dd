"""Processors that come with the package: ``--processor-class pvapy_stream.processors.NAME``.

A file names its processors in ``__all__``. It is imported when a class of it is first asked for, so
that a consumer that bins images does not load what writes files or encrypts.
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
    """File of each processor; it is looked for when one is asked for by its name here."""
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
