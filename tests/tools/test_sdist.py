"""The source distribution holds all that the repository does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from setuptools.command.egg_info import FileList

ROOT = Path(__file__).parents[2]
# What setuptools takes by itself.
TAKEN = {"LICENSE", "README.md", "pyproject.toml", "setup.py", "MANIFEST.in"}


def test_every_file_is_in_the_source_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no checkout")
    manifest = ROOT / "MANIFEST.in"
    monkeypatch.chdir(ROOT)
    found = FileList()
    for line in manifest.read_text().splitlines() if manifest.exists() else []:
        found.process_template_line(line)
    wanted = {
        name
        for name in listed.stdout.splitlines()
        # The package's own files are listed in pyproject.toml.
        if not name.startswith((".", "pvapy_stream/"))
    }
    assert wanted - set(found.files) - TAKEN == set()
