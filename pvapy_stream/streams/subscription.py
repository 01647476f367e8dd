"""Frames of a channel, for ``for`` and for ``async for``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import time
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Literal

from pvapy_stream.errors import ObjectError, StreamTimeoutError, TransportError
from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.streams.receiving import Item, Receiving, Unusable
from pvapy_stream.streams.stream_settings import SubscriptionSettings
from pvapy_stream.transport.absence import Awaited

_OPENS = 60.0  # s; a receiver has started within this
_CLOSES = 30.0  # s; and has stopped within this
_SLICE = 60.0  # s; longest single wait
_FAIR = 0.005  # s; after this, other tasks of the event loop get a turn

_log = logging.getLogger(__name__)


class Subscription:
    """Frames of a channel; made by `subscribe`.

    It is an iterator and an asynchronous iterator, and a context manager of both kinds. Iteration
    opens it if necessary, ends when it is closed, and may continue after an error. A
    subscription that was opened by iteration is closed when the wait is cancelled or
    interrupted, and when it is no longer referenced. Several threads, tasks and event loops may
    take frames from one subscription: each frame goes to one of them.
    """

    def __init__(self, settings: SubscriptionSettings) -> None:
        self._settings = settings
        self._receiving = Receiving(settings)
        self._queue = self._receiving.queue
        self._turn_due = 0.0
        self._is_open = False
        self._has_owner = False  # who opened it, and closes it
        weakref.finalize(self, self._receiving.end_soon)

    # -- counts ----------------------------------------------------------------------------------

    @property
    def channel(self) -> str:
        """Name of the channel."""
        return self._settings.channel

    @property
    def received(self) -> int:
        """Frames that arrived: returned, queued, or dropped."""
        return self._receiving.received

    @property
    def missed(self) -> int:
        """Frames that should have arrived according to the ids, but did not."""
        return self._receiving.arrivals.missed

    @property
    def dropped(self) -> int:
        """Frames that were dropped by the overflow policy, or not taken before the end."""
        return self._queue.dropped

    @property
    def queued(self) -> int:
        """Frames in the queue."""
        return len(self._queue)

    @property
    def connected(self) -> bool:
        """Whether the source is connected."""
        return self._receiving.connected

    @property
    def closed(self) -> bool:
        """Whether the subscription is closed."""
        return self._queue.closed

    def __repr__(self) -> str:
        state = "closed" if self.closed else "connected" if self.connected else "not connected"
        return (
            f"Subscription({self.channel!r}, {self._settings.mode}: {state},"
            f" received {self.received}, missed {self.missed}, dropped {self.dropped})"
        )

    # -- without asyncio -------------------------------------------------------------------------

    def open(self) -> Subscription:
        """Begin to receive, unless it has begun; the source may start later.

        Raises:
            TransportError: the transport cannot receive from this channel, or the subscription was
                closed.
        """
        self._has_owner = True
        return self._open()

    def _open(self) -> Subscription:
        receiving = self._receiving
        receiving.start()
        try:
            receiving.opened.result(_OPENS)
        except concurrent.futures.TimeoutError:
            self._end()
            raise self._not_opened() from None
        self._is_open = True
        return self

    def close(self) -> None:
        """Drop frames that were not taken, and close threads and connections."""
        self._end()
        try:
            self._receiving.ended.result(_CLOSES)
        except concurrent.futures.TimeoutError:
            self._log_not_closed()
            return
        self._receiving.join()

    def __enter__(self) -> Subscription:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> Frame:
        """The next frame.

        Raises:
            StreamTimeoutError: no frame arrived in time.
            TransportError: the transport has failed.
            ObjectError: the next object is not an image.
        """
        try:
            item = self._next()
        except Exception:
            raise
        except BaseException:
            self._interrupted()
            raise
        if item is None:
            raise StopIteration
        return self._frame(item)

    def _next(self) -> Item | None:
        """Wait for the next object; None at the end."""
        if not self._is_open and not self._queue.closed:
            self._open()
        since = time.monotonic()
        while (item := self._queue.take()) is None and not self._is_over():
            left = self._time_left(since)
            woken = threading.Event()
            if self._queue.add_waiter(woken.set):
                woken.wait(left)
                self._queue.remove_waiter(woken.set)
        return item

    # -- with asyncio ----------------------------------------------------------------------------

    async def aopen(self) -> Subscription:
        """As `open`, without blocking the event loop."""
        self._has_owner = True
        return await self._aopen()

    async def _aopen(self) -> Subscription:
        receiving = self._receiving
        receiving.start()
        if not await _is_done(receiving.opened, _OPENS):
            self._end()
            raise self._not_opened()
        receiving.opened.result()
        self._is_open = True
        return self

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        self._end()
        if not await _is_done(self._receiving.ended, _CLOSES):
            self._log_not_closed()
            return
        self._receiving.join()

    async def __aenter__(self) -> Subscription:
        try:
            return await self.aopen()
        except BaseException:
            # Also when cancelled.
            await self.aclose()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Frame:
        """As `__next__`. If it is cancelled, no frame is lost."""
        try:
            item = await self._anext()
        except asyncio.CancelledError:
            self._interrupted()
            raise
        if item is None:
            raise StopAsyncIteration
        return self._frame(item)

    async def _anext(self) -> Item | None:
        if not self._is_open and not self._queue.closed:
            await self._aopen()
        since = time.monotonic()
        if since > self._turn_due:
            # A stream without waits would keep other tasks from running.
            await asyncio.sleep(0)
            self._turn_due = time.monotonic() + _FAIR
        while (item := self._queue.take()) is None and not self._is_over():
            await self._news(self._time_left(since))
            self._turn_due = time.monotonic() + _FAIR
        return item

    async def _news(self, seconds: float) -> None:
        """Wait for news, for a limited time."""
        loop = asyncio.get_running_loop()
        news: asyncio.Future[None] = loop.create_future()

        def done() -> None:
            if not news.done():
                news.set_result(None)

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(done)
            except RuntimeError:
                # The loop has ended, and with it the waiting task.
                _log.debug("no program waits any longer for channel %s", self.channel)

        if not self._queue.add_waiter(wake):
            return
        timer = loop.call_later(seconds, done)
        try:
            await news
        finally:
            timer.cancel()
            self._queue.remove_waiter(wake)

    # -- both ------------------------------------------------------------------------------------

    def _interrupted(self) -> None:
        """Close if it has no owner, since the exception keeps a reference to it."""
        if not self._has_owner:
            self._end()

    def _end(self) -> None:
        self._receiving.end_soon()
        self._queue.close()

    def _is_over(self) -> bool:
        """Whether the stream has ended; raises the failure of the transport, if any."""
        if self._queue.closed and not self._receiving.failed:
            return True
        failure = self._receiving.failure
        if failure is not None:
            raise failure
        return False

    def _time_left(self, since: float) -> float:
        timeout = self._settings.timeout
        if timeout is None:
            return _SLICE
        left = since + timeout - time.monotonic()
        if left <= 0:
            raise self._too_late(timeout)
        return min(left, _SLICE)

    def _too_late(self, timeout: float) -> StreamTimeoutError:
        if not self._receiving.was_connected:
            absent = Awaited(_log, self._settings.receives.absent)
            why = f"was never found; {absent.to_check([self.channel])}"
        elif self._receiving.connected:
            why = "is connected, and its source publishes nothing"
        else:
            why = "has disconnected; it is searched for"
        return StreamTimeoutError(
            f"channel {self.channel} {why}; no frame arrived within {timeout:g} s (timeout=None"
            " waits without a limit)"
        )

    def _frame(self, item: Item) -> Frame:
        if isinstance(item, Unusable):
            raise ObjectError(f"channel {self.channel}: {item.error}") from item.error
        try:
            return frame_of(item)
        except ObjectError as error:
            raise ObjectError(f"channel {self.channel}: {error}") from error

    def _not_opened(self) -> TransportError:
        return StreamTimeoutError(
            f"channel {self.channel}: the transport {self._settings.mode} has not started within"
            f" {_OPENS:g} s"
        )

    def _log_not_closed(self) -> None:
        _log.error("channel %s: the receiver has not ended within %g s", self.channel, _CLOSES)


async def _is_done(future: concurrent.futures.Future[None], seconds: float) -> bool:
    """Wait for a future, which is not cancelled with the wait."""
    if future.done():
        return True
    done, _ = await asyncio.wait([asyncio.wrap_future(future)], timeout=seconds)
    for one in done:
        # Looked at here, so that asyncio does not report it.
        one.exception()
    return future.done()


def subscribe(
    channel: str,
    mode: str = "pva",
    *,
    queue_size: int = 64,
    server_queue_size: int = 0,
    overflow: Literal["block", "drop-newest", "drop-oldest"] = "block",
    overflow_timeout: float = 60.0,
    timeout: float | None = 60.0,
    initial: bool = False,
    opening: bool = False,
    args: Mapping[str, object] | None = None,
) -> Subscription:
    """Receive the frames of a channel; its source may start later, disconnect and reconnect.

    Args:
        channel: name of the channel.
        mode: how frames are received, as ``--input-mode``: ``pva``, ``pvas``, ``shm``, ``auto`` …
        queue_size: maximum number of frames in the queue. A monitor requests a queue of the same
            size from its server, with back-pressure if the server supports it.
        server_queue_size: size of the sender's queue, if it differs from `queue_size`.
        overflow: overflow policy: with ``block`` the transport waits, which slows the source down
            or fills the sender's queue; ``drop-newest`` and ``drop-oldest`` drop frames.
        overflow_timeout: longest wait with ``block``, s; then frames are dropped until one is
            taken.
        timeout: longest wait for a frame, s; None: no limit.
        initial: whether the current object at the time of the connection is returned too; it may be
            old.
        opening: whether opening objects, which show the structure of a channel, are returned too.
        args: arguments of the mode, as ``--input-args``.

    Raises:
        SettingsError: an argument is wrong.
    """
    return Subscription(
        SubscriptionSettings.of(
            channel=channel,
            mode=mode,
            queue_size=queue_size,
            server_queue_size=server_queue_size,
            overflow=overflow,
            overflow_timeout=overflow_timeout,
            timeout=timeout,
            initial=initial,
            opening=opening,
            args=dict(args or {}),
        )
    )
