"""``completion`` (set up): print a script that makes bash, zsh or tcsh complete commands."""

from __future__ import annotations

import argparse
import sys

import shtab

from pvapy_stream.cli.command import Command
from pvapy_stream.cli.main import COMMANDS, PROG, load
from pvapy_stream.cli.parser import Parser
from pvapy_stream.errors import PvapyStreamError

SHELLS = ("bash", "zsh", "tcsh")

_EPILOG = """\
examples:
  pvapy-stream completion bash > ~/.local/share/bash-completion/completions/pvapy-stream
  pvapy-stream completion zsh > ~/.zsh/completions/_pvapy-stream     (a folder of your fpath)
  pvapy-stream completion tcsh > ~/.pvapy-stream.csh                 (source it in ~/.cshrc)
"""


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    made.add_argument("shell", choices=SHELLS, help="the shell the script is for")


def command_tree() -> argparse.ArgumentParser:
    """One parser with the parsers of all commands below it."""
    top = Parser(PROG, "Distributed, real-time streaming of detector data over EPICS PVAccess.")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, entry in COMMANDS.items():
        commands.add_parser(name, help=entry.help)
        try:
            made = load(name).COMMAND.parser()
        except (ImportError, PvapyStreamError):
            # A command whose extra is not installed completes by its name alone.
            continue
        made.prog = f"{PROG} {name}"
        commands.choices[name] = made
    return top


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    sys.stdout.write(shtab.complete(command_tree(), options.shell))
    sys.stdout.write("\n")
    return 0


COMMAND = Command(
    f"{PROG} completion",
    "Print a script that makes a shell complete all commands and options.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
)
main = COMMAND.main
