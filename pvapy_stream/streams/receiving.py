"""The thread of a subscription: it starts the receiver, looks after it, and stops it."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.objects import is_marked
from pvapy_stream.streams.arrivals import ID_FIELD, Arrivals
from pvapy_stream.streams.frame_queue import FrameQueue
from pvapy_stream.streams.stream_settings import SubscriptionSettings
from pvapy_stream.transport import registry
from pvapy_stream.transport.mode import ReceiverOptions
from pvapy_stream.transport.ports import Receiver, Return, Troubled

_TICK = 0.25  # s; between two looks after the connection
_LAST = 5.0  # s; of a thread, and at the end of the program

_log = logging.getLogger(__name__)


class Unusable:
    """Stands in the queue for an object that cannot be used."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


Item = StreamObject | Unusable


class Receiving:
    """Receives from one channel into a queue.

    It does not know its subscription: one that nobody refers to any more can so be noticed, and
    ended from any thread, as `end_soon` only sets a flag for the thread.

    Attributes:
        queue: what came.
        arrivals: says which objects are frames.
        received: frames that came, those that were dropped here included.
        opened: done when the receiver has started, or could not.
        ended: done when the receiver has stopped.
    """

    def __init__(self, settings: SubscriptionSettings) -> None:
        self._settings = settings
        mode = settings.receives
        self.queue = FrameQueue[Item](
            settings.channel, settings.queue_size, settings.overflow, settings.overflow_timeout
        )
        self.arrivals = Arrivals(mode.shows_value, settings.initial, settings.opening)
        self.received = 0
        self.opened: Future[None] = Future()
        self.ended: Future[None] = Future()
        self._receiver: Receiver | None = None
        self._failure: Exception | None = None
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless it has begun.

        Raises:
            TransportError: it has ended.
        """
        with self._lock:
            if self._closing.is_set():
                raise TransportError(
                    f"channel {self._settings.channel}: the subscription is closed; make another"
                )
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"subscription {self._settings.channel}", daemon=True
                )
                _running.add(self)
                self._thread.start()

    def end_soon(self) -> None:
        """Have it end; waits for nothing."""
        with self._lock:
            self._closing.set()
            if self._thread is None and not self.ended.done():
                self.ended.set_result(None)

    def join(self) -> None:
        """Wait for the end of the thread, which has nothing more to do once `ended` is done."""
        if self._thread is not None:
            self._thread.join(_LAST)

    @property
    def connected(self) -> bool:
        """Whether the source is there."""
        receiver = self._receiver
        return receiver is not None and receiver.connected

    @property
    def was_connected(self) -> bool:
        """Whether it has ever been there."""
        receiver = self._receiver
        return receiver is not None and receiver.was_connected

    @property
    def failed(self) -> bool:
        """Whether it has ended by itself."""
        return self._failure is not None

    @property
    def failure(self) -> Exception | None:
        """Why nothing comes, if the transport knows."""
        if self._failure is not None:
            return self._failure
        receiver = self._receiver
        problem = receiver.problem if isinstance(receiver, Troubled) else ""
        return TransportError(f"channel {self._settings.channel}: {problem}") if problem else None

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._receiver = self._made()
            self._receiver.start(self._deliver, self._take)
        except Exception as error:
            self._failure = error
            self.opened.set_exception(error)
        else:
            self.opened.set_result(None)
            self._look_after(self._receiver)
        self.queue.close()
        self._stop()
        _running.discard(self)
        self.ended.set_result(None)

    def _made(self) -> Receiver:
        settings = self._settings
        # What a monitor's server keeps for us it gives out as fast as we take it.
        kept = settings.queue_size if settings.receives.monitors else 0
        options = ReceiverOptions(
            settings.channel,
            id_field=ID_FIELD,
            queue_size=settings.server_queue_size or kept,
            args=settings.args,
            library="auto",
        )
        return registry.make_receiver(settings.mode, options)

    def _look_after(self, receiver: Receiver) -> None:
        while not self._closing.wait(_TICK):
            try:
                receiver.keep_up()
            except Exception as error:
                self._failure = error
                return
            if self.failure is not None:
                self.queue.wake_all()

    def _stop(self) -> None:
        if self._receiver is None:
            return
        try:
            left = self._receiver.stop()
        except Exception:
            _log.exception("channel %s: the receiver cannot be stopped", self._settings.channel)
            return
        n_left = sum(not is_marked(obj) for obj in left)
        self.received += n_left
        self.queue.dropped += n_left

    # -- the transport's thread ------------------------------------------------------------------

    def _deliver(self, obj: StreamObject) -> bool:
        return self._take(obj)

    def _take(self, obj: StreamObject, how: Return | None = None) -> bool:
        try:
            if not self.arrivals.is_frame(obj, how):
                return True
            item = obj.copy()
        except Exception as error:
            item = Unusable(error)
        self.received += 1
        return self.queue.put(item)


_running: weakref.WeakSet[Receiving] = weakref.WeakSet()


def _end_all() -> None:
    # The binding does not survive callbacks into an interpreter that ends.
    for one in list(_running):
        one.end_soon()
    for one in list(_running):
        try:
            one.ended.result(_LAST)
        except FutureTimeoutError:
            _log.warning("a subscription has not ended within %g s", _LAST)


atexit.register(_end_all)
