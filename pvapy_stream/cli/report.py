"""``pvapy-stream report``: writes a page about stages, series and alarms."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence

from pvapy_stream.cli.options import parse, settings_parser
from pvapy_stream.cli.runner import exit_code
from pvapy_stream.logs import configure_logging
from pvapy_stream.settings import ReportSettings
from pvapy_stream.signals import run_until_signal

_EPILOG = """\
examples:
  pvapy-stream report -sc 'det:status:*' --ids 1,2,3,4 -ic det:image -o report.html
  pvapy-stream report --series monitors.sqlite -o report.html --once
  pvapy-stream report -sc det:status:1 -o www/run.html --publish 'rsync -a %(REPORT_FOLDER)s host:'
The page is one file that opens without a network.
exit codes: 0 all well; 1 the page could not be written or published; 2 wrong options
"""


def parser() -> argparse.ArgumentParser:
    """The command's parser."""
    return settings_parser(
        ReportSettings,
        "pvapy-stream report",
        "Write a page about stages, series and alarms, and write it anew until they end.",
        _EPILOG,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    settings = parse(ReportSettings, parser(), argv)
    return exit_code(lambda: run(settings))


def run(settings: ReportSettings) -> int:
    """Write the report until the stages end, or until a signal comes.

    Raises:
        PvapyStreamError: a template, command, file or channel cannot be used.
    """
    # Imported late: --help and wrong options need no EPICS.
    from pvapy_stream.web.report import ReportMonitor

    configure_logging(settings)
    report = ReportMonitor(settings)

    def body(stop: threading.Event) -> None:
        report.stop = stop
        report.loop()

    run_until_signal(body)
    if problem := report.problem():
        sys.stderr.write(f"error: {problem}\n")
    return 1 if report.problem() else 0


if __name__ == "__main__":
    raise SystemExit(main())
