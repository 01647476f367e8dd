"""Receiver of a share through the binding, which first checks for a distributor."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.sharing import ANSWERS, sharing_of
from pvapy_stream.transport.ports import Deliver, DeliverAgain, Receiver, ReceiverCounts

if TYPE_CHECKING:
    from pvapy_stream.pva.lazy import StreamObject

_CAME = 1.0  # s; how long a check waits for the channel
_AGAIN = 2.0  # s; until a server without a distributor is checked again

_log = logging.getLogger(__name__)


class CheckedReceiver:
    """Receives with another receiver while the server of the channel has a distributor.

    The binding reconnects by itself, so a server that is replaced by one of another kind within the
    period of `keep_up` is not detected.

    Args:
        channel: name of the channel.
        inner: receiver that is started when the server is known.
        unshared: called with the reason if the server gives no share; None: it is logged as an
            error.
    """

    def __init__(
        self, channel: str, inner: Receiver, unshared: Callable[[str], None] | None
    ) -> None:
        self._channel = channel
        self._inner = inner
        self._unshared = unshared or self._log_unshared
        self._errors = 0
        self._told = ""
        self._deliver: Deliver | None = None
        self._again: DeliverAgain | None = None
        self._running = False
        self._was_there = False
        self._looking: threading.Thread | None = None
        self._look_at = 0.0
        self._shares = False

    def start(self, deliver: Deliver, deliver_again: DeliverAgain | None = None) -> None:
        self._deliver, self._again = deliver, deliver_again
        self._look()

    def _log_unshared(self, reason: str) -> None:
        self._errors += 1
        _log.error("channel %s cannot be shared: %s", self._channel, reason)

    def _look(self) -> None:
        self._look_at = time.monotonic() + _AGAIN
        self._looking = threading.Thread(target=self._find_out, name="pva-sharing", daemon=True)
        self._looking.start()

    def _find_out(self) -> None:
        client = Client()
        try:
            channel = client.channel(self._channel)
            while self._deliver is not None and not channel.wait(_CAME):
                pass
            why = sharing_of(channel, ANSWERS).why if self._deliver is not None else ""
        finally:
            client.stop()
        self._shares = not why
        if why and why != self._told:
            self._unshared(why)
        self._told = why

    def keep_up(self) -> None:
        if self._deliver is None or (self._looking is not None and self._looking.is_alive()):
            return
        inner = self._inner
        if not self._running:
            if self._shares:
                self._running = True
                inner.start(self._deliver, self._again)
            elif time.monotonic() >= self._look_at:
                self._look()
            return
        inner.keep_up()
        if inner.connected:
            self._was_there = True
        elif self._was_there:
            # The next server may be of another kind.
            self._was_there = self._running = self._shares = False
            inner.stop()
            self._look()

    def stop(self, patience: float = 0.0) -> Sequence[StreamObject]:
        self._deliver = None
        if self._looking is not None:
            self._looking.join(_CAME + 2 * ANSWERS)
        return self._inner.stop(patience) if self._running else []

    def counts(self) -> ReceiverCounts:
        counts = self._inner.counts()
        return replace(counts, errors=counts.errors + self._errors)

    @property
    def connected(self) -> bool:
        return self._running and self._inner.connected

    @property
    def was_connected(self) -> bool:
        return self._inner.was_connected

    def newest(self, timeout: float) -> StreamObject | None:
        return self._inner.newest(timeout) if self._running else None
