"""``top`` (watch): show all stages in a live table on the terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Sequence

from rich.live import Live
from rich.table import Table
from rich.text import Text

from pvapy_stream.cli.console import make_console
from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.monitor.stages import StageView, StageWatch
from pvapy_stream.monitor.statuses import LOSSES, shown_counts
from pvapy_stream.settings import TopSettings
from pvapy_stream.signals import run_until_signal

_EPILOG = """\
Without --status-channel and --workflow: all stages that can be found.
examples:
  pvapy-stream top
  pvapy-stream top -sc 'det:status:*' --ids 1,2,3,4
  pvapy-stream top -sc 'det:*status*'
exit codes: 0 all well; 2 wrong options
"""
_LEFT = ("stage", "state", "message")
_STYLES = {"good": "green", "over": "cyan", "bad": "bold red", "warn": "yellow"}
_FIRST_LOOK = 2.0  # s
_WIDE = 200


def run(settings: TopSettings) -> int:
    """Show the stages until the runtime is over, or until a signal comes.

    Raises:
        PvapyStreamError: a pattern or a workflow file cannot be used.
    """
    from pvapy_stream.monitor.channel_names import ChannelFinder

    watch = StageWatch(ChannelFinder(settings))
    run_until_signal(lambda stop: follow(watch, settings, stop))
    return 0


def follow(watch: StageWatch, settings: TopSettings, stop: threading.Event) -> None:
    """Show the stages at every refresh: a live table on a terminal, else one table each time."""
    console = make_console()
    if not console.is_terminal:
        console = make_console(width=_WIDE)
    watch.start()
    live = Live(
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stderr=sys.stderr.isatty(),
    )
    try:
        watch.wait_for_all(_FIRST_LOOK)
        end = time.monotonic() + settings.runtime if settings.runtime else float("inf")
        if console.is_terminal:
            live.start()
        while not stop.is_set() and time.monotonic() < end:
            table = stage_table(watch.views())
            if console.is_terminal:
                live.update(table, refresh=True)
            else:
                console.print(table)
            stop.wait(min(settings.refresh, max(0.0, end - time.monotonic())))
    finally:
        live.stop()
        watch.stop()


def stage_table(views: Iterable[StageView]) -> Table:
    """A line for each stage, and one for all."""
    table = Table(caption=time.strftime("%H:%M:%S"), caption_justify="right")
    views = list(views)
    names = shown_counts(view.counts for view in views)
    for name in ("stage", "state", "rate/s", *names, "latency 90 %", "last id", "message"):
        table.add_column(name, justify="left" if name in _LEFT else "right")
    for view in views:
        table.add_row(
            Text(view.channel),
            Text(view.state, _STYLES.get(view.tone, "")),
            *_counts([view], names),
            _duration(view.latency.get("p90")),
            str(view.last_id),
            Text(view.message, "red"),
        )
    if len(views) > 1:
        table.add_section()
        latencies = [view.latency["p90"] for view in views if view.latency]
        table.add_row(
            "all", "", *_counts(views, names), _duration(max(latencies, default=None)), "", ""
        )
    return table


def _counts(views: Sequence[StageView], names: Iterable[str]) -> list[Text]:
    def total(name: str) -> float:
        return sum(view.counts.get(name, 0) for view in views)

    rate = sum(view.rates.get("processed", 0) for view in views)
    return [
        Text(f"{rate:.1f}"),
        *(
            Text(f"{total(name):.0f}", "bold red" if name in LOSSES and total(name) else "")
            for name in names
        ),
    ]


def _duration(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 1e3:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"


COMMAND = SettingsCommand(
    "pvapy-stream top",
    "Show all stages in a live table on the terminal.",
    TopSettings,
    run,
    _EPILOG,
)
main = COMMAND.main
