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
from pvapy_stream.streams.receiving import Receiving, Unusable
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
    opens it if need be, ends when it is closed, and may go on after an error. One that was opened
    by iteration is closed when its wait is cancelled or interrupted, and when nobody refers to it
    any more. Several threads, tasks and event loops may take frames from
    one subscription: each frame goes to one of them.
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
        """Frames that came: those given out, those queued, and those dropped."""
        return self._receiving.received

    @property
    def missed(self) -> int:
        """Frames that should have come, by their ids, and did not."""
        return self._receiving.arrivals.missed

    @property
    def dropped(self) -> int:
        """Frames that were dropped here: by the overflow policy, or not taken before the end."""
        return self._queue.dropped

    @property
    def queued(self) -> int:
        """Frames that wait here to be taken."""
        return len(self._queue)

    @property
    def connected(self) -> bool:
        """Whether the source is there now."""
        return self._receiving.connected

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._queue.closed

    def __repr__(self) -> str:
        state = "closed" if self.closed else "connected" if self.connected else "not connected"
        return (
            f"Subscription({self.channel!r}, {self._settings.mode}: {state},"
            f" received {self.received}, missed {self.missed}, dropped {self.dropped})"
        )

    # -- without asyncio -------------------------------------------------------------------------

    def open(self) -> Subscription:
        """Begin to receive, unless it has begun; the source may come later.

        Raises:
            TransportError: the transport cannot receive from this channel, or it was closed.
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
        """End: frames that were not taken are dropped, threads and connections are gone."""
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
            StreamTimeoutError: none came in time.
            TransportError: the transport knows why none comes.
            ObjectError: the next object is no image.
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

    def _next(self) -> object | None:
        """Wait for what comes next; None at the end."""
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
        """As `open`, while the event loop goes on."""
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
        """As `close`, while the event loop goes on."""
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

    async def _anext(self) -> object | None:
        if not self._is_open and not self._queue.closed:
            await self._aopen()
        since = time.monotonic()
        if since > self._turn_due:
            # A stream that never lets us wait would keep all others from running.
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
                # The loop has ended, and with it who waits.
                _log.debug("nobody waits any more for channel %s", self.channel)

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
        """End if nobody else would: what is raised refers to us for as long as it is kept."""
        if not self._has_owner:
            self._end()

    def _end(self) -> None:
        self._receiving.end_soon()
        self._queue.close()

    def _is_over(self) -> bool:
        """Whether nothing more will come; raises what is known of why nothing comes."""
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
            why = f"never came; {absent.to_check([self.channel])}"
        elif self._receiving.connected:
            why = "is connected, and its source publishes nothing"
        else:
            why = "was there and is gone; it is searched for"
        return StreamTimeoutError(
            f"channel {self.channel} {why}; no frame came within {timeout:g} s (timeout=None waits"
            " for as long as it takes)"
        )

    def _frame(self, item: object) -> Frame:
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
    """Wait for a future, which stays as it is when the waiting is cancelled."""
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
    """Receive the frames of a channel, which may appear late, vanish and come back.

    Args:
        channel: name of the channel.
        mode: how frames come, as ``--input-mode``: ``pva``, ``pvas``, ``shm``, ``auto`` …
        queue_size: frames that wait here at most. A monitor's server is asked to keep as many, and
            to wait for us where it can.
        server_queue_size: frames that the sender keeps for us, if they are to be another number.
        overflow: what a full queue does: ``block`` makes the transport wait, which slows the source
            down or lets the sender's queue fill; ``drop-newest`` and ``drop-oldest`` drop frames.
        overflow_timeout: longest wait with ``block``, s; then frames are dropped until one is
            taken.
        timeout: longest wait for a frame, s; None: as long as it takes.
        initial: whether the current object that the channel has when we come is given out too; it
            may be old.
        opening: whether opening objects, which show the structure of a channel, are given out too.
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
