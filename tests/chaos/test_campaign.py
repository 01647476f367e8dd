"""A short campaign with fixed seeds; the long one is ``make chaos``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import rounds

ROOT = Path(__file__).parents[2]
# The shorter the chain, the fewer programs are started: in that with the seed 30 a consumer and a
# writer are killed, in that with the seed 5, of two consumers and others, a writer twice.
RUNS = [(81051, "cut+repair"), (1, "filter"), (30, "kill"), (5, "kill")][: 2 + rounds(1)]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("seed", "kind"), RUNS)
def test_runs_without_a_violation(seed: int, kind: str) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "chaos", "--runs", "1", "--seed", str(seed), "--kinds", kind,
            "--jobs", "1",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=380, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 runs" in done.stdout
