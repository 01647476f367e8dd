"""Receiver: shared memory if the source is on this host and publishes there, else PVA."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pvapy_stream.transport.ports import (
    Deliver,
    DeliverAgain,
    Identified,
    Receiver,
    ReceiverCounts,
    Return,
    Troubled,
)

if TYPE_CHECKING:
    from pvapy_stream.pva.lazy import StreamObject

_POLL = 0.05  # s

_log = logging.getLogger(__name__)


class AutoReceiver:
    """Waits for the first of two receivers to find the source, and continues with it.

    Args:
        channel: its name, for messages.
        is_near: returns whether the near receiver can reach the source.
        near, far: create the two receivers.
    """

    def __init__(
        self,
        channel: str,
        is_near: Callable[[], bool],
        near: Callable[[], Receiver],
        far: Callable[[], Receiver],
    ) -> None:
        self.channel = channel
        self._is_near = is_near
        self._near = near
        self._far = far()
        self._chosen: Receiver | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._deliver: Deliver | None = None
        self._again: DeliverAgain | None = None
        self._thread: threading.Thread | None = None

    def start(self, deliver: Deliver, deliver_again: DeliverAgain | None = None) -> None:
        self._deliver, self._again = deliver, deliver_again
        if self._choose_near():
            return
        self._far.start(self._from_far, self._from_far_again)
        self._thread = threading.Thread(target=self._watch, name="auto-receiver", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while self._chosen is None and not self._stopped.wait(_POLL):
            if self._choose_near():
                self._far.stop()

    def _choose_near(self) -> bool:
        if not self._is_near():
            return False
        with self._lock:
            if self._chosen is not None or self._stopped.is_set() or self._deliver is None:
                return False
            self._chosen = self._near()
            self._chosen.start(self._deliver, self._again)
        _log.info("channel %s: shared memory", self.channel)
        return True

    def _takes_far(self) -> bool:
        """Whether to deliver an object of the far receiver; checks the near one once more."""
        if self._chosen is None and not self._is_near():
            with self._lock:
                if self._chosen is None:
                    self._chosen = self._far
                    _log.info("channel %s: PVA", self.channel)
        return self._chosen is self._far

    def _from_far(self, obj: StreamObject) -> None:
        if self._takes_far() and self._deliver is not None:
            self._deliver(obj)

    def _from_far_again(self, obj: StreamObject, how: Return) -> None:
        if self._takes_far() and self._deliver is not None:
            self._again(obj, how) if self._again else self._deliver(obj)

    def stop(self, patience: float = 0.0) -> Sequence[StreamObject]:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(5)
        with self._lock:
            chosen = self._chosen
        if chosen is not self._far:
            self._far.stop()
        return chosen.stop(patience) if chosen is not None else []

    def counts(self) -> ReceiverCounts:
        return self._chosen.counts() if self._chosen else ReceiverCounts()

    @property
    def source(self) -> str:
        """Names the program that sends, see `Identified`."""
        return self._chosen.source if isinstance(self._chosen, Identified) else ""

    @property
    def first_source(self) -> str:
        """Names the program that was there first."""
        return self._chosen.first_source if isinstance(self._chosen, Identified) else ""

    @property
    def connected(self) -> bool:
        return self._chosen is not None and self._chosen.connected

    @property
    def was_connected(self) -> bool:
        return self._chosen is not None and self._chosen.was_connected

    @property
    def problem(self) -> str:
        """Why no objects arrive; "" if it is not known."""
        way = self._chosen or self._far
        return way.problem if isinstance(way, Troubled) else ""

    def keep_up(self) -> None:
        (self._chosen or self._far).keep_up()

    def newest(self, timeout: float) -> StreamObject | None:
        return self._chosen.newest(timeout) if self._chosen else None
