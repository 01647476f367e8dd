"""``channels`` (watch): list the PVAccess channels that can be reached."""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatchcase

from pvapy_stream.cli.command import CliCommand

_EPILOG = """\
examples:
  pvapy-stream channels
  pvapy-stream channels 'det:*status*'
Servers are found by broadcast, or in EPICS_PVA_ADDR_LIST; those behind a gateway do not answer.
exit codes: 0 listed; 1 there is none, or they cannot be listed; 2 wrong options
"""


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    made.add_argument("pattern", nargs="?", default="*", help="which ones [default *]")


def run(options: argparse.Namespace) -> int:
    """Print the names, a line each; 1 if there is none.

    Raises:
        PvapyStreamError: they cannot be listed.
    """
    from pvapy_stream.monitor.channel_names import find_pvlist, list_channels, natural

    names = [one for one in list_channels(find_pvlist()) if fnmatchcase(one, options.pattern)]
    sys.stdout.write("".join(f"{name}\n" for name in sorted(names, key=natural)))
    return 0 if names else 1


COMMAND = CliCommand(
    "pvapy-stream channels",
    "List the PVAccess channels of the servers that can be reached.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
)
main = COMMAND.main
