"""Bursts: objects that one thread handles in a row, as they came together.

What it publishes meanwhile is sent together too: for small objects, a call of the kernel for each
costs more than all else. A way out that gathers looks whether its thread is in a burst, and gives
the function that sends what it has gathered.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

Send = Callable[[], None]

_of_thread = threading.local()
_log = logging.getLogger(__name__)


def begin() -> None:
    """Say that the thread handles several objects in a row; `end` must follow."""
    if current() is None:
        _of_thread.sends = []


def end() -> None:
    """Send what was gathered since `begin`."""
    sends, _of_thread.sends = current(), None
    for send in sends or ():
        try:
            send()
        except Exception:
            # The thread of a stage must not end with it.
            _log.exception("what was gathered is not sent at once")


def current() -> list[Send] | None:
    """What the end of this thread's burst will call; None if it is in none."""
    return getattr(_of_thread, "sends", None)
