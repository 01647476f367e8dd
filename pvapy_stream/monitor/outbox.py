"""Messages on their way to a notifier: never blocking, at a limited rate, with retries."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Protocol

from pvapy_stream.rate_limit import RateLimit

_RETRY_AFTER = (1.0, 5.0, 20.0)  # s
_KEPT = 100  # messages; of more that wait, only the number is sent
_SHOWN = 20  # of them in a message that puts several together
_CLOSING_TIME = 10.0  # s

_log = logging.getLogger(__name__)


class Notifier(Protocol):
    """Sends messages to somebody."""

    def notify(self, title: str, message: str) -> None: ...


class Outbox:
    """Takes messages for a notifier and sends them from a thread of its own.

    Messages that come faster than they may go are put together into one. A message that cannot be
    sent is tried again a few times, then counted and logged.

    Args:
        notifier: sends the messages.
        per_minute: highest rate of messages; 0: no limit.
        patience: s for which `notify` waits until a message is out, as long as that works.
        retry_after: s to wait before each further attempt.

    Attributes:
        n_sent: messages that went out; several put together count once.
        n_failed: messages that could not be sent.
        last_error: of the notifier.
    """

    def __init__(
        self,
        notifier: Notifier,
        *,
        per_minute: float = 0.0,
        patience: float = 0.0,
        retry_after: tuple[float, ...] = _RETRY_AFTER,
    ) -> None:
        self._notifier = notifier
        self._limit = RateLimit(per_minute)
        self._patience = patience
        self._retry_after = retry_after
        self._waiting: deque[tuple[str, str]] = deque()
        self._n_more = 0
        self._sending = False
        self._stuck = False
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.n_sent = 0
        self.n_failed = 0
        self.last_error = ""

    def notify(self, title: str, message: str) -> None:
        """Take a message; raises nothing."""
        with self._changed:
            if self._closing.is_set():
                return
            if len(self._waiting) < _KEPT:
                self._waiting.append((title, message))
            else:
                self._n_more += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            if self._patience and not self._stuck:
                self._stuck = not self._changed.wait_for(self._idle, self._patience)

    def _idle(self) -> bool:
        return not self._waiting and not self._sending

    def close(self, timeout: float = _CLOSING_TIME) -> None:
        """Send what waits at once, one attempt each, and end; what is left is counted."""
        deadline = time.monotonic() + timeout
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
            if self._thread is None:
                return
            if not self._changed.wait_for(self._idle, timeout):
                left = len(self._waiting) + self._n_more + self._sending
                self.n_failed += left
                _log.error("%s: %d messages were not sent", _name(self._notifier), left)
                return
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while (found := self._next()) is not None:
            title, message = found
            self._send(title, message)
            with self._changed:
                self._sending = False
                self._stuck = self._stuck and bool(self._waiting)
                self._changed.notify_all()

    def _next(self) -> tuple[str, str] | None:
        """Wait for messages and until one may go; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
            while self._waiting and not self._closing.is_set():
                delay = self._limit.delay(time.monotonic())
                if delay <= 0:
                    self._limit.spend()
                    break
                self._changed.wait(delay)
            if not self._waiting:
                return None
            # When the next one has to wait, all go now.
            together = self._closing.is_set() or self._limit.delay(time.monotonic()) > 0
            messages = list(self._waiting) if together else [self._waiting[0]]
            more = self._n_more if together else 0
            self._n_more -= more
            for _ in messages:
                self._waiting.popleft()
            self._sending = True
        return messages[0] if len(messages) == 1 and not more else _digest(messages, more)

    def _send(self, title: str, message: str) -> None:
        for pause in (*self._retry_after, None):
            try:
                self._notifier.notify(title, message)
                self.n_sent += 1
                return
            except Exception as error:
                self.last_error = f"{type(error).__name__}: {error}"
            if pause is None or self._closing.is_set():
                break
            _log.warning(
                "%s failed, next attempt in %g s: %s",
                _name(self._notifier),
                pause,
                self.last_error,
            )
            self._closing.wait(pause)
        self.n_failed += 1
        _log.error(
            "%s: message %r could not be sent: %s", _name(self._notifier), title, self.last_error
        )


def _digest(messages: list[tuple[str, str]], more: int) -> tuple[str, str]:
    count = len(messages) + more
    lines = [f"{title}\n    {text}" for title, text in messages[:_SHOWN]]
    if count > len(lines):
        lines.append(f"and {count - len(lines)} more")
    return f"{count} messages: {messages[0][0]}, …", "\n".join(lines)


def _name(notifier: Notifier) -> str:
    return type(notifier).__name__
