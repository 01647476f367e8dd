"""``pvapy-stream completion``: scripts that make a shell complete our commands."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import shtab

from pvapy_stream.cli.main import COMMANDS, PROG
from pvapy_stream.cli.options import plain_parser
from pvapy_stream.errors import PvapyStreamError

SHELLS = ("bash", "zsh", "tcsh")

_EPILOG = """\
examples:
  pvapy-stream completion bash > ~/.local/share/bash-completion/completions/pvapy-stream
  pvapy-stream completion zsh > ~/.zsh/completions/_pvapy-stream     (a folder of your fpath)
  pvapy-stream completion tcsh > ~/.pvapy-stream.csh                 (source it in ~/.cshrc)
"""


def parser() -> argparse.ArgumentParser:
    """The command's parser."""
    made = plain_parser(
        f"{PROG} completion",
        "Print a script that makes a shell complete all commands and options.",
        _EPILOG,
    )
    made.add_argument("shell", choices=SHELLS, help="the shell the script is for")
    return made


def command_tree() -> argparse.ArgumentParser:
    """One parser with the parsers of all commands below it."""
    top = plain_parser(
        PROG, "Distributed, real-time streaming of detector data over EPICS PVAccess."
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help)
        try:
            made = importlib.import_module(f"pvapy_stream.cli.{command.module}").parser()
        except (ImportError, PvapyStreamError):
            # A command whose extra is not installed completes by its name alone.
            continue
        made.prog = f"{PROG} {name}"
        commands.choices[name] = made
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    shell = parser().parse_args(argv).shell
    sys.stdout.write(shtab.complete(command_tree(), shell))
    sys.stdout.write("\n")
    return 0
