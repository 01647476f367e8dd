"""Progress of acquisitions in the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from pvapy_stream.cli.console import make_console
from pvapy_stream.daq.acquisition import Acquisition
from pvapy_stream.daq.progress import Progress

_SHOWN = 8  # acquisitions, the newest
_COLUMNS = ("", "state", "rows", "msgs/s", "MB/s", "lag", "left", "lost", "", "file")


class Display:
    """A live table on a terminal; otherwise lines.

    Args:
        period: how often a line is written, s; 0: only when a state changes.
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self._console = make_console()
        self._live: Live | None = None
        self._said: dict[int, tuple[str, float]] = {}

    def say(self, line: str) -> None:
        """Write a line."""
        self._console.print(line, soft_wrap=True)

    def show(self, acquisitions: Sequence[Acquisition]) -> None:
        """Show their status."""
        found = [one.progress() for one in acquisitions[-_SHOWN:]]
        if not self._console.is_terminal:
            self._write_lines(found)
            return
        if self._live is None:
            self._live = Live(
                console=self._console, auto_refresh=False, redirect_stderr=sys.stderr.isatty()
            )
            self._live.start()
        self._live.update(table(found), refresh=True)

    def _write_lines(self, found: Iterable[Progress]) -> None:
        now = time.monotonic()
        for one in found:
            key = f"{one.phase} {one.status}"
            before, at = self._said.get(one.number, ("waiting waiting", now))
            due = self._period > 0 and now - at >= self._period
            running = one.phase in ("armed", "writing", "finishing")
            if key != before or (due and running):
                self._said[one.number] = key, now
                self.say(line_of(one))

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()


def line_of(one: Progress) -> str:
    """All in a line."""
    problem = f": {one.problem}" if one.problem else ""
    return (
        f"acquisition {one.number} {one.phase}{problem}: {one.rows} rows, last pulse"
        f" {_text(one.last_pulse_id)}, {one.rate:.1f} messages/s, lag {_seconds(one.lag)}, left"
        f" {_seconds(one.time_left)}, {one.n_lost} lost, {one.file or 'no file'}"
    )


def table(found: Iterable[Progress]) -> Table:
    """All in a table."""
    made = Table(box=None, pad_edge=False)
    for number, name in enumerate(_COLUMNS):
        made.add_column(name, justify="right" if 2 <= number <= 7 else "left")
    for one in found:
        made.add_row(
            str(one.number),
            one.phase,
            str(one.rows),
            f"{one.rate:.1f}",
            f"{one.byte_rate / 1e6:.1f}",
            _seconds(one.lag),
            _seconds(one.time_left),
            str(one.n_lost),
            _bar(one),
            one.problem or one.file,
        )
    return made


def _bar(one: Progress) -> RenderableType:
    first = one.start_pulse_id if one.start_pulse_id is not None else one.first_pulse_id
    if first is None or one.stop_pulse_id is None:
        return ""
    last = first - 1 if one.last_pulse_id is None else one.last_pulse_id
    return ProgressBar(one.stop_pulse_id - first + 1, last - first + 1, width=20)


def _text(value: int | None) -> str:
    return "-" if value is None else str(value)


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} s" if abs(value) < 100 else f"{value:.0f} s"
