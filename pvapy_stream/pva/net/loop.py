"""One thread that waits for sockets and calls what belongs to them."""

from __future__ import annotations

import logging
import queue
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_TICK = 0.5  # s; longest time between two looks
_STOPS = 5.0  # s; the thread ends within this

_log = logging.getLogger(__name__)


class Loop:
    """A thread with a selector. `watch` is for who has the lock, the rest for any thread.

    Args:
        name: of the thread.
        look: called with the time after each round; gives how long the next may last, s.
        close: called at the end.

    Attributes:
        lock: held by the thread, except while it waits. Who has it may do what the thread does.
        wants_lock: whether the thread waits for the lock: who takes it often lets it in.
    """

    def __init__(
        self, name: str, look: Callable[[float], float], close: Callable[[], None]
    ) -> None:
        self.lock = threading.RLock()
        self.wants_lock = False
        self._look = look
        self._close = close
        self._selector = selectors.DefaultSelector()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wakes, self._woken = socket.socketpair()
        self._wakes.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._wake)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; what was registered or called before is not lost."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after what was called before."""
        if not self._thread.ident:
            return
        self.call(self._stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(_STOPS)

    def call(self, function: Callable[[], None]) -> None:
        """Call a function in the thread."""
        self._calls.put(function)
        if threading.current_thread() is not self._thread:
            try:
                self._wakes.send(b"\0")
            except OSError:
                # It is full, so the thread will wake anyway, or has ended.
                return

    def watch(self, link: socket.socket, events: int, handle: Callable[[int], None]) -> None:
        """Call a function at these events of a socket; with 0, no more."""
        try:
            if events:
                self._selector.modify(link, events, handle)
            else:
                self._selector.unregister(link)
        except (KeyError, ValueError):
            if events:
                self._selector.register(link, events, handle)

    def _stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        pause = 0.0
        while not self._stopping:
            ready = self._selector.select(pause)
            self.wants_lock = True
            with self.lock:
                self.wants_lock = False
                pause = self._round(ready)
        with self.lock:
            self._close()
            self._selector.close()
        self._wakes.close()
        self._woken.close()

    def _round(self, ready: list[tuple[selectors.SelectorKey, int]]) -> float:
        """Handle what is ready and what was called; how long the next round may last."""
        for key, events in ready:
            self._attempt(key.data, events)
        while not self._calls.empty():
            self._attempt(self._calls.get_nowait())
        pause = self._attempt(self._look, time.monotonic())
        return min(max(_TICK if pause is None else pause, 0.0), _TICK)

    def _attempt(self, function: Callable[..., T], *arguments: object) -> T | None:
        """Call a function. What fails, as when there are no files left, must not end the thread."""
        try:
            return function(*arguments)
        except Exception:
            _log.exception("a call in the thread %s failed", self._thread.name)
            return None

    def _wake(self, events: int) -> None:
        try:
            self._woken.recv(4096)
        except BlockingIOError:
            return
