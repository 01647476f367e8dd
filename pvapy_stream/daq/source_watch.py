"""Whether a source is alive."""

from __future__ import annotations

from pvapy_stream.daq.items import Feed

# s without a message after which a source counts as silent. It must be reported within two.
SILENT = 1.5

_PAUSES = 3  # usual pauses of a slow stream after which it counts as silent
_LONGEST_PAUSE = 10.0  # s
_SMOOTH = 16  # messages over which the usual pause is taken


class SourceWatch:
    """Watches the source of one acquisition.

    Args:
        stream: its address, for messages.

    Attributes:
        feed: where its messages come from; None before it is known.
    """

    def __init__(self, stream: str) -> None:
        self.feed: Feed | None = None
        self._stream = stream
        self._started_at = 0.0
        self._heard_at = float("-inf")
        self._pause = 0.0
        self._quiet = 0.0

    def start(self, now: float) -> None:
        """Begin to expect messages; `now`: s on a clock that does not jump."""
        self._started_at = now

    def heard(self, now: float) -> None:
        """Note a message."""
        if self._heard_at > self._started_at:
            pause = min(now - self._heard_at, _LONGEST_PAUSE)
            self._pause += (pause - self._pause) / _SMOOTH
        self._heard_at = now
        self._quiet = 0.0

    def idle(self, now: float) -> None:
        """Note that no message is waiting: only then silence is due to the source."""
        since_start = now - self._started_at
        self._quiet = since_start if self.feed is None else min(self.feed.silent, since_start)

    @property
    def quiet(self) -> float:
        """How long nothing had come from the source since the start, when it was connected, s."""
        return self._quiet

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come for longer than it should."""
        return self.quiet > max(SILENT, _PAUSES * self._pause)

    @property
    def state(self) -> str:
        """The source is alive, silent, or unseen if nothing ever came."""
        if self.feed is None or self.feed.silent == float("inf"):
            return "unseen"
        return "silent" if self.is_silent else "alive"

    @property
    def trouble(self) -> str:
        """The current problem."""
        return f"no message from {self._stream} for {self.quiet:.1f} s"
