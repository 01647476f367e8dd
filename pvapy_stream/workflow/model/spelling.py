"""Hints for names that do not exist."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """``did you mean 'x'?`` for the known name that is most alike; else `otherwise`."""
    import difflib  # here, as few names are wrong

    near = difflib.get_close_matches(name, list(known), 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else otherwise
