"""``env`` (set up): print EPICS variables that limit channels to this machine."""

from __future__ import annotations

import argparse
import sys

from pvapy_stream.cli.command import CliCommand
from pvapy_stream.pva.net.environment import LOOPBACK

_EPILOG = """\
examples:
  eval "$(pvapy-stream env)"              # sh, bash, zsh
  eval "`pvapy-stream env --shell csh`"   # csh, tcsh
EPICS then neither sends to other machines nor answers them: for tests, and for machines without a
network.
"""


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    made.add_argument(
        "--shell", choices=("sh", "csh"), default="sh", help="kind of shell [default sh]"
    )


def run(options: argparse.Namespace) -> int:
    """Print the variables."""
    form = "export {}={};\n" if options.shell == "sh" else 'setenv {} "{}";\n'
    sys.stdout.write("".join(form.format(*one) for one in LOOPBACK.items()))
    return 0


COMMAND = CliCommand(
    "pvapy-stream env",
    "Print EPICS variables that limit channels to this machine, for a shell to evaluate.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
)
main = COMMAND.main
