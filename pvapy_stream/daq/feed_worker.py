"""The thread that reads a feed and passes its messages to the acquisitions that need them."""

from __future__ import annotations

import logging
import threading
import time

from pvapy_stream.daq.acquisition import Acquisition
from pvapy_stream.daq.items import Feed
from pvapy_stream.errors import PvapyStreamError

_TICK = 0.05  # s
_END_WAIT = 10.0  # s

_log = logging.getLogger(__name__)


class Worker:
    """Runs until all its acquisitions are over, then closes the feed.

    Args:
        feed: source of messages.
        first: the first of the acquisitions.
    """

    def __init__(self, feed: Feed, first: Acquisition) -> None:
        self._feed = feed
        self._lock = threading.Lock()
        self._active: tuple[Acquisition, ...] = (first,)
        first.follow(feed)
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def join(self, acquisition: Acquisition) -> bool:
        """Add an acquisition; False if it is too late for that."""
        with self._lock:
            if not self._active:
                return False
            acquisition.follow(self._feed)
            self._active = (*self._active, acquisition)
            return True

    @property
    def alive(self) -> bool:
        """Whether it reads, or has the feed to close."""
        return self._thread.is_alive()

    def wait(self) -> None:
        """Wait until the feed is closed."""
        self._thread.join(_END_WAIT)

    def _run(self) -> None:
        try:
            self._read()
        except PvapyStreamError as error:
            self._fail(str(error))
        except Exception as error:  # any error must end the acquisitions
            _log.exception("%s", self._feed.address)
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            self._feed.close()

    def _read(self) -> None:
        feed = self._feed
        look_at = 0.0
        while self._active:
            message = feed.read(_TICK)
            now = time.monotonic()
            if message is not None:
                for acquisition in self._active:
                    acquisition.take(message, now)
            if now >= look_at or message is None:
                look_at = now + _TICK
                self._look(now, message is None)

    def _look(self, now: float, idle: bool) -> None:
        for acquisition in self._active:
            acquisition.look(now, idle)
        with self._lock:
            self._active = tuple(one for one in self._active if not one.over.is_set())

    def _fail(self, problem: str) -> None:
        with self._lock:
            active, self._active = self._active, ()
        for acquisition in active:
            acquisition.fail(problem)
