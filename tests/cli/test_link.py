"""The names that pvapy has too: whose they are, put in place and given back; without pvapy."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pvapy_stream.cli.doctor import owner_of
from pvapy_stream.cli.main import main

SHARED = ("pvapy-hpc-consumer", "pvapy-hpc-collector", "pvapy-mirror-server", "pvapy-ad-sim-server")
THEIRS = "#!/usr/bin/python\nimport sys\nfrom pvapy.cli.hpcConsumer import main\nsys.exit(main())\n"


def owners(folder: Path) -> set[str]:
    return {owner_of(folder / name) if (folder / name).exists() else "-" for name in SHARED}


def test_names_are_put_in_place_and_given_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / SHARED[0]).write_text(THEIRS)
    link = ["link", "--folder", str(tmp_path)]
    for _ in range(2):
        assert main(link) == 0
        assert owners(tmp_path) == {"pvapy_stream"}
    assert f"{tmp_path / SHARED[0]} already runs this package" in capsys.readouterr().out
    ours = subprocess.run([tmp_path / SHARED[0], "-v"], capture_output=True, text=True, timeout=60)
    assert "pvapy-hpc-consumer" in ours.stdout
    for _ in range(2):
        assert main([*link, "--undo"]) == 0
        assert owners(tmp_path) == {"pvapy"}
    assert "from pvapy.cli.hpcCollector import main" in (tmp_path / SHARED[1]).read_text()
    assert os.access(tmp_path / SHARED[1], os.X_OK)


def test_a_program_of_someone_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / SHARED[2]
    own.write_text("#!/bin/sh\necho mine\n")
    for undo in ([], ["--undo"]):
        assert main(["link", "--folder", str(tmp_path), *undo]) == 1
        assert own.read_text().endswith("echo mine\n")
        assert f"{own} belongs to neither pvapy_stream nor pvapy" in capsys.readouterr().err


def test_a_folder_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["link", "--folder", str(tmp_path / "none")]) == 1
    assert "none is not a folder" in capsys.readouterr().err


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A Python with all packages of this one but pvapy."""
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    here = Path(sysconfig.get_path("purelib"))
    there = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for one in here.iterdir():
        if one.name not in ("pvaccess", "pvapy") and not one.name.startswith("pvapy-"):
            (there / one.name).symlink_to(one)
    return folder / "bin" / "python"


def test_without_pvapy(bare: Path) -> None:
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [bare, "-m", "pvapy_stream.cli.main", *map(str, words)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    told = run("doctor")
    assert told.returncode == 1
    assert told.stderr == ""
    assert "PROBLEM  pvapy " in told.stdout
    assert "-> pip install pvapy" in told.stdout

    commands = (["consumer", "-ic", "in", "-rt", "1"], ["sim", "-rt", "1"], ["top"])
    code = f"""
from pvapy_stream.cli.main import main
for words in {commands}:
    print(main(words))
"""
    told = subprocess.run([bare, "-c", code], capture_output=True, text=True, timeout=60)
    assert told.stdout.split() == ["1", "1", "1"]
    assert told.stderr.splitlines() == 3 * [
        "error: pvapy is not installed; install it with: pip install pvapy"
        "  (pvapy-stream doctor checks all of the installation)"
    ]

    # There is nothing to give back: the names are free.
    scripts = bare.parent
    assert run("link", "--folder", scripts).returncode == 0
    assert owners(scripts) == {"pvapy_stream"}
    assert run("link", "--folder", scripts, "--undo").returncode == 0
    assert owners(scripts) == {"-"}
