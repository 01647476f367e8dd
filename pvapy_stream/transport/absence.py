"""Channels that are not found: which, since when, and what to check."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence

_FIRST = 5.0  # s; until a missing channel is logged
_LATER = 10  # times as long, until it is logged again


class Awaited:
    """Reports channels that have not been found yet.

    Args:
        log: logger of the messages.
        hint: what to check, from the mode.

    Attributes:
        remark: message of the status; "" until it is logged.
    """

    def __init__(self, log: logging.Logger, hint: str) -> None:
        self._log = log
        self._hint = hint
        self._begun, self._begun_at = time.monotonic(), time.strftime("%H:%M:%S")
        self._after = _FIRST
        self.remark = ""

    def look(self, absent: Sequence[str]) -> None:
        """Log missing channels when it is time; called a few times a second.

        Args:
            absent: channels that were never found.
        """
        waited = time.monotonic() - self._begun
        if not absent:
            self.remark = ""
        elif waited >= self._after:
            self._after *= _LATER
            many = len(absent) > 1
            self.remark = (
                f"channel{'s' * many} {', '.join(absent)} {'have' if many else 'has'} not been"
                f" found since {self._begun_at} ({waited:.0f} s); {self.to_check(absent)}"
            )
            self._log.warning("%s", self.remark)

    def to_check(self, absent: Sequence[str]) -> str:
        """What to check, with the first of the channels and the present environment."""
        hint = self._hint
        for name in ("EPICS_PVA_ADDR_LIST", "EPICS_CA_ADDR_LIST"):
            hint = hint.replace(name, f"{name} ({os.environ.get(name) or 'not set'})")
        return hint.replace("{channel}", absent[0])
