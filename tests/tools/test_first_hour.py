"""The first hour of a newcomer, with the commands of this environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import PATIENCE

SCRIPT = Path(__file__).parents[2] / "tools" / "first_hour.sh"


def test_every_step_does_what_it_should() -> None:
    done = subprocess.run(
        [SCRIPT, Path(sys.executable).parent],
        capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all steps passed\n")
