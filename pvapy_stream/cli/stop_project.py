"""``pvapy-stream stop-project``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pvapy_stream.cli.options import plain_parser
from pvapy_stream.cli.projects import stop_scheduler
from pvapy_stream.cli.runner import exit_code


def parser() -> argparse.ArgumentParser:
    """The command's parser."""
    made = plain_parser(
        "pvapy-stream stop-project",
        "End the run of a project in order, wherever it was started on this machine.",
        "exit codes: 0 it has ended; 1 nobody runs it, or it does not end; 2 no such project",
    )
    made.add_argument("name", metavar="NAME", help="of the project, or its folder")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parser().parse_args(argv)
    return exit_code(lambda: stop_scheduler(options.name))
