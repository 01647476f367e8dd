"""The fault campaign, a few runs of it; `make chaos` does many."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chaos.campaign import Outcome, table, write_table
from chaos.plan import KINDS, plan


@pytest.mark.parametrize(
    ("seed", "kind"),
    [(1, "kill"), (2, "filter-kill"), (3, "restart-ids"), (4, "puts"), (5, "term"), (7, "disk")],
)
def test_the_account_is_true(seed: int, kind: str) -> None:
    words = ["--runs", "1", "--seed", str(seed), "--kind", kind, "--jobs", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "chaos", *words],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_gives_one_plan() -> None:
    plans = [plan(seed) for seed in range(200)]
    assert plans == [plan(seed) for seed in range(200)]
    assert {one.kind for one in plans} == {*KINDS}
    assert all(one.transport != "shm" or not one.mirror for one in plans)


def test_the_table_counts_runs_and_violations(tmp_path: Path) -> None:
    calm = plan(1, "calm")
    text = table([Outcome(calm, [], ""), Outcome(calm, ["bad"], "")])
    assert "2 (1 bad)" in text
    assert "2 runs, 1 with a violation" in text
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- campaign -->\nold\n<!-- end of campaign -->\nafter\n")
    write_table(page, "new")
    assert page.read_text() == "before\n<!-- campaign -->\nnew\n<!-- end of campaign -->\nafter\n"
