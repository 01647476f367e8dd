"""Processors that come with the package: ``--processor-class pvapy_stream.processors.NAME``.

A file names its processors in ``__all__``. It is imported when a class of it is first asked for, so
that a consumer that bins images does not load what writes files or encrypts.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

_ALL = re.compile(r"^__all__ = \[([^]]*)\]", re.MULTILINE)


def _find() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        names = _ALL.search(path.read_text(encoding="utf-8"))
        if names:
            found.update(dict.fromkeys(re.findall(r"\w+", names[1]), path.stem))
    return found


_FILE_OF = _find()

__all__ = sorted(_FILE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    file = _FILE_OF.get(name)
    if file is None:
        raise AttributeError(
            f"{__name__} has no processor {name!r}; it has {', '.join(sorted(_FILE_OF))}"
        )
    return getattr(importlib.import_module(f"{__name__}.{file}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FILE_OF})
