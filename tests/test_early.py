"""Which processes are programs of this package."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from pvapy_stream.early import is_program
from tests.support import BIN, PATIENCE, write_processor


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


_COLLECTS = """
import gc, sys
from pvapy_stream import FrameProcessor

class Collects(FrameProcessor):
    def start(self):
        sys.stderr.write(f"collects {gc.isenabled()}\\n")
"""


@pytest.mark.parametrize("n_consumers", [1, 2])
def test_garbage_is_collected_while_a_program_runs(
    prefix: str, tmp_path: Path, n_consumers: int
) -> None:
    """Of a script, whose spawned processes take themselves for it."""
    done = subprocess.run(
        [
            *(str(BIN / "pvapy-stream"), "consumer", "-ic", f"{prefix}absent", "-rt", "0.5"),
            *("-nc", str(n_consumers), "-dg", "g", "-dt", "uniqueId"),
            *("-pf", str(write_processor(tmp_path, _COLLECTS)), "-pc", "Collects"),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr.count("collects True") == n_consumers, done.stderr
    assert "collects False" not in done.stderr
