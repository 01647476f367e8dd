"""The first hour of a newcomer, with the commands of this environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - so that compressed images can be read
import numpy as np

from pvapy_stream.workflow import read_workflow
from tests.support import PATIENCE

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "first_hour.sh"
FRAMES = ROOT / "pvapy_stream" / "data" / "nickel_ebsd_small.h5"


def look_at_demonstration(folder: Path) -> None:
    """What it leaves of its 200 frames.

    Raises:
        AssertionError: something is missing or wrong.
    """
    (audit,) = json.loads((folder / "run" / "audit.json").read_text())
    counts = [audit[name] for name in ("published", "processed", "missed", "without_fate")]
    assert (audit["ok"], counts) == (True, [200, 200, 0, 0])
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


def test_every_step_does_what_it_should(tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPT, Path(sys.executable).parent],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all steps passed\n")
    (demonstration,) = tmp_path.glob("pvapy-stream-demo-*")
    look_at_demonstration(demonstration)
