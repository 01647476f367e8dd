"""Running consumers and collectors from a command line: display, ledger file, last report."""

from __future__ import annotations

import sys
from typing import Any

from pvapy_stream.accounting.keeper import LedgerKeeper
from pvapy_stream.cli.display import PlainLines, Reports, StageDisplay, show_lines, stats_lines
from pvapy_stream.early import importing
from pvapy_stream.logs import configure_logging
from pvapy_stream.settings import StageSettings
from pvapy_stream.signals import run_until_signal
from pvapy_stream.status.metrics import served
from pvapy_stream.status.snapshot import Snapshot

_LEDGER_PERIOD = 1.0  # s; the last time that may be missing in the ledger of a killed command


def run(settings: StageSettings) -> int:
    """Run stages until they end.

    Raises:
        PvapyStreamError: they cannot be started.
    """
    # Imported late: --help and wrong options need no EPICS.
    with importing():
        from pvapy_stream.hpc.consumers import run_stages

    configure_logging(settings)
    board = Board(settings)
    try:
        with served(settings, board.snapshots):
            problem = run_until_signal(lambda stop: run_stages(settings, stop, board.show))
    finally:
        unwritten = board.close()
    show_lines(stats_lines(board.reports, settings.report_stats))
    problems = list(filter(None, [problem, unwritten]))
    for one in problems:
        sys.stderr.write(f"error: {one}\n")
    return 1 if problems else 0


def _make_display(settings: StageSettings) -> StageDisplay:
    """A live table on a terminal; otherwise plain lines, if a report period is given."""
    if sys.stdout.isatty() and not settings.disable_curses:
        # Most stages have no terminal, and start faster without the display library.
        from pvapy_stream.cli.live_table import LiveTable

        return LiveTable()
    return PlainLines(settings.report_period, settings.report_stats)


class Board:
    """Receives the reports of all stages, shows them, and writes the ledger file."""

    def __init__(self, settings: StageSettings) -> None:
        self.reports: Reports = {}
        self._ledgers: list[dict[str, Any]] = []
        self._keeper = LedgerKeeper(
            settings.ledger, lambda: self._ledgers, min(_LEDGER_PERIOD, settings.status_period)
        )
        self._display = _make_display(settings)

    def show(self, reports: Reports, ledgers: list[dict[str, Any]]) -> str:
        """Take the newest reports, and the ledgers of all processes so far.

        Returns:
            why the ledgers cannot be written, or "".
        """
        self.reports, self._ledgers = reports, ledgers
        self._display.show(reports)
        self._keeper.keep()
        return self._keeper.problem

    def snapshots(self) -> list[Snapshot]:
        """The newest status of each stage."""
        return [report.snapshot for _, report in sorted(self.reports.items())]

    def close(self) -> str:
        """End the display and write the last ledgers; why they cannot be written, or ""."""
        self._display.close()
        return self._keeper.close()
