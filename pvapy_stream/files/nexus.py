"""`FrameWriter`: frames to HDF5/NeXus files. No EPICS."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.errors import FileError, ObjectError
from pvapy_stream.files.chunks import (
    NONE,
    Chunk,
    check_pixels,
    checksum,
    encode,
    one_core_each,
    prepare,
    recycle,
    size_of,
    stored_chunk,
    stored_form,
)
from pvapy_stream.files.disk import check_new, check_space, file_error, make_folder
from pvapy_stream.files.layout import NexusFile
from pvapy_stream.files.names import FileNames
from pvapy_stream.files.record import NOT_WRITTEN, Account, LossRecord
from pvapy_stream.frame import Frame, Pixels
from pvapy_stream.settings import FileSettings

_FLUSH_PERIOD = 0.8  # s; what a crash may take
_FLUSH_ROWS = 4096
_INLINE = 100_000  # bytes; a checksum of less is made sooner than handed to another thread

# What HDF5 and the system raise, and what we do.
_TROUBLE = (OSError, RuntimeError, ValueError, FileError)

_log = logging.getLogger(__name__)


class _Pending(NamedTuple):
    """An image on its way: a chunk to come with its checksum, or only the checksum."""

    row: int
    frame_id: int
    work: Future[tuple[Chunk | None, int]]


class FrameWriter:
    """Writes frames to files in the order of `write`, whichever thread is done with them first.

    Args:
        settings: what to write.
        processor_id: for ``{processorId}`` in names.
        account: gives the ledger as it stands, for files that are closed while the stream goes on.
        first_file_id: number of the first file.

    Raises:
        SettingsError: a name format that gives two files one name.
        FileError: the folder cannot be made or written to, or the file exists.
        MissingExtraError: the codec's library is not installed.
    """

    def __init__(
        self,
        settings: FileSettings,
        processor_id: int = 1,
        account: Account | None = None,
        first_file_id: int = 1,
    ) -> None:
        self.settings = settings
        self.n_images = 0
        self.n_bytes = 0
        self.files: list[Path] = []
        self._names = FileNames(settings.output, processor_id, settings.images_per_file > 0)
        self._account = account
        self._file_id = first_file_id - 1
        self._last_id: int | None = None  # the last id of the files before
        self._newest_id: int | None = None
        self._file: NexusFile | None = None
        self._failure: FileError | None = None
        self._told = False
        self._lost = IdSet()
        prepare(settings.compression)
        if not self._names.depends_on_id:
            path = self._names.next_name(first_file_id, 0)
            make_folder(path.parent)
            check_new(path, settings.overwrite)
        self._pending: deque[_Pending] = deque()
        self._checksums: list[int] = []
        self._in_flight = 2 * settings.n_threads + 1
        self._pool = ThreadPoolExecutor(settings.n_threads, "write", one_core_each)
        self._lock = threading.RLock()
        self._flushed_at = 0.0
        self._closed = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="write-flush", daemon=True)
        self._ticker.start()

    @property
    def n_files(self) -> int:
        """Files begun so far."""
        return len(self.files)

    @property
    def next_file_id(self) -> int:
        """Number of the file after the newest."""
        return self._file_id + 1

    def write(self, frame: Frame) -> None:
        """Take a frame; it is in the file, and readable, within about a second.

        Raises:
            ObjectError: it has no image, or one that cannot be written.
            CodecError: it cannot be decompressed.
            FileError: this or an earlier one cannot be written; the writer is at its end.
        """
        with self._lock:
            self._raise_failure()
            if self._closed.is_set():
                raise FileError(f"the writer of {self.settings.output} is closed")
            form = stored_form(frame)
            shape, dtype = (form[1], frame.dtype) if form else _image_kind(frame)
            file = self._file
            if file is None or file.kind != (shape, dtype):
                check_pixels(shape, dtype)
                file = self._change_file(frame, shape, dtype, form[0] if form else None)
            chunk = stored_chunk(frame) if form and form[0] == file.codec else None
            image = None if chunk is not None else np.ascontiguousarray(frame.image)
            try:
                self._take(file, frame, chunk, image)
            except _TROUBLE as error:
                self._fail(file, error)
                self._raise_failure(error)
            self._newest_id = frame.id
            limit = self.settings.images_per_file
            if limit and file.n_rows >= limit:
                self._end_file(self._ledger(), {}, until=frame.id)

    def flush(self) -> None:
        """Make all that was taken readable.

        Raises:
            FileError: that is not possible.
        """
        with self._lock:
            self._flush()
            self._raise_failure()

    def close(self, ledger: Ledger | None = None) -> None:
        """Write what waits and close the file; a second call does nothing.

        Args:
            ledger: the stage's account; what `account` gives when it is None.

        Raises:
            FileError: frames could not be written, or the file could not be closed.
        """
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            try:
                if self._file is not None:
                    self._end_file(ledger if ledger is not None else self._ledger(), {}, until=None)
            finally:
                self._pool.shutdown(wait=True, cancel_futures=True)
        self._ticker.join(5)
        if not self._told:
            self._raise_failure()

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _raise_failure(self, cause: BaseException | None = None) -> None:
        if self._failure is not None:
            self._told = True
            raise FileError(str(self._failure)) from cause

    # -- images ----------------------------------------------------------------------------------

    def _take(
        self, file: NexusFile, frame: Frame, chunk: Chunk | None, image: Pixels | None
    ) -> None:
        if file.codec == NONE:
            chunk = image
        if len(self._pending) >= self._in_flight:
            self._finish_one(file)
        row = file.add(frame.id, frame.time_ns, frame.attributes)
        if chunk is None:
            work = self._pool.submit(_encoded, file.codec, image)
        else:
            if size_of(chunk) < _INLINE:
                work = _done(checksum(chunk))
            else:
                work = self._pool.submit(_checked, chunk)
            self._put(file, row, chunk)
        self._pending.append(_Pending(row, frame.id, work))
        self.n_images += 1
        self._finish_ready(file)
        if len(self._checksums) >= _FLUSH_ROWS or (
            time.monotonic() - self._flushed_at > _FLUSH_PERIOD
        ):
            self._finish_all(file)

    def _put(self, file: NexusFile, row: int, chunk: Chunk) -> None:
        size = size_of(chunk)
        check_space(file.part, size)
        file.put(row, chunk)
        self.n_bytes += size

    def _finish_one(self, file: NexusFile) -> None:
        """Wait for the oldest image on its way and write it."""
        row, _, work = self._pending[0]
        chunk, check = work.result()
        if chunk is not None:
            self._put(file, row, chunk)
            recycle(chunk)
        self._pending.popleft()
        self._checksums.append(check)

    def _finish_ready(self, file: NexusFile) -> None:
        while self._pending and self._pending[0].work.done():
            self._finish_one(file)

    def _finish_all(self, file: NexusFile) -> None:
        while self._pending:
            self._finish_one(file)
        checksums, self._checksums = self._checksums, []
        self._flushed_at = time.monotonic()
        file.write(checksums)

    def _flush(self) -> None:
        file = self._file
        if file is None or self._failure is not None:
            return
        try:
            self._finish_all(file)
        except _TROUBLE as error:
            self._fail(file, error)

    def _tick(self) -> None:
        """Flush also when nothing comes."""
        while not self._closed.wait(_FLUSH_PERIOD / 4):
            with self._lock:
                waits = self._pending or self._checksums
                if waits and time.monotonic() - self._flushed_at > _FLUSH_PERIOD:
                    self._flush()

    def _fail(self, file: NexusFile, error: Exception) -> None:
        """Come to an end: keep what is written, give up what waits."""
        file.prepare_to_end()
        self._failure = (
            error if isinstance(error, FileError) else file_error("write", file.part, error)
        )
        while self._pending and (check := _check_of_stored(self._pending[0].work)) is not None:
            self._pending.popleft()
            self._checksums.append(check)
        for pending in self._pending:
            pending.work.cancel()
            self._lost.add(pending.frame_id)
        self.n_images -= len(self._pending)
        self._pending.clear()
        checksums, self._checksums = self._checksums, []
        try:
            file.write(checksums)
        except _TROUBLE as again:
            _log.debug("%s cannot be flushed: %s", file.part, again)
        if self._lost:
            _log.error("%s; ids taken before and not written: %s", self._failure, self._lost)

    # -- files -----------------------------------------------------------------------------------

    def _change_file(
        self, frame: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], codec: str | None
    ) -> NexusFile:
        """Begin a file for images of this kind, and end the one before."""
        old, notes = self._file, {}
        number = self._file_id + 1
        path = self._names.next_name(number, frame.id)
        if old is not None:
            text = (
                f"Images changed at id {frame.id} from {_told(*old.kind)} to {_told(shape, dtype)}:"
            )
            _log.warning("%s file %s follows %s", text, path, old.path)
            notes = {"continues": f"{text} this file continues {old.path.name}."}
            self._end_file(
                self._ledger(),
                {"continued": f"{text} {path.name} continues this file."},
                until=self._newest_id,
            )
        elif self.files:
            notes = {"continues": f"This file continues {self.files[-1].name}."}
        settings = self.settings
        codec = codec or settings.compression
        prepare(codec)
        make_folder(path.parent)
        self._file = NexusFile(
            path,
            shape,
            dtype,
            codec=codec,
            attributes=frame.attributes,
            overwrite=settings.overwrite and path not in self.files,
            image_name=settings.dataset_name,
            notes=notes,
        )
        self._file_id = number
        self._flushed_at = time.monotonic()
        self.files.append(path)
        return self._file

    def _end_file(self, ledger: Ledger | None, notes: dict[str, str], until: int | None) -> None:
        """Close the file.

        Raises:
            FileError: frames could not be written, or the file could not be closed.
        """
        file = self._file
        assert file is not None  # noqa: S101 - callers have seen it
        self._flush()
        self._file = None
        record = LossRecord.of(ledger, self._last_id, until)
        if self._lost:
            record.failed.setdefault(NOT_WRITTEN, IdSet()).update(self._lost)
        if self._failure is not None:
            notes = {**notes, "ended": f"Writing ended early: {self._failure}"}
        self._last_id = until
        try:
            file.close(record, notes)
        except FileError as error:
            file.abandon()
            self._failure = self._failure or error
        if not self._told:
            self._raise_failure()

    def _ledger(self) -> Ledger | None:
        return self._account() if self._account is not None else None


def _encoded(codec: str, image: Any) -> tuple[Chunk | None, int]:
    chunk = encode(codec, image)
    return chunk, checksum(chunk)


def _checked(chunk: Chunk) -> tuple[Chunk | None, int]:
    return None, checksum(chunk)


def _done(check: int) -> Future[tuple[Chunk | None, int]]:
    work: Future[tuple[Chunk | None, int]] = Future()
    work.set_result((None, check))
    return work


def _check_of_stored(work: Future[tuple[Chunk | None, int]]) -> int | None:
    """Checksum of an image that is in the file already; None for one that is not."""
    try:
        chunk, check = work.result()
    except Exception:
        return None
    return check if chunk is None else None


def _image_kind(frame: Frame) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if not frame.has_image:
        raise ObjectError(f"frame {frame.id} has no image; it is not written")
    return frame.image.shape, frame.image.dtype


def _told(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    return f"{'x'.join(map(str, shape))} {dtype}"
