"""Commands where another package is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.in_process import Called
from tests.support import PATIENCE

_HOME = Path(__file__).parents[1]
_CODE = """
import json, sys
from tests.in_process import call
print(json.dumps({name: call(*words) for name, words in json.loads(sys.argv[1]).items()}))
"""


def call_with(package: Path, commands: Mapping[str, Sequence[object]]) -> dict[str, Called]:
    """Call commands one after the other in one new program, to which a package is installed.

    Args:
        package: the folder with its modules and its entry points.
        commands: their words, by names of the caller's choice.
    """
    words = {name: [*map(str, words)] for name, words in commands.items()}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _CODE, json.dumps(words)],
        env={**os.environ, "PYTHONPATH": f"{_HOME}:{package}", "COLUMNS": "200"},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: Called(*parts) for name, parts in json.loads(done.stdout).items()}
