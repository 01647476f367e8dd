"""Writes images to one file: they are compressed or checked in threads, and written in order."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pvapy_stream.accounting.bags import ascending
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.errors import CodecError
from pvapy_stream.files.chunks import (
    NONE,
    Chunk,
    check_stored,
    checksum,
    encode,
    recycle,
    size_of,
    stored_chunk,
    stored_form,
)
from pvapy_stream.files.disk import HDF5_ERRORS, check_space
from pvapy_stream.files.nexus_layout import NexusFile
from pvapy_stream.frame import Frame, Pixels

FLUSH_PERIOD = 0.8  # s; frames of this time may be lost in a crash
_FLUSH_ROWS = 4096
_INLINE = 100_000  # bytes; for less, a checksum takes less time than a call in another thread

Work = tuple[Chunk, int]

_log = logging.getLogger(__name__)


class _Pending(NamedTuple):
    """An image whose chunk and checksum are being made."""

    frame_id: int
    time_ns: int
    attributes: Mapping[str, object]
    work: Future[Work]


class RowWriter:
    """Writes images to one file in the order in which they were taken. One thread at a time.

    Args:
        file: the file.
        pool: threads that compress, check and make checksums.
        most: how many images may be in work at a time.
        on_saved: gets the ids whose rows were flushed.
        on_refused: gets the id and the error of a frame whose payload cannot be decoded.
    """

    def __init__(
        self,
        file: NexusFile,
        pool: ThreadPoolExecutor,
        most: int,
        on_saved: Callable[[IdSet], None],
        on_refused: Callable[[int, CodecError], None],
    ) -> None:
        self.file = file
        self.n_taken = 0
        self.n_images = 0
        self.n_bytes = 0
        self.saved = IdSet()
        self._pool = pool
        self._most = most
        self._on_saved = on_saved
        self._on_refused = on_refused
        self._pending: deque[_Pending] = deque()
        self._unsaved: list[int] = []
        self._checksums: list[int] = []
        self._flushed_at = time.monotonic()

    def take(self, frame: Frame) -> None:
        """Take a frame; it is flushed within about a second.

        Raises:
            CodecError: it cannot be decoded, and is not taken.
            OSError, RuntimeError, ValueError, FileError: the file cannot be written.
        """
        work = self._begin(frame)
        self._pending.append(_Pending(frame.id, frame.time_ns, frame.attributes, work))
        self.n_taken += 1
        while len(self._pending) > self._most:
            self._finish_one()
        while self._pending and self._pending[0].work.done():
            self._finish_one()
        if len(self._unsaved) >= _FLUSH_ROWS or self.overdue:
            self.flush()

    @property
    def overdue(self) -> bool:
        """Whether a flush of waiting images is overdue."""
        waits = self._pending or self._unsaved
        return bool(waits) and time.monotonic() - self._flushed_at > FLUSH_PERIOD

    def flush(self) -> None:
        """Write all images that were taken, so that readers see them.

        Raises:
            OSError, RuntimeError, ValueError, FileError: the file cannot be written.
        """
        while self._pending:
            self._finish_one()
        self._flushed_at = time.monotonic()
        if not self._unsaved:
            return
        self.file.write(self._checksums)
        self._settle()

    def give_up(self) -> list[int]:
        """Flush the images that are in the file, and drop the others; the ids that are lost."""
        lost: list[int] = []
        for one in self._pending:
            one.work.cancel()
            lost.append(one.frame_id)
        self._pending.clear()
        try:
            self.file.write(self._checksums)
            self._settle()
        except HDF5_ERRORS as error:
            _log.debug("%s cannot be flushed: %s", self.file.part, error)
            lost = self._unsaved + lost
            self.n_images -= len(self._unsaved)
            self._unsaved, self._checksums = [], []
        return lost

    def _settle(self) -> None:
        """Report the ids that were flushed."""
        unsaved, self._unsaved, self._checksums = self._unsaved, [], []
        # Each time that an id was written is reported.
        for ids in ascending(unsaved):
            self.saved.update(ids)
            self._on_saved(ids)

    def _begin(self, frame: Frame) -> Future[Work]:
        codec = self.file.codec
        form = stored_form(frame)
        chunk = stored_chunk(frame) if form and form[0] == codec else None
        if chunk is not None:
            return self._do(size_of(chunk), _checked, frame, chunk)
        image = np.ascontiguousarray(frame.image)
        if codec == NONE:
            return self._do(image.nbytes, _summed, image)
        return self._pool.submit(_encoded, codec, image)

    def _do(self, size: int, function: Callable[..., Work], *args: object) -> Future[Work]:
        """Call a function: in this thread if `size` is small, else in another one."""
        if size >= _INLINE:
            return self._pool.submit(function, *args)
        work: Future[Work] = Future()
        work.set_result(function(*args))
        return work

    def _finish_one(self) -> None:
        """Wait for the oldest image in work and write it."""
        frame_id, time_ns, attributes, work = self._pending[0]
        try:
            chunk, check = work.result()
        except CodecError as error:
            self._pending.popleft()
            self._on_refused(frame_id, error)
            return
        size = size_of(chunk)
        check_space(self.file.part, size)
        self.file.put(self.file.add(frame_id, time_ns, attributes), chunk)
        recycle(chunk)
        self._pending.popleft()
        self._unsaved.append(frame_id)
        self._checksums.append(check)
        self.n_images += 1
        self.n_bytes += size


def _encoded(codec: str, image: Pixels) -> Work:
    chunk = encode(codec, image)
    return chunk, checksum(chunk)


def _summed(chunk: Chunk) -> Work:
    return chunk, checksum(chunk)


def _checked(frame: Frame, chunk: Chunk) -> Work:
    check_stored(frame)
    return chunk, checksum(chunk)
