"""The demonstration: a whole workflow, audited and verified."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - so that compressed images can be read
import numpy as np
import pytest

from pvapy_stream.cli import demo
from pvapy_stream.cli.template import ready
from pvapy_stream.workflow import read_workflow
from tests.support import PATIENCE, Commands

FRAMES = Path("pvapy_stream/data/nickel_ebsd_small.h5")


def test_the_demonstration_ends_by_itself_with_a_verified_file(commands: Commands) -> None:
    program = commands("demo", "--seconds", "1", "--rate", "200")
    assert program.wait() == 0, program.text
    assert "audit: published 200, processed 200, missed 0, without a fate 0: OK" in program.text
    assert "All is there." in program.text
    found = re.search(r"ledgers and logs are in (\S+)", program.text)
    assert found
    folder = Path(found[1])
    assert "<html" in (folder / "report.html").read_text()
    assert set(read_workflow(str(folder / "demo.yaml")).nodes) == {
        "detector", "mirror", "workers", "gather", "disk", "page",
    }  # fmt: skip
    with h5py.File(FRAMES) as source, h5py.File(folder / "run" / "patterns.h5") as saved:
        patterns = source["/Scan 1/EBSD/Data/patterns"][...]
        ids, images = saved["entry/data/id"][...], saved["entry/data/data"][...]
    assert ids.tolist() == list(range(1, 201))
    expected = np.array([patterns[k % len(patterns)].T for k in range(200)])
    assert np.array_equal(images, expected)


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
