"""What ways in have in common that others come to: a channel they put to, a service they call."""

from __future__ import annotations

import logging
import threading
from typing import Any

from pvapy_stream.transport.ports import Deliver, ReceiverCounts

_LAST_DELIVERY = 5.0  # s; least time that an object which is being delivered gets at the end

_log = logging.getLogger(__name__)


class ServingReceiver:
    """Delivers what callers bring, one object at a time; they have threads of their own.

    Args:
        channel: name of the channel.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self._deliver: Deliver | None = None
        self._busy = threading.Lock()
        self._newest: Any = None
        self._received = self._errors = 0
        self.was_connected = False

    def _open(self) -> None:
        """Let callers come, when they may not yet."""

    def _close(self) -> None:
        """Let nobody come any more."""

    def _take(self, obj: Any) -> str:
        """Deliver an object of a caller. Raises nothing; what went wrong comes back, or ""."""
        with self._busy:
            if self._deliver is None:
                return "the receiver has stopped"
            self.was_connected = True
            self._received += 1
            self._newest = obj
            try:
                self._deliver(obj)
            except Exception as error:
                self._errors += 1
                _log.exception("channel %s: an object could not be delivered", self.channel)
                return f"{type(error).__name__}: {error}"
        return ""

    def start(self, deliver: Deliver, deliver_again: Deliver | None = None) -> None:
        self._deliver = deliver
        self._open()

    def stop(self, patience: float = 0.0) -> list[Any]:
        taken = self._busy.acquire(timeout=max(patience, _LAST_DELIVERY))
        self._deliver = None
        if taken:
            self._busy.release()
        else:
            _log.error("channel %s: an object is still being processed", self.channel)
        self._close()
        return []

    def counts(self) -> ReceiverCounts:
        return ReceiverCounts(received=self._received, errors=self._errors)

    def reset_counts(self) -> None:
        self._received = self._errors = 0

    @property
    def connected(self) -> bool:
        """Whether anybody has come; callers do not stay, or the binding does not tell."""
        return self.was_connected and self._deliver is not None

    def keep_up(self) -> None:
        pass

    def newest(self, timeout: float) -> Any | None:
        return self._newest
