"""Command lines against the parsers of the programs they name."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pvapy_stream.cli import main as cli
from pvapy_stream.cli.options import written_out
from pvapy_stream.cli.parser import flags_of
from pvapy_stream.cli.settings_command import SettingsCommand
from tests.docs.blocks import ROOT

try:
    import tomllib
except ImportError:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SCRIPTS = {
    name: target.partition(":")[0]
    for name, target in PROJECT["scripts"].items()
    if name != cli.PROG
}
# Programs of others, which are not checked: a block with one of them is run, or says why not.
FOREIGN = {
    "cp", "curl", "eval", "export", "h5ls", "journalctl", "kill", "mkdir", "pip",
    "podman", "podman-compose", "pvget", "pvput", "pytest", "python3", "rattler-build", "source",
    "sudo", "systemctl", "tiled", "until", "uv", "wait",
}  # fmt: skip

_PLACEHOLDER = re.compile(r"[A-Z][A-Z_]{2,}…?")


class UnknownProgramError(AssertionError):
    """Nobody knows what the command does."""


def check(words: Sequence[str]) -> None:
    """Parse a command line as its program does.

    Raises:
        AssertionError: there is no such program, or it does not take these words.
    """
    program, arguments = Path(words[0]).name, list(words[1:])
    if program in FOREIGN:
        return
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert arguments[0] in targets, f"make has no target {arguments[0]}"
    elif program == "python" and arguments[:1] == ["-m"]:
        module = importlib.import_module(arguments[1])
        if hasattr(module, "__path__"):
            module = importlib.import_module(f"{arguments[1]}.__main__")
        _parse(module._parser(), arguments[2:])
    elif program == "python" and arguments[0].endswith(".py"):
        assert (ROOT / arguments[0]).is_file(), f"there is no {arguments[0]}"
    elif program.endswith(".sh"):
        assert (ROOT / words[0]).is_file(), f"there is no {words[0]}"
    else:
        _check_ours(program, arguments)


def _check_ours(program: str, arguments: list[str]) -> None:
    if program == cli.PROG:
        if arguments in ([], ["-h"], ["COMMAND", "-h"]):
            return
        name, *arguments = arguments
        # Pages use the names that help lists.
        assert name in cli.commands(), f"{cli.PROG} has no command {name}"
        command = cli.load(name).COMMAND
    elif program in SCRIPTS:
        command = importlib.import_module(SCRIPTS[program]).COMMAND
    else:
        raise UnknownProgramError(f"{program} is no program of ours; see {__file__}")
    if not isinstance(command, SettingsCommand):
        _parse(command.parser(), arguments, intermixed=command.intermixed)
        return
    given = _parse(command.parser(), written_out(command.model, arguments))
    if given is not None:
        command.model.of(**vars(given))


def _parse(parser: argparse.ArgumentParser, words: list[str], *, intermixed: bool = False) -> Any:
    """What the parser finds; None for a part of a command, whose options alone are checked."""
    if any(word == "…" or _PLACEHOLDER.fullmatch(word) for word in words):
        known = set(flags_of(parser))
        unknown = [word for word in words if re.match(r"--?[a-z]", word) and word not in known]
        assert not unknown, f"{parser.prog} has no option {unknown[0]}"
        return None
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parser.parse_intermixed_args(words) if intermixed else parser.parse_args(words)
    except SystemExit as error:
        raise AssertionError(f"{' '.join(words)}: {said.getvalue().strip()}") from error


def check_span(text: str) -> None:
    """Check code within a line, if it is a command of ours: its name and its options.

    Raises:
        AssertionError: there is no such command, or it has no such option.
    """
    words = text.replace("…", " … ").split()
    if words and words[0] in (cli.PROG, *SCRIPTS):
        names = words[1].split("|") if words[0] == cli.PROG and len(words) > 1 else [""]
        for name in names:
            _check_ours(words[0], [*([name] if name else []), *words[2 if name else 1 :], "…"])
