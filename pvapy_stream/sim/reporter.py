"""What the simulator reports while it runs, and at the end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from msgspec import Struct

from pvapy_stream.status.counted import Times

if TYPE_CHECKING:
    from rich.live import Live

_MIN_PERIOD = 0.2


class Totals(Struct):
    """What was published.

    Attributes:
        frames: number of frames.
        first, last: when the first and the last went out, s on a monotonic clock.
        frame_bytes: uncompressed size of one.
        late: frames that went out after their time.
        failed: frames that could not be published.
        first_id, last_id: ids of the first and the last.
    """

    frames: int = 0
    first: float = 0.0
    last: float = 0.0
    frame_bytes: float = 0.0
    late: int = 0
    failed: int = 0
    first_id: int = 0
    last_id: int = 0

    @property
    def runtime(self) -> float:
        """Time between the first and the last frame, s."""
        return self.last - self.first

    def times(self, start: float, end: float) -> Times:
        """The times of the program, which began and ended then; s since 1970."""
        # Frames are timed by a clock that does not go back.
        offset = time.time() - time.monotonic() if self.frames else 0.0
        return Times(start, end, self.first + offset, self.last + offset)

    @property
    def rate(self) -> float:
        """Frames/s."""
        return (self.frames - 1) / self.runtime if self.runtime > 0 else 0.0


class Reporter:
    """Reports progress every `period` frames (0: never), but at most five times a second.

    Args:
        period: frames between reports.
        live: one line that changes, if standard output is a terminal; else a line for each report.
    """

    def __init__(self, period: int, live: bool) -> None:
        self._period = period
        self.next_frame: float = period if period > 0 else float("inf")
        self._next_time = 0.0
        self._live = _live_line() if live and sys.stdout.isatty() else None

    def start(self) -> None:
        """Begin the live line."""
        if self._live is not None:
            self._live.start()

    def progress(self, totals: Totals) -> None:
        """Call when `next_frame` frames are published."""
        now = time.monotonic()
        if now < self._next_time:
            return
        self._next_time = now + _MIN_PERIOD
        self.next_frame = (totals.frames // self._period + 1) * self._period
        late = f", {totals.late} late" if totals.late else ""
        self._show(
            f"Published frame id {totals.frames} (frame rate: {totals.rate:.4f} fps; runtime:"
            f" {totals.runtime:.3f} s{late})"
        )

    def say(self, text: str) -> None:
        """Show a line of its own kind, such as what is being waited for."""
        if self._period > 0:
            self._show(text)

    def end(self, totals: Totals) -> None:
        """Show the three closing lines, which scripts read."""
        if self._live is not None:
            self._live.stop()
        sys.stdout.write(
            f"Server runtime: {totals.runtime:.4f} seconds\n"
            f"Published frames: {totals.frames} @ {totals.rate:.4f} fps\n"
            f"Data rate: {totals.frame_bytes * totals.rate / 1e6:.4f}MBps\n"
        )
        sys.stdout.flush()

    def _show(self, text: str) -> None:
        if self._live is not None:
            self._live.update(text, refresh=True)
        else:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()


def _live_line() -> Live:
    # Without a terminal, programs start sooner without what draws on one.
    from rich.console import Console
    from rich.live import Live

    return Live(
        console=Console(markup=False, emoji=False, highlight=False),
        auto_refresh=False,
        transient=True,
        redirect_stderr=sys.stderr.isatty(),
    )
