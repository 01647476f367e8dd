"""Errors of a stage: counted, and logged seldom enough to be read."""

from __future__ import annotations

import logging
import time

from pvapy_stream.errors import PvapyStreamError

# Errors are logged at the first of each kind and place, then at every thousandth of a kind.
LOG_EVERY = 1000
# Errors that differ in their place in the code are logged with their traceback, up to so many.
_MOST_PLACES = 100
# An error that has not come again for so long is no longer shown in the status.
_FORGET_AFTER = 10.0  # s


class Troubles:
    """Counts errors by kind, and logs the first of each kind and each place in the code.

    Attributes:
        counts: number of errors by kind, in the whole run.
        last: the last one; "" for none.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.counts: dict[str, int] = {}
        self.last = ""
        self._at = 0.0
        self._places: set[tuple[str, str, str, int]] = set()
        self._log = logger

    def note(self, kind: str, message: str, error: BaseException, what: str) -> None:
        """Count an error.

        Args:
            kind: one of few, without ids or other values.
            message: what the status says.
            error: the error.
            what: whom it met, for the log.
        """
        self._take(kind, message, 1)
        seen = self.counts[kind]
        place = (kind, type(error).__name__, *_place(error))
        new = place not in self._places and len(self._places) < _MOST_PLACES
        if new:
            self._places.add(place)
        if new or seen % LOG_EVERY == 0:
            # A traceback says nothing more where we raised the error ourselves.
            trace = error if new and not isinstance(error, PvapyStreamError) else None
            self._log.error(
                "%s, %s (%d of this kind so far): %s", what, kind, seen, error, exc_info=trace
            )

    def note_late(self, kind: str, message: str, n: int) -> None:
        """Count errors that were logged elsewhere."""
        self._take(kind, message, n)

    def _take(self, kind: str, message: str, n: int) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + n
        self.last = message
        self._at = time.monotonic()

    @property
    def recent(self) -> str:
        """The last error while it is recent, else ""."""
        return self.last if time.monotonic() - self._at < _FORGET_AFTER else ""


def _place(error: BaseException) -> tuple[str, int]:
    """Where in the code an error was raised."""
    trace = error.__traceback__
    if trace is None:
        return "", 0
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno
