"""The demonstration: a whole workflow, audited and verified."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - so that compressed images can be read
import numpy as np

from pvapy_stream.workflow import read_workflow
from tests.support import Commands

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
