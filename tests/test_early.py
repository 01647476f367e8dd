"""Which processes are programs of this package."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from pvapy_stream.early import is_program


@pytest.mark.parametrize(
    ("first", "module", "ours"),
    [
        ("-m", "", True),
        ("/x/pvapy_stream/cli/main.py", "pvapy_stream.cli.main", True),
        ("/bin/pvapy-stream", "", True),
        ("/bin/sf_bsread_writer", "", True),
        ("/x/pytest/__main__.py", "pytest.__main__", False),
        ("mine.py", "", False),
    ],
)
def test_our_programs_are_known_also_when_started_as_modules(
    first: str, module: str, ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec(module) if module else None
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    monkeypatch.setattr(sys, "argv", [first, "save"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "pvapy_stream.cli.main", "save"])
    assert is_program() is ours
