"""No option, default, mode or field differs from PvaPy's without an explanation."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pvapy_stream.settings.incumbent import OPTIONS
from tools.compare_pvapy import Row, main
from tools.incumbent import PROGRAMS, our_options, their_options

OPTION_TABLE = [(program, name) for program in PROGRAMS for name in their_options(program)]


def test_nothing_differs_without_an_explanation() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.compare_pvapy", "--all"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 without an explanation" in done.stdout
    assert "consumer status processorStats.nMissed" in done.stdout


def test_what_nobody_explains_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], {}) == 1
    assert "unexplained: consumer --ledger: none > str, no default" in capsys.readouterr().out


def test_an_explanation_holds_for_one_difference_only() -> None:
    row = Row("consumer --n-consumers", "int, 1", "int, 2")
    assert row.differs
    assert not row.explanation({"consumer --n-consumers: int, 1 > int, 3": "why"})
    assert row.explanation({"consumer --n-consumers: int, 1 > int, 2": "why"}) == "why"


@pytest.mark.parametrize(("program", "name"), OPTION_TABLE)
def test_each_option_of_theirs_means_the_same_here(program: str, name: str) -> None:
    theirs, ours = their_options(program)[name], our_options(program)
    (same,) = [one for one in ours.values() if theirs.flags & one.flags]
    assert theirs.flags <= same.flags
    if (program, name) not in {
        ("consumer", "--distributor-updates"), ("mirror", "--channel-map"),
    }:  # fmt: skip
        assert (same.kind, same.default) == (theirs.kind, theirs.default)


@pytest.mark.parametrize("program", PROGRAMS)
def test_abbreviations_know_all_options_of_theirs(program: str) -> None:
    known = set(OPTIONS[PROGRAMS[program][0].__name__]) - {"--help", "--version"}
    assert known == set(their_options(program))
