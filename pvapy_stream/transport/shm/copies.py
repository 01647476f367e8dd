"""Large objects that a publisher copies, as it can send no reference: counted and explained."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

# Reasons for which objects are copied, by the names of the counters.
NO_SLOT, NO_MEMORY, SUBSCRIBER = "no_slot", "no_memory", "subscriber"

_PERIOD = 1.0  # s between two explanations; each takes about a millisecond
# s; holders change, and the size of shared memory does not.
_WARN_PERIODS = {NO_SLOT: 60.0, NO_MEMORY: math.inf}
_FORGET_AFTER = 10.0  # s; a problem that has not come again for so long is no longer shown

_log = logging.getLogger(__name__)


class Copies:
    """Counts objects that are copied, by reason. Costs nothing as long as none is.

    Args:
        channel: name of the channel.

    Attributes:
        counts: number of objects that were copied for each reason. `no_slot`: all slots of the pool
            were in use. `no_memory`: shared memory was too small for a pool, or full. `subscriber`:
            a subscriber cannot read pools, or its queue was full.
    """

    def __init__(self, channel: str) -> None:
        self.counts: dict[str, int] = {NO_SLOT: 0, NO_MEMORY: 0, SUBSCRIBER: 0}
        self._channel = channel
        self._problem = ""
        self._last = -_FORGET_AFTER
        self._explain_due: dict[str, float] = {}
        self._warn_due: dict[str, float] = {}

    def note(self, reason: str, explain: Callable[[], str] | None = None) -> None:
        """Count an object.

        Args:
            reason: one of `counts`.
            explain: makes the text for status and log; None: it is only counted.
        """
        self.counts[reason] += 1
        if explain is None:
            return
        self._last = now = time.monotonic()
        if now < self._explain_due.get(reason, now):
            return
        self._explain_due[reason] = now + _PERIOD
        self._problem = f"channel {self._channel}: {explain()}"
        if now >= self._warn_due.get(reason, now):
            self._warn_due[reason] = now + _WARN_PERIODS.get(reason, math.inf)
            _log.warning("%s", self._problem)

    @property
    def problem(self) -> str:
        """Why objects are copied at present; "" if none are. For any thread."""
        return self._problem if time.monotonic() - self._last < _FORGET_AFTER else ""
