"""When draining must be over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_TICK = 0.1  # s; longest time until a waiting thread notices an earlier end


class Deadline:
    """A time limit that any thread can shorten.

    Args:
        seconds: from now on.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.hurried = False

    def hurry(self) -> None:
        """Let it be over now."""
        self.hurried = True
        self._end = min(self._end, time.monotonic())

    @property
    def late(self) -> float:
        """How long it has been over, s; negative before."""
        return time.monotonic() - self._end

    @property
    def left(self) -> float:
        """Time until it is over, s."""
        return max(0.0, -self.late)

    @property
    def over(self) -> bool:
        """Whether it is over."""
        return self.late >= 0

    def wait_for(self, attempt: Callable[[float], bool], grace: float = 0.0) -> bool:
        """Try something until it succeeds, or until this is over by more than a grace, s.

        Args:
            attempt: gets how long it may take, s.
            grace: s.
        """
        while not attempt(min(_TICK, max(0.0, grace - self.late))):
            if self.late >= grace:
                return False
        return True

    def wait_for_end_of(self, thread: threading.Thread, grace: float = 0.0) -> bool:
        """Wait for the end of a thread in the same way."""

        def ended(timeout: float) -> bool:
            thread.join(timeout)
            return not thread.is_alive()

        return self.wait_for(ended, grace)
