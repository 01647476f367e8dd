"""Attempts at a remote side: again at growing intervals, for a limited time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pvaccess as pva

from pvapy_stream.errors import TransportError

_FIRST = 0.05  # s
_LONGEST = 2.0  # s

# What the binding raises for a side that is absent, silent or unwilling.
REMOTE_ERRORS = (pva.PvaException, RuntimeError, ValueError)


class Attempts:
    """Makes attempts, and remembers a side that is down.

    An attempt that fails is made again for at most `limit` s. After that the side counts as down:
    the next calls fail at once until it is time for another attempt, so that objects that cannot be
    sent do not hold up the stream for `limit` each.

    Attributes:
        errors: failed attempts, those that were mended too, and objects that met a side down.
    """

    def __init__(self, what: str, limit: float) -> None:
        self._what = what
        self._limit = limit
        self._wait = _FIRST
        self._down_until: float | None = None
        self._stopped = threading.Event()
        self.errors = 0

    def make(self, attempt: Callable[[], None]) -> None:
        """Make an attempt, and others if it fails.

        Raises:
            TransportError: it failed for the whole time, or the side is down.
        """
        start = time.monotonic()
        if self._down_until is not None and start < self._down_until:
            self.errors += 1
            raise TransportError(f"{self._what}: it is down, the next attempt comes soon")
        deadline = start if self._down_until is not None else start + self._limit
        while True:
            try:
                attempt()
            except REMOTE_ERRORS as error:
                self.errors += 1
                now = time.monotonic()
                if now + self._wait > deadline or self._stopped.wait(self._wait):
                    self._note_down(now)
                    raise TransportError(f"{self._what}: {error}") from error
                self._wait = min(2 * self._wait, _LONGEST)
            else:
                self._wait, self._down_until = _FIRST, None
                return

    def _note_down(self, now: float) -> None:
        if self._down_until is not None:
            self._wait = min(2 * self._wait, _LONGEST)
        self._down_until = now + self._wait

    def stop(self) -> None:
        """Wait no more."""
        self._stopped.set()
