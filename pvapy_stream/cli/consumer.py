"""``pvapy-hpc-consumer`` and ``pvapy-stream consumer``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pvapy_stream.cli.options import parse, settings_parser
from pvapy_stream.cli.runner import exit_code
from pvapy_stream.cli.stages import run
from pvapy_stream.settings import ConsumerSettings

_EPILOG = """\
examples:
  pvapy-hpc-consumer -ic pvapy:image -oc out:* -sc stat:* -cc ctrl:* -pf myproc.py -pc MyProcessor
  pvapy-hpc-consumer -ic pvapy:image -nc 4 -dg g -dt uniqueId -sqs 100 -pf myproc.py -pc MyProcessor
exit codes: 0 all well; 1 a consumer failed or objects met errors; 2 wrong options
"""


def parser() -> argparse.ArgumentParser:
    """The command's parser."""
    return settings_parser(
        ConsumerSettings,
        "pvapy-hpc-consumer",
        "Receive a stream, split it over processes, process and publish it.",
        _EPILOG,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    settings = parse(ConsumerSettings, parser(), argv)
    return exit_code(lambda: run(settings))
