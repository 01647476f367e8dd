"""A channel on which a program of a user publishes frames, with asyncio or without."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from pvapy_stream.errors import StreamTimeoutError, TransportError
from pvapy_stream.frame import AttributeValue, Frame, Pixels, new_image
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.pva.objects import mark
from pvapy_stream.streams.stream_settings import PublicationSettings
from pvapy_stream.transport.mode import PublisherOptions
from pvapy_stream.transport.ports import Publisher

_POLL = 0.01  # s; between two looks for subscribers

_T = TypeVar("_T")

# Publications that are open, each until it is closed.
_open: set[Publication] = set()


class Publication:
    """Publishes frames on one channel; made by `publish`.

    It is a context manager; ``async with`` gives an `AsyncPublication` of it. Its methods may be
    called from any thread.
    """

    def __init__(self, settings: PublicationSettings) -> None:
        self._settings = settings
        self._next_id = settings.first_id
        # Of several threads that send, one after the other; and so are the counted ids.
        self._lock = threading.Lock()
        self._builder = ObjectBuilder()
        self._publisher: Publisher | None = None
        self._closed = False
        self._async: AsyncPublication | None = None

    @property
    def channel(self) -> str:
        """Name of the channel."""
        return self._settings.channel

    @property
    def sent(self) -> int:
        """Frames that were sent."""
        return 0 if self._publisher is None else self._publisher.counts().published

    @property
    def dropped(self) -> int:
        """Deliveries to single subscribers that were dropped by the overflow policy."""
        return 0 if self._publisher is None else self._publisher.counts().rejected

    @property
    def errors(self) -> int:
        """Failures of the transport, including those followed by a successful retry."""
        return 0 if self._publisher is None else self._publisher.counts().errors

    @property
    def subscribers(self) -> int:
        """Number of subscribers; 0 if the transport does not know it."""
        return 0 if self._publisher is None else self._publisher.subscribers

    def open(self) -> Publication:
        """Open the channel, unless it is open.

        Raises:
            TransportError: the channel cannot be hosted, or the publication was closed.
        """
        with self._lock:
            self._opened()
        return self

    def _opened(self) -> Publisher:
        if self._closed:
            raise _is_closed(self.channel)
        if self._publisher is None:
            settings = self._settings
            publisher = settings.publishes.make(
                PublisherOptions(
                    settings.channel,
                    timeout=settings.timeout,
                    settings=settings.transport,
                    args=settings.args,
                )
            )
            try:
                publisher.start()
                # It shows the structure, and is no frame.
                blank = Frame.of(0, np.zeros((1, 1), np.uint8))
                publisher.open(mark(self._builder.build(blank)))
            except BaseException:
                publisher.stop()
                raise
            self._publisher = publisher
            _open.add(self)
        return self._publisher

    def send(
        self,
        frame: Frame | Pixels,
        *,
        id: int | None = None,
        time_ns: int | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> int:
        """Send one frame; waits while the queue of a subscriber with back-pressure is full.

        An array gets the id after the last one, and the current time, unless they are given.

        Args:
            frame: a frame, or an image: (ny, nx), or (ny, nx, 3) for colour.
            id: number of the frame in the stream.
            time_ns: time of the image, ns since 1970-01-01 UTC.
            attributes: values by attribute name.

        Returns:
            its id.

        Raises:
            ObjectError: an image of another shape.
            TransportError: it cannot be sent; its id counts as used.
        """
        with self._lock:
            publisher = self._opened()
            if isinstance(frame, Frame):
                if not (id is time_ns is attributes is None):
                    frame = frame.replace(id=id, time_ns=time_ns, attributes=attributes)
            else:
                number = self._next_id if id is None else id
                now = time.time_ns() if time_ns is None else time_ns
                frame = Frame.of(number, np.asarray(frame), time_ns=now, attributes=attributes)
            self._next_id = frame.id + 1
            build = self._builder.build
            publisher.publish(LazyObject(frame, build) if publisher.takes_lazy else build(frame))
            return frame.id

    def reserve(self, shape: tuple[int, ...], dtype: DTypeLike) -> Pixels:
        """A writable array for an image, where subscribers read it if that is possible.

        In mode ``shm`` (and ``both``), an image that is written into such an array and then sent
        is not copied. Write all of it: its content is undefined, as with `numpy.empty`. Take a new
        one for each image: it may be read-only when it was sent. If no subscriber could read it,
        or if the image is small, it is an ordinary array, and is sent as such.

        Args:
            shape: (ny, nx), or (ny, nx, 3) for colour.
            dtype: pixel type.

        Raises:
            ObjectError: another shape.
        """
        return new_image(shape, dtype, output=self._publisher)

    def wait_for_subscribers(self, count: int = 1, timeout: float = 60.0) -> None:
        """Wait until this number of subscribers are connected.

        Raises:
            StreamTimeoutError: they did not connect within `timeout` s.
            TransportError: the transport does not know its subscribers.
        """
        deadline = time.monotonic() + timeout
        while not self.has_subscribers(count, deadline, timeout):
            time.sleep(_POLL)

    def has_subscribers(self, count: int, deadline: float, timeout: float) -> bool:
        """Whether so many receive; raises as `wait_for_subscribers` after the deadline."""
        publisher = self._publisher
        if publisher is None:
            raise TransportError(f"channel {self.channel} is not open; open() opens it")
        if not publisher.knows_subscribers:
            raise TransportError(
                f"channel {self.channel}: the number of subscribers is not known in mode"
                f" {self._settings.mode}"
            )
        if publisher.subscribers >= count:
            return True
        if time.monotonic() > deadline:
            raise StreamTimeoutError(
                f"channel {self.channel}: {publisher.subscribers} of {count} subscribers connected"
                f" within {timeout:g} s"
            )
        return False

    def close(self) -> None:
        """Let subscribers take queued frames, for at most `timeout` s; then close the channel."""
        with self._lock:
            publisher = self._publisher
            if publisher is not None and not self._closed:
                publisher.finish(self._settings.timeout)
                publisher.stop()
            self._closed = True
            _open.discard(self)

    def __enter__(self) -> Publication:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> AsyncPublication:
        self._async = AsyncPublication(self)
        try:
            return await self._async.open()
        except BaseException:
            # Also when cancelled: what the thread has begun is undone.
            await self._async.close()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._async is not None:
            await self._async.close()


class AsyncPublication:
    """Publishes frames from an event loop, which is not blocked while the transport waits.

    Blocking calls run in one thread, in the order of the calls.

    Args:
        publication: the publication to use.
    """

    def __init__(self, publication: Publication) -> None:
        self._publication = publication
        self._executor = ThreadPoolExecutor(1, f"publication {publication.channel}")
        self._ended = False

    async def _run(self, function: Callable[[], _T]) -> _T:
        if self._ended:
            raise _is_closed(self.channel)
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    @property
    def channel(self) -> str:
        """Name of the channel."""
        return self._publication.channel

    @property
    def sent(self) -> int:
        """As `Publication.sent`."""
        return self._publication.sent

    @property
    def dropped(self) -> int:
        """As `Publication.dropped`."""
        return self._publication.dropped

    @property
    def errors(self) -> int:
        """As `Publication.errors`."""
        return self._publication.errors

    @property
    def subscribers(self) -> int:
        """As `Publication.subscribers`."""
        return self._publication.subscribers

    async def open(self) -> AsyncPublication:
        """As `Publication.open`."""
        await self._run(self._publication.open)
        return self

    def reserve(self, shape: tuple[int, ...], dtype: DTypeLike) -> Pixels:
        """As `Publication.reserve`."""
        return self._publication.reserve(shape, dtype)

    async def send(
        self,
        frame: Frame | Pixels,
        *,
        id: int | None = None,
        time_ns: int | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
    ) -> int:
        """As `Publication.send`. If it is cancelled, the frame may have been sent."""
        send = partial(self._publication.send, frame, id=id, time_ns=time_ns, attributes=attributes)
        return await self._run(send)

    async def wait_for_subscribers(self, count: int = 1, timeout: float = 60.0) -> None:
        """As `Publication.wait_for_subscribers`."""
        deadline = time.monotonic() + timeout
        while not self._publication.has_subscribers(count, deadline, timeout):
            await asyncio.sleep(_POLL)

    async def close(self) -> None:
        """As `Publication.close`."""
        if self._ended:
            return
        self._ended = True
        closed = self._executor.submit(self._publication.close)
        # The thread ends after that, also when we are cancelled.
        self._executor.shutdown(wait=False)
        await asyncio.wait([asyncio.wrap_future(closed)])
        self._executor.shutdown()
        closed.result()


def _close_all() -> None:
    for one in list(_open):
        one.close()


# Subscribers get the last frames of a program that ends without closing.
atexit.register(_close_all)


def _is_closed(channel: str) -> TransportError:
    return TransportError(f"channel {channel}: the publication is closed; make another")


def publish(
    channel: str,
    mode: str = "pvas",
    *,
    first_id: int = 1,
    relay: bool = False,
    overflow: Literal["block", "drop-newest", "drop-oldest"] = "block",
    timeout: float = 5.0,
    args: Mapping[str, object] | None = None,
) -> Publication:
    """Publish frames on a channel.

    Args:
        channel: name of the channel.
        mode: how frames are published, as ``--output-mode``: ``pvas``, ``shm``, ``both``, ``pva`` …
        first_id: id of the first array that is sent without one.
        relay: whether frames of another source are passed on with their ids. If not, receivers in
            shared memory know that ids restart with this program.
        overflow: overflow policy for subscribers with back-pressure whose queue is full:
            ``block`` waits for it, ``drop-newest`` and ``drop-oldest`` drop frames.
        timeout: longest wait for such a subscriber, or for a remote side that fails, s; then the
            subscriber's frames are dropped until it takes one.
        args: arguments of the mode, as ``--output-args``.

    Raises:
        SettingsError: an argument is wrong.
    """
    return Publication(
        PublicationSettings.of(
            channel=channel,
            mode=mode,
            first_id=first_id,
            relay=relay,
            overflow=overflow,
            timeout=timeout,
            args=dict(args or {}),
        )
    )
