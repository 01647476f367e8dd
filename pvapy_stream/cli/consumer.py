"""``pvapy-hpc-consumer`` and ``pvapy-stream consumer``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from pvapy_stream.cli.display import make_display, stats_lines
from pvapy_stream.cli.options import parse, settings_parser
from pvapy_stream.cli.runner import exit_code, stop_on_signals
from pvapy_stream.hpc.launch.local import Supervisor, run_here
from pvapy_stream.hpc.service import StageReport
from pvapy_stream.ledger import write_ledgers
from pvapy_stream.logs import configure_logging
from pvapy_stream.settings import ConsumerSettings

_LEDGER_PERIOD = 1.0  # s; what a killed command may lose of its account

_EPILOG = """\
examples:
  pvapy-hpc-consumer -ic pvapy:image -oc out:* -sc stat:* -cc ctrl:* -pf myproc.py -pc MyProcessor
  pvapy-hpc-consumer -ic pvapy:image -nc 4 -dg g -dt uniqueId -sqs 100 -rqs 1000 -pf myproc.py -pc MyProcessor
exit codes: 0 all well; 1 a consumer failed or objects met errors; 2 wrong options
"""


def parser() -> argparse.ArgumentParser:
    """The command's parser."""
    return settings_parser(
        ConsumerSettings, "pvapy-hpc-consumer", "Receive a stream, split it over processes, process and publish it.", _EPILOG
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    settings = parse(ConsumerSettings, parser(), argv)
    return exit_code(lambda: run(settings))


def run(settings: ConsumerSettings) -> int:
    """Run consumers until they end.

    Raises:
        PvapyStreamError: they cannot be started.
    """
    configure_logging(settings)
    console = Console()
    display = make_display(settings, console)
    last: dict[int, StageReport] = {}
    written = 0.0

    def show(reports: Mapping[int, StageReport]) -> None:
        nonlocal written
        last.update(reports)
        display.show(last)
        if settings.ledger and time.monotonic() - written > _LEDGER_PERIOD:
            written = time.monotonic()
            write_ledgers(settings.ledger, ledgers())

    def ledgers() -> list[dict[str, Any]]:
        return supervisor.ledgers() if supervisor else [report.ledger for report in last.values()]

    stop = stop_on_signals()
    supervisor = Supervisor(settings, stop, show) if len(settings.ids) > 1 else None
    try:
        problem = supervisor.run() if supervisor else run_here(settings, stop, show).problem
    finally:
        display.close()
        if settings.ledger and last:
            write_ledgers(settings.ledger, ledgers())
    for line in stats_lines(last, settings.report_stats):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if problem:
        sys.stderr.write(f"error: {problem}\n")
    return 1 if problem else 0
