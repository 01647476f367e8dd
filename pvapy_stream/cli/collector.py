"""``pvapy-hpc-collector`` and ``pvapy-stream collector``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pvapy_stream.cli.options import parse, settings_parser
from pvapy_stream.cli.runner import exit_code
from pvapy_stream.cli.stages import run
from pvapy_stream.settings import CollectorSettings

_EPILOG = """\
examples:
  pvapy-hpc-collector -ic 'stage:*:out' -pid 1,2,3,4 -oc all:out -sc all:status -cc all:control
  pvapy-hpc-collector -ic 'stage:*:out' -pid 'range(1,9)' -pf myproc.py -pc MyProcessor
exit codes: 0 all well; 1 the collector failed or objects met errors; 2 wrong options
"""


def parser() -> argparse.ArgumentParser:
    """The command's parser."""
    return settings_parser(
        CollectorSettings,
        "pvapy-hpc-collector",
        "Gather the streams of several producers in the order of ids, process and publish them.",
        _EPILOG,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    settings = parse(CollectorSettings, parser(), argv)
    return exit_code(lambda: run(settings))
