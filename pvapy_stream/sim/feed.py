"""Objects to publish, built ahead: repeated when all fit in the cache, else once through."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from pvapy_stream.errors import SourceError
from pvapy_stream.frame import Frame
from pvapy_stream.pva.ntndarray import ObjectBuilder

_POLL = 0.2
# Share of the free memory that the cache may take.
_MEMORY_SHARE = 0.8
_END = None


class ObjectFeed:
    """Builds objects from frames, ahead of the publisher.

    `fill` builds as many as the cache holds. When more frames follow, one thread goes on building
    through a queue of that size, and the feed ends with the last frame.

    Args:
        frames: where they come from.
        cache_size: number of objects held in memory.
        build: makes what is published from a frame; a PvObject when not given.

    Attributes:
        prototype: the first object, with id 0: what the record holds at first. Copy it to keep it.
        repeats: whether all fit in the cache; known after `fill`.
        n_built: objects built.
        nbytes: uncompressed bytes of one frame, on the average.
    """

    def __init__(
        self,
        frames: Iterator[Frame],
        cache_size: int,
        build: Callable[[Frame], object] | None = None,
    ) -> None:
        self._frames = frames
        self._cache_size = cache_size
        self._builder = build or ObjectBuilder().build
        self._cache: list[object] = []
        self._queue: queue.Queue[object] = queue.Queue(cache_size)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._total_bytes = 0
        self.repeats = False
        self.n_built = 0
        first = next(frames, None)
        if first is None:
            raise SourceError("the input has no frames; give files with images")
        self.prototype = self._build(first)
        self._cache.append(self.prototype)

    @property
    def nbytes(self) -> float:
        """Uncompressed bytes of one frame, on the average."""
        return self._total_bytes / self.n_built

    def fill(self, stop: threading.Event) -> None:
        """Build what fits in the cache, and start the thread if that is not all.

        Raises:
            SourceError: a frame cannot be read, or the cache does not fit in memory.
        """
        import psutil  # here, as few programs need it, and all start sooner without it

        limit = int(psutil.virtual_memory().available * _MEMORY_SHARE)
        for frame in self._frames:
            if stop.is_set():
                return
            if self._total_bytes > limit:
                raise SourceError(
                    f"{self.n_built} frames take {self._total_bytes / 1e9:.1f} GB, nearly all of"
                    " the free memory; give a smaller --cache-size or --n-frames"
                )
            obj = self._build(frame)
            if len(self._cache) < self._cache_size:
                self._cache.append(obj)
                continue
            self._thread = threading.Thread(
                target=self._produce, args=(obj,), name="sim-producer", daemon=True
            )
            self._thread.start()
            return
        self.repeats = True

    def __iter__(self) -> Iterator[object]:
        """Objects to publish, for ever when they repeat; id and times are the publisher's to set.

        Raises:
            SourceError: a frame could not be read.
        """
        if self.repeats:
            while True:
                yield from self._cache
        self._cache.reverse()
        while self._cache:
            yield self._cache.pop()
        while (obj := self._next()) is not _END:
            yield obj

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    def _next(self) -> object:
        while self._thread is not None and not self._stop.is_set():
            try:
                obj = self._queue.get(timeout=_POLL)
            except queue.Empty:
                continue
            if obj is _END and self._error is not None:
                raise self._error
            return obj
        return _END

    def _produce(self, obj: object) -> None:
        try:
            self._put(obj)
            for frame in self._frames:
                if not self._put(self._build(frame)):
                    return
        except Exception as error:  # resurfaces in the publisher
            self._error = error
        self._put(_END)

    def _put(self, obj: object) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(obj, timeout=_POLL)
            except queue.Full:
                continue
            return True
        return False

    def _build(self, frame: Frame) -> object:
        self.n_built += 1
        self._total_bytes += frame.nbytes
        return self._builder(frame.replace(id=0))
