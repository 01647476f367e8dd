"""``report`` (watch): write an HTML report about stages, series and alarms."""

from __future__ import annotations

import sys
import threading

from pvapy_stream.cli.settings_command import SettingsCommand
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


def run(settings: ReportSettings) -> int:
    """Write the report until the stages end, or until a signal comes.

    Raises:
        PvapyStreamError: a template, command, file or channel cannot be used.
    """
    # Imported late: --help and wrong options need no EPICS.
    from pvapy_stream.web.html_report import ReportMonitor

    report = ReportMonitor(settings)

    def body(stop: threading.Event) -> None:
        report.stop = stop
        report.loop()

    run_until_signal(body)
    if problem := report.problem():
        sys.stderr.write(f"error: {problem}\n")
    return 1 if report.problem() else 0


COMMAND = SettingsCommand(
    "pvapy-stream report",
    "Write an HTML report about stages, series and alarms, and update it until they end.",
    ReportSettings,
    run,
    _EPILOG,
)
main = COMMAND.main
