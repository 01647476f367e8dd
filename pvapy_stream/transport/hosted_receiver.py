"""Common part of receivers that host a channel for puts, or a service for calls."""

from __future__ import annotations

import logging
import queue
import threading

from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.net.server_channel import Channel, Put
from pvapy_stream.pva.wire.status import Status
from pvapy_stream.transport.own_server import host
from pvapy_stream.transport.ports import Deliver, DeliverAgain, ReceiverCounts

_LAST_DELIVERY = 5.0  # s; minimum time for an object in delivery at the end
_ENDS = 2.0  # s; for the end of the thread
STOPPED = "the receiver has stopped"

_log = logging.getLogger(__name__)


class ServingReceiver:
    """Delivers the objects of callers, one at a time; callers have their own threads.

    Args:
        channel: name of the channel.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self._deliver: Deliver | None = None
        self._busy = threading.Lock()
        self._newest: StreamObject | None = None
        self._received = self._errors = 0
        self.was_connected = False

    def _open(self) -> None:
        """Accept callers, if they are not accepted yet."""

    def _close(self) -> None:
        """Stop accepting callers."""

    def _take(self, obj: StreamObject) -> tuple[bool, str]:
        """Deliver an object of a caller. Raises nothing.

        Returns:
            whether it was taken, and the error, or "".
        """
        with self._busy:
            if self._deliver is None:
                return False, STOPPED
            self.was_connected = True
            self._received += 1
            self._newest = obj
            try:
                if self._deliver(obj) is False:
                    return False, "the stage has rejected the object: its queue is full"
            except Exception as error:
                self._errors += 1
                _log.exception("channel %s: an object could not be delivered", self.channel)
                return True, f"{type(error).__name__}: {error}"
        return True, ""

    def start(self, deliver: Deliver, deliver_again: DeliverAgain | None = None) -> None:
        self._deliver = deliver
        self._open()

    def stop(self, patience: float = 0.0) -> list[StreamObject]:
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

    @property
    def connected(self) -> bool:
        """Whether any caller has connected; disconnections are not known."""
        return self.was_connected and self._deliver is not None

    def keep_up(self) -> None:
        pass

    def newest(self, timeout: float) -> StreamObject | None:
        return self._newest


class HostedReceiver(ServingReceiver):
    """Delivers, in a thread, objects of clients of a hosted channel.

    Queued objects belong to the server until they are claimed.
    """

    def __init__(self, channel: str) -> None:
        super().__init__(channel)
        self._came: queue.SimpleQueue[Put | None] = queue.SimpleQueue()
        self._hosted = False
        self._thread = threading.Thread(target=self._run, name=f"serve {channel}", daemon=True)

    def comes(self, put: Put) -> None:
        """An object of a client has arrived; called in the server's thread."""
        self._came.put(put)

    def _host(self, channel: Channel) -> None:
        """Serve the channel.

        Raises:
            TransportError: it is already served, or no port is free.
        """
        host.add(channel)
        self._hosted = True

    def _open(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while (put := self._came.get()) is not None:
            if not put.claim():
                continue
            try:
                self._accept(put)
            except Exception as error:
                # An object of one client must not block the others.
                self._refuse(put, error)

    def _accept(self, put: Put) -> None:
        """Deliver a claimed object, and finish it.

        Raises:
            Exception: it was not delivered, and is refused.
        """
        raise NotImplementedError

    def _refuse(self, put: Put, error: Exception) -> None:
        self._errors += 1
        _log.warning(
            "channel %s: an object of a client is refused: %s", self.channel, error,
            exc_info=None if isinstance(error, PvapyStreamError) else error,
        )  # fmt: skip
        put.finish(Status.error(str(error)))

    def _close(self) -> None:
        if self._hosted:
            self._hosted = False
            self._came.put(None)
            if self._thread.ident:
                self._thread.join(_ENDS)
            # Now all received objects are answered.
            host.remove(self.channel)
