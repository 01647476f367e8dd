"""What ways in have in common that others come to: a channel they put to, a service they call."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.pva.net.channel import Channel, Put
from pvapy_stream.pva.wire.status import Status
from pvapy_stream.transport.own_server import host
from pvapy_stream.transport.ports import Deliver, DeliverAgain, ReceiverCounts

_LAST_DELIVERY = 5.0  # s; least time that an object which is being delivered gets at the end
_ENDS = 2.0  # s; the thread has nothing more to do
STOPPED = "the receiver has stopped"

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

    def _take(self, obj: object) -> tuple[bool, str]:
        """Deliver an object of a caller. Raises nothing.

        Returns:
            whether it was taken, and what went wrong, or "".
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
        """Whether anybody has come; callers do not stay, or nobody tells."""
        return self.was_connected and self._deliver is not None

    def keep_up(self) -> None:
        pass

    def newest(self, timeout: float) -> Any | None:
        return self._newest


class HostedReceiver(ServingReceiver):
    """Delivers, in a thread, what clients bring to a channel of our own server.

    What waits in the queue belongs to the server until it is claimed.
    """

    def __init__(self, channel: str) -> None:
        super().__init__(channel)
        self._came: queue.SimpleQueue[Put | None] = queue.SimpleQueue()
        self._hosted = False
        self._thread = threading.Thread(target=self._run, name=f"serve {channel}", daemon=True)

    def comes(self, put: Put) -> None:
        """A client has brought something; called in the server's thread."""
        self._came.put(put)

    def _host(self, channel: Channel) -> None:
        """Serve the channel.

        Raises:
            TransportError: it is served already, or there is no port to listen at.
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
                # Nothing that a client brings may keep the others from coming.
                self._refuse(put, error)

    def _accept(self, put: Put) -> None:
        """Deliver what was claimed, and finish it.

        Raises:
            Exception: it was not delivered; it is refused.
        """
        raise NotImplementedError

    def _refuse(self, put: Put, error: Exception) -> None:
        self._errors += 1
        _log.warning(
            "channel %s: what a client has brought is refused: %s", self.channel, error,
            exc_info=None if isinstance(error, PvapyStreamError) else error,
        )  # fmt: skip
        put.finish(Status.error(str(error)))

    def _close(self) -> None:
        if self._hosted:
            self._hosted = False
            self._came.put(None)
            if self._thread.ident:
                self._thread.join(_ENDS)
            # Now all that came is answered.
            host.remove(self.channel)
