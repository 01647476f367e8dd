"""``pvapy-stream schedule-project``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pvapy_stream.cli.options import plain_parser
from pvapy_stream.cli.projects import schedule
from pvapy_stream.cli.runner import exit_code
from pvapy_stream.cli.workflow import add_cluster_option
from pvapy_stream.logs import configure_logging
from pvapy_stream.settings import LoggingSettings


def parser() -> argparse.ArgumentParser:
    """The command's parser."""
    made = plain_parser(
        "pvapy-stream schedule-project",
        "Run the protocols of a project, each when its inputs are there, until all have ended.",
        "exit codes: 0 all finished; 1 one failed, or frames were lost; 2 there is no such project",
    )
    made.add_argument("name", metavar="NAME", help="of the project, or its folder")
    made.add_argument(
        "--ignore", nargs="+", default=(), metavar="LABEL", help="protocols that are left out"
    )
    add_cluster_option(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parser().parse_args(argv)
    configure_logging(LoggingSettings.of())
    return exit_code(lambda: schedule(options.name, options.ignore, options.cluster))
