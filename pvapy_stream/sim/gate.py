"""Who says when a source begins and ends."""

from __future__ import annotations

import threading
from typing import Protocol


class Gate(Protocol):
    """Who says when to begin and when to go, instead of delays: a workflow.

    Attributes:
        finish: ends the publishing, as the number of frames does; set also after `stop`.
    """

    finish: threading.Event

    def begin(self, stop: threading.Event) -> None:
        """The way out is there; returns when the first frame or pulse is to go."""

    def end(self, stop: threading.Event) -> None:
        """All went out; returns when everybody has it."""
