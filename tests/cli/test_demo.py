"""The demonstration: what it says, and that it asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from pvapy_stream.cli import demo
from pvapy_stream.cli.template import ready
from pvapy_stream.workflow import Outcome
from tests.support import PATIENCE


def test_a_demonstration_that_fails_says_why_and_where_its_logs_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """tests/tools/test_first_hour.py runs the whole one."""
    shown = demo.Demo(tmp_path, 10, 100.0)
    assert shown._report(Outcome(("the disk is full",))) == 1
    said = capsys.readouterr().out
    assert "The demonstration failed: the disk is full" in said
    assert f"ledgers and logs are in {tmp_path}\n" in said
    assert f"pvapy-stream workflow run {tmp_path}/demo.yaml" in said


def test_without_extras_nothing_of_them_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make lowest` runs it in an environment that has none."""
    nodes = demo.Demo(tmp_path, 10, 100.0)._workflow().nodes
    assert (nodes["disk"].params["compression"], "page" in nodes) == ("bslz4", True)
    monkeypatch.setattr(demo, "_has", lambda _: False)
    nodes = demo.Demo(tmp_path, 10, 100.0)._workflow().nodes
    assert (nodes["disk"].params["compression"], "page" in nodes) == ("none", False)


def choose(folder: Path, *answers: str) -> subprocess.CompletedProcess[str]:
    """The demonstration that asks, with answers to its questions."""
    return subprocess.run(
        [sys.executable, "-m", "pvapy_stream", "demo", "--choose"],
        input="".join(f"{answer}\n" for answer in answers),
        env={**os.environ, "PVAPY_STREAM_PROJECTS": str(folder)},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def test_a_template_is_chosen_and_filled_in_on_the_terminal(tmp_path: Path) -> None:
    number = str(list(ready()).index("split_collect_save") + 3)
    done = choose(
        tmp_path, "many", "99", number, "x", "40", "200", "16", "-16", "2", "", "night.h5", "none",
        # Asked again, as there are no -16 rows.
        "", "", "", "16", "", "", "", "",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for said in (
        "'many' is not a number from 1 to", "'99' is not a number", "(given 'x')",
        "Rows: Input should be greater than", "(given -16)", "Number of frames [40]: ",
        "pvapy-stream template split_collect_save frames=40 rate=200 columns=16 rows=16",
        "published 40, processed 40, missed 0",
    ):  # fmt: skip
        assert said in done.stdout
    (file,) = tmp_path.rglob("night.h5")
    with h5py.File(file) as saved:
        assert saved["entry/data/data"].shape == (40, 16, 16)


def test_without_answers_nothing_is_started(tmp_path: Path) -> None:
    done = choose(tmp_path)
    assert done.returncode == 1
    assert "there is no further answer" in done.stderr
    # A line for each, and the question.
    assert done.stdout.count("\n") == 3 + len(ready())
    assert "split_collect_save" in done.stdout
