"""Programs of others that read our files: punx validates them, nexusformat opens them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.areadetector.bluesky_environment import clean, python
from tests.support import PATIENCE

PACKAGES = ("punx", "nexusformat", "h5py", "hdf5plugin")

# A report has a line for each status: its name, a count, and what it means.
_COUNT = re.compile(r"^(OK|ERROR) +(\d+) ", re.MULTILINE)


class Partners:
    """An environment with them.

    Args:
        wanted: whether it is to be made, if there is none.
        folder: for their settings.
    """

    def __init__(self, wanted: bool, folder: Path) -> None:
        self._python = python(wanted, "nexus", PACKAGES)
        # Nothing that a user has set, and no definitions but those that come with punx.
        self._env = {**clean(), "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}

    def _run(self, *words: object) -> str:
        done = subprocess.run(
            list(map(str, words)), capture_output=True, text=True, timeout=PATIENCE, env=self._env
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def validate(self, path: Path) -> int:
        """Let punx validate a file; how many checks it passed.

        Raises:
            AssertionError: punx found an error; its message has all errors.
        """
        punx = self._python.with_name("punx")
        report = self._run(punx, "validate", "--report", "ERROR", path)
        counts = {name: int(count) for name, count in _COUNT.findall(report)}
        assert counts["ERROR"] == 0, report
        return counts["OK"]

    def plot(self, path: Path) -> dict[str, Any]:
        """What nexusformat finds to plot: path, shape, signal, axes, and their first values."""
        script = Path(__file__).with_name("nexus_reader.py")
        return json.loads(self._run(self._python, script, path))


@pytest.fixture(scope="session")
def partners(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Partners:
    """The partners; tests are skipped where they are not installed."""
    wanted = "foreign" in (request.config.getoption("-m") or "")
    return Partners(wanted, tmp_path_factory.mktemp("partners"))
