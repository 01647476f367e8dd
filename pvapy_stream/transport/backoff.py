"""Attempts to reach a remote side, repeated at growing intervals for a limited time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.net.client_errors import NoAnswerError, NotSentError, RefusedError

_FIRST = 0.05  # s
_LONGEST = 2.0  # s
_SLOWEST = 0.5  # s; for which an object of a long outage is held at most
_SMOOTH = 8  # objects over which the pace is averaged

# Failures after which an attempt may be repeated: the object was not received.
AGAIN = (NotSentError, RefusedError)


class Attempts:
    """Makes attempts, and remembers a side that is down.

    An outage begins with an attempt that fails, and ends with one that succeeds. It delays the
    stream by at most `limit` s in total, for which the first object is retried. After that, objects
    fail, but at the rate of the stream, so that objects that are queued when the side reconnects
    are not lost. The rate is that at which objects were sent before, or, if none was sent yet, that
    of their times.

    Attributes:
        errors: failed attempts, including those with a successful retry, and objects that failed
            during an outage.
    """

    def __init__(self, what: str, limit: float) -> None:
        self._what = what
        self._limit = limit
        self._wait = _FIRST
        self._held = 0.0  # s; by the present outage
        self._down = self._reached = False
        self._not_before = 0.0  # no attempt before this time at a side that answers with a failure
        self._pace = 0.0  # s; from one object to the next
        self._time_ns = 0  # of the object before, as long as none was sent
        self._last: float | None = None  # begin of the object before, if it was sent
        self._stopped = threading.Event()
        self.errors = 0

    def make(self, attempt: Callable[[float], None], time_ns: int = 0) -> None:
        """Make an attempt, and repeat it if it fails.

        Args:
            attempt: called with the longest wait for the other side, s.
            time_ns: of the object; 0 when unknown.

        Raises:
            TransportError: it failed for the whole time, or must not be repeated.
        """
        start = time.monotonic()
        if not self._reached:
            self._pace = (time_ns - self._time_ns) / 1e9 if self._time_ns else 0.0
            self._time_ns = time_ns
        deadline = start + self._patience()
        while True:
            error = self._attempt(attempt, deadline)
            if error is None:
                self._sent(start)
                return
            if not isinstance(error, (*AGAIN, NoAnswerError)):
                # The side is connected, and another attempt would fail too.
                raise error
            now = time.monotonic()
            if (
                isinstance(error, NoAnswerError)
                or now >= deadline
                or self._stopped.wait(min(self._wait, deadline - now))
            ):
                self._held += time.monotonic() - start
                self._down, self._last = True, None
                unknown = (
                    ", so whether it has the object is not known"
                    if isinstance(error, NoAnswerError)
                    else ""
                )
                raise TransportError(f"{self._what}: {error}{unknown}") from error
            self._wait = min(2 * self._wait, _LONGEST)

    def _patience(self) -> float:
        """How long the next object may delay the stream, s."""
        left = self._limit - self._held if self._down else self._limit
        return left if left > 0 else min(max(self._pace, 0.0), _SLOWEST)

    def _attempt(self, attempt: Callable[[float], None], deadline: float) -> TransportError | None:
        began = time.monotonic()
        if began < self._not_before:
            self.errors += 1
            return NotSentError("it fails; it is retried soon")
        try:
            attempt(max(deadline - began, 0.0))
        except TransportError as error:
            self.errors += 1
            if self._down and isinstance(error, (RefusedError, NoAnswerError)):
                # Attempts may be slow: at most half of the time is used for them.
                now = time.monotonic()
                self._not_before = now + max(self._wait, now - began)
            return error
        return None

    def _sent(self, start: float) -> None:
        if not self._reached:
            self._pace = 0.0
        elif self._last is not None:
            pace = start - self._last
            self._pace = self._pace + (pace - self._pace) / _SMOOTH if self._pace else pace
        self._last = start
        self._wait, self._held, self._not_before = _FIRST, 0.0, 0.0
        self._down, self._reached = False, True

    def stop(self) -> None:
        """Stop waiting."""
        self._stopped.set()
