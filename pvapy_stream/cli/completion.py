"""``completion`` (set up): print a script that makes bash, zsh or tcsh complete commands."""

from __future__ import annotations

import argparse
import re
import sys

import shtab

from pvapy_stream.cli.command import CliCommand
from pvapy_stream.cli.link import SHARED
from pvapy_stream.cli.main import PROG, commands, load
from pvapy_stream.cli.parser import Parser, parsers_of
from pvapy_stream.errors import PvapyStreamError

SHELLS = ("bash", "zsh", "tcsh")

# Options that name a channel of another program, in all commands or in those that watch stages.
_SOURCES = {"--input-channel", "--image-channel", "--channel"}
_WATCHED = {"--status-channel", "--control-channel"}
_WATCHERS = ("dashboard", "monitor", "report", "top")

# Bash expands a list of words once more, so names of the network are compared one by one. It also
# takes a colon for the end of a word, unless it is configured otherwise.
_CHANNELS = {
    "bash": "_pvapy_stream_channels",
    "preamble": {
        "bash": """\
COMP_WORDBREAKS=${COMP_WORDBREAKS//:/}
_pvapy_stream_channels() {
  local name
  timeout 10 pvapy-stream channels 2>/dev/null | while IFS= read -r name; do
    [[ "$name" == "$1"* ]] && printf '%s\\n' "$name"
  done
}
"""
    },
}

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
    added = top.add_subparsers(dest="command", metavar="COMMAND")
    for name, entry in commands().items():
        added.add_parser(name, help=entry.help)
        try:
            made = load(name).COMMAND.parser()
        except (ImportError, PvapyStreamError):
            # A command whose extra is not installed completes by its name alone.
            continue
        made.prog = f"{PROG} {name}"
        added.choices[name] = made
    return top


def _tell_values(parser: argparse.ArgumentParser) -> None:
    """Say what values options take: files, folders, or one of a few words."""
    for one in parsers_of(parser):
        if isinstance(one, Parser):
            one.complete()
        for action in one._actions:  # noqa: SLF001 - there is no other way to ask
            metavar = str(action.metavar or "")
            if _names_a_channel(one, action):
                action.complete = _CHANNELS  # type: ignore[attr-defined]
            if metavar in ("FILE", "LEDGER", "FILE:CLASS"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif metavar in ("DIR", "FOLDER"):
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif re.fullmatch(r"[a-z0-9_]+(\|[a-z0-9_]+)+", metavar):
                action.choices = metavar.split("|")


def _names_a_channel(parser: argparse.ArgumentParser, action: argparse.Action) -> bool:
    """Whether it is the name of a channel that is there already."""
    watches = parser.prog.removeprefix(PROG).strip().startswith(_WATCHERS)
    return bool((_SOURCES | (_WATCHED if watches else set())) & set(action.option_strings))


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    tree = command_tree()
    _tell_values(tree)
    parsers = [tree]
    if options.shell != "zsh":
        # A file of zsh completes one command.
        for name, command in SHARED.items():
            parsers.append(load(command).COMMAND.parser())
            parsers[-1].prog = name
            _tell_values(parsers[-1])
    for parser in parsers:
        sys.stdout.write(shtab.complete(parser, options.shell))
        sys.stdout.write("\n")
    return 0


COMMAND = CliCommand(
    f"{PROG} completion",
    "Print a script that makes a shell complete all commands, options and their values.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
)
main = COMMAND.main
