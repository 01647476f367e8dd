from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pvapy_stream import __version__
from pvapy_stream.cli import doctor
from pvapy_stream.cli.main import main
from tests.support import Source

OURS = (
    "#!/usr/bin/python\nimport sys\nfrom pvapy_stream.cli.consumer import main\nsys.exit(main())\n"
)
THEIRS = "#!/usr/bin/python\nimport sys\nfrom pvapy.cli.hpcConsumer import main\nsys.exit(main())\n"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of the shell's path."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def script(folder: Path, text: str, name: str = "pvapy-hpc-consumer") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_our_command_is_ours(shell: Path) -> None:
    path = script(shell, OURS)
    assert doctor.command(path.name, "pvapy-stream consumer") == (
        "ok",
        path.name,
        f"{path} (this package)",
        "",
    )


def test_the_incumbents_command_is_a_problem_with_two_ways_out(shell: Path) -> None:
    path = script(shell, THEIRS)
    finding = doctor.command(path.name, "pvapy-stream consumer")
    assert (finding.state, finding.detail) == ("problem", f"{path} runs pvapy, not this package")
    assert finding.advice.startswith("pvapy-stream link")
    assert "pvapy-stream consumer" in finding.advice


def test_a_command_of_someone_else_is_a_problem(shell: Path) -> None:
    script(shell, "#!/bin/sh\necho hello\n")
    finding = doctor.command("pvapy-hpc-consumer", "pvapy-stream consumer")
    assert finding.state == "problem"
    assert "neither" in finding.detail


def test_a_command_that_the_shell_does_not_find_is_noted(shell: Path) -> None:
    finding = doctor.command("pvapy-hpc-consumer", "pvapy-stream consumer")
    assert (finding.state, finding.detail) == ("note", "not found by the shell")
    assert finding.advice


def test_a_command_that_only_the_incumbent_has_is_no_problem(shell: Path) -> None:
    script(shell, THEIRS)
    assert doctor.command("pvapy-hpc-consumer", "", expected=False).state == "note"


def test_real_scripts_have_an_owner() -> None:
    scripts = Path(sys.executable).parent
    assert doctor.owner_of(scripts / "pvapy-hpc-collector") in ("pvapy", "pvapy_stream")
    assert doctor.owner_of(scripts / "pytest") == ""


def test_requirements_are_told_apart_by_extra() -> None:
    lines = [
        "numpy>=1.26",
        "pvapy<6,>=5.6",
        'psutil>=5; python_version >= "3.10"',
        'lz4>=4.3; extra == "codecs"',
        "blosc; extra == 'codecs'",
        'pytest>=8; extra == "dev"',
        'matplotlib>=3.8; extra == "bench"',
        'pvapy-stream[codecs]; extra == "all"',
        # Of another Python.
        'tomli>=2; python_version < "3.10"',
        'none; python_version < "3.10" and extra == "codecs"',
    ]
    assert doctor.split_requirements(lines) == (
        ["numpy", "pvapy", "psutil"],
        {"codecs": ["lz4", "blosc"]},
    )


def versions(monkeypatch: pytest.MonkeyPatch, *requirements: str) -> dict[str, doctor.Finding]:
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: list(requirements))
    return {finding.name: finding for finding in doctor.versions()}


def test_versions_and_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    found = versions(
        monkeypatch,
        "numpy",
        "no-such-thing",
        "numpy; extra == 'one'",
        "no-such-thing; extra == 'two'",
    )
    assert found["pvapy_stream"].detail.startswith(__version__)
    assert found["numpy"].state == "ok"
    assert found["no-such-thing"] == (
        "problem",
        "no-such-thing",
        "not installed",
        "pip install no-such-thing",
    )
    assert found["extra one"].state == "ok"
    assert found["extra two"].state == "note"
    assert "pip install 'pvapy-stream[two]'" in found["extra two"].advice


def test_a_source_tree_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: str) -> list[str]:
        raise doctor.metadata.PackageNotFoundError

    monkeypatch.setattr(doctor.metadata, "requires", none)
    found = {finding.name: finding for finding in doctor.versions()}
    assert found["installation"].state == "note"
    assert found["pvapy"].state == "ok"


@pytest.mark.parametrize(
    ("variables", "problems"),
    [
        ({}, []),
        ({"EPICS_PVA_ADDR_LIST": "10.0.0.1"}, []),
        ({"EPICS_PVA_AUTO_ADDR_LIST": "NO", "EPICS_PVA_ADDR_LIST": "10.0.0.1"}, []),
        ({"EPICS_PVA_AUTO_ADDR_LIST": "NO", "EPICS_PVA_NAME_SERVERS": "a:5075"}, []),
        ({"EPICS_PVA_AUTO_ADDR_LIST": "no"}, ["EPICS_PVA_ADDR_LIST"]),
        ({"EPICS_CA_AUTO_ADDR_LIST": "NO", "EPICS_CA_ADDR_LIST": " "}, ["EPICS_CA_ADDR_LIST"]),
    ],
)
def test_settings_with_which_nothing_is_found(
    variables: dict[str, str], problems: list[str]
) -> None:
    findings = list(doctor.environment({**variables, "HOME": "/root"}))
    assert [f.name for f in findings if f.state == "problem"] == problems
    assert {f.name for f in findings if f.state == "ok"} == (set(variables) or {"EPICS_*"})


def test_access_rights_are_noted() -> None:
    found = {finding.name: finding for finding in doctor.access_rights()}
    assert found["outputs and status channels"].detail == "read-only for clients"
    assert found["control channels"].state == "note"
    assert "--control-from" in found["control channels"].advice


def test_an_image_channel(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    source.publish([12])
    findings = {f.name: f for f in doctor.channel(source.channel, "pva", 5.0, "uniqueId")}
    assert findings["reached"].detail == "yes"
    assert "dimension structure[]" in findings["structure"].detail
    assert "uniqueId int" in findings["structure"].detail
    assert findings["image"].detail == "4x6 uint16, mono, 48 bytes"
    assert findings["current uniqueId"].detail == "12"
    other = {f.name: f for f in doctor.channel(source.channel, "pva", 5.0, "nothing")}
    assert other["current nothing"].state == "note"


def test_a_channel_that_is_not_there_is_a_problem(
    prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--channel", f"{prefix}none", "--timeout", "0.2"]) == 1
    shown = capsys.readouterr().out
    assert f"Channel {prefix}none (pva)" in shown
    assert "PROBLEM  reached" in shown
    assert "EPICS_PVA_ADDR_LIST" in shown
    # Plain when it is no terminal, one line for each finding.
    assert "\x1b" not in shown


def test_all_well_ends_with_0(
    source: Source, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whose commands this machine has is not what is tested here.
    monkeypatch.setattr(doctor, "commands", lambda: [])
    monkeypatch.setattr(doctor, "versions", lambda: [])
    assert main(["doctor", "--channel", source.channel]) == 0
    assert "no problem found" in capsys.readouterr().out
