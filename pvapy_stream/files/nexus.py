"""`FrameWriter`: frames to HDF5/NeXus files. No EPICS."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.errors import FileError, ObjectError
from pvapy_stream.files.chunks import check_pixels, one_core_each, prepare, stored_form
from pvapy_stream.files.disk import HDF5_ERRORS, check_space, file_error, make_folder
from pvapy_stream.files.file_witness import witness
from pvapy_stream.files.instrument import SeriesFinder
from pvapy_stream.files.names import FileNames
from pvapy_stream.files.nexus_layout import NexusFile
from pvapy_stream.files.record import (
    NOT_DECODABLE,
    NOT_WRITTEN,
    Account,
    LossRecord,
)
from pvapy_stream.files.rows import FLUSH_PERIOD, RowWriter
from pvapy_stream.files.taken import Claim, Claims
from pvapy_stream.frame import Frame
from pvapy_stream.series import SeriesMetadata, changes
from pvapy_stream.settings import FileSettings

_TROUBLE = (*HDF5_ERRORS, FileError)

_log = logging.getLogger(__name__)


class FrameWriter:
    """Writes frames to files in the order of `write`, with several threads.

    Args:
        settings: what to write.
        processor_id: for ``{processorId}`` in names.
        account: returns the present ledger, for files that are closed while the stream continues.
        first_file_id: number of the first file.
        run: name of the run; files of the run are never replaced, its next file gets the next
            number. "" if every existing file is older.
        folder: no file may be outside of it, also not through links; None for no limit.
        area_detector: whether files have the names of areaDetector's HDF5 plugin too.
        live: whether readers find a file under its name already while it is written.
        on_saved: called with ids when they are flushed, from any thread.
        on_lost: called with ids that were taken and will not be in a file, the kind of the failure
            and its message, from any thread.

    Raises:
        SettingsError: the name format gives two files the same name.
        FileError: the folder cannot be created or written to, or the file exists.
        MissingExtraError: the codec's library is not installed.
    """

    def __init__(
        self,
        settings: FileSettings,
        processor_id: int = 1,
        account: Account | None = None,
        first_file_id: int = 1,
        *,
        run: str = "",
        folder: Path | None = None,
        area_detector: bool = False,
        live: bool = False,
        on_saved: Callable[[IdSet], None] | None = None,
        on_lost: Callable[[IdSet, str, str], None] | None = None,
    ) -> None:
        self.settings = settings
        names = FileNames(settings.output, processor_id, settings.images_per_file > 0)
        self._claims = Claims(names, settings.overwrite, run, folder)
        self.files = self._claims.begun
        self._run = run
        self._area_detector = area_detector
        self._live = live
        self._account = account
        self._on_saved = on_saved or (lambda ids: None)
        self._on_lost = on_lost or (lambda ids, kind, message: None)
        self._file_id = first_file_id - 1
        self._last_id: int | None = None  # the last id of the files before
        self._newest_id: int | None = None
        self._rows: RowWriter | None = None
        self._finder = SeriesFinder()
        self._series: SeriesMetadata | None = None  # of the file
        self._past = [0, 0]  # images and bytes of the files before
        self._failure: FileError | None = None
        self._raised = False
        self._lost: dict[str, IdSet] = {}  # of the file, by kind of failure
        self._doubtful = IdSet()  # ids that were given up
        prepare(settings.compression)
        if not names.depends_on_id:
            path = self._claims.find(first_file_id, 0).path
            make_folder(path.parent)
        self._in_flight = 2 * settings.n_threads + 1
        self._pool = ThreadPoolExecutor(settings.n_threads, "write", one_core_each)
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="write-flush", daemon=True)
        self._ticker.start()

    @property
    def n_images(self) -> int:
        """Images written so far."""
        return self._past[0] + (self._rows.n_images if self._rows else 0)

    @property
    def n_bytes(self) -> int:
        """Bytes of their chunks."""
        return self._past[1] + (self._rows.n_bytes if self._rows else 0)

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

        Its result is reported by `on_saved` and `on_lost`.

        Raises:
            ObjectError: it has no image, or one that cannot be written.
            CodecError: it cannot be decompressed.
            FileError: it cannot be written; the writer has failed.
        """
        with self._lock:
            self._raise_failure()
            if self._closed.is_set():
                raise FileError(f"the writer of {self.settings.output} is closed")
            rows = self._rows_for(frame)
            try:
                rows.take(frame)
            except _TROUBLE as error:
                if frame.id in self._fail(rows, error, frame.id):
                    self._raise_failure(error)
                return
            self._newest_id = frame.id
            limit = self.settings.images_per_file
            if limit and rows.n_taken >= limit:
                # If that fails, `on_lost` reports this frame like earlier ones.
                self._end_file(self._ledger(), {}, until=frame.id)

    def begin(self, frame: Frame) -> None:
        """Begin the file for images like that of a frame, which is not written.

        Raises:
            ObjectError, CodecError, FileError: as `write`.
        """
        with self._lock:
            self._raise_failure()
            self._rows_for(frame)

    def _rows_for(self, frame: Frame) -> RowWriter:
        form = stored_form(frame)
        shape, dtype = (form[1], frame.dtype) if form else _image_kind(frame)
        rows, series = self._rows, self._finder.of(frame)
        if rows is None or rows.file.kind != (shape, dtype) or changes(self._series, series):
            check_pixels(shape, dtype)
            return self._change_file(frame, shape, dtype, form[0] if form else None)
        # It is equal, and known for the next frames: a pixel mask is not compared for each.
        self._series = series
        return rows

    def flush(self) -> None:
        """Write all frames that were taken, so that readers see them.

        Raises:
            FileError: they cannot be written.
        """
        with self._lock:
            self._flush()
            self._raise_failure()

    def close(self, ledger: Ledger | None = None) -> None:
        """Write waiting frames and close the file; a second call has no effect.

        Args:
            ledger: the stage's ledger; None: the result of `account`.

        Raises:
            FileError: frames could not be written, or the file could not be closed.
        """
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
            try:
                self._end_file(ledger if ledger is not None else self._ledger(), {}, until=None)
            finally:
                self._pool.shutdown(wait=True, cancel_futures=True)
        self._ticker.join(5)
        if not self._raised:
            self._raise_failure()

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- failures --------------------------------------------------------------------------------

    def _raise_failure(self, cause: BaseException | None = None) -> None:
        if self._failure is not None:
            self._raised = True
            raise FileError(str(self._failure)) from cause

    def _flush(self) -> None:
        rows = self._rows
        if rows is None or self._failure is not None:
            return
        try:
            rows.flush()
        except _TROUBLE as error:
            self._fail(rows, error)

    def _tick(self) -> None:
        """Flush also while no frames arrive."""
        while not self._closed.wait(FLUSH_PERIOD / 4):
            with self._lock:
                if self._rows is not None and self._rows.overdue:
                    self._flush()

    def _fail(self, rows: RowWriter, error: Exception, current: int | None = None) -> list[int]:
        """End the writer after a failure: keep written frames, give up waiting ones.

        Args:
            rows: of the file.
            error: the failure.
            current: id of the frame whose `write` raises the failure itself.

        Returns:
            the ids that are lost.
        """
        rows.file.prepare_to_end()
        self._failure = (
            error if isinstance(error, FileError) else file_error("write", rows.file.part, error)
        )
        lost = rows.give_up()
        # Whether they are in the file is known when it is closed.
        self._doubtful.update(IdSet(lost) - IdSet([] if current is None else [current]))
        return lost

    def _refuse(self, frame_id: int, error: Exception) -> None:
        """Record that a frame that was taken cannot be decoded."""
        self._lost.setdefault(NOT_DECODABLE, IdSet()).add(frame_id)
        self._on_lost(IdSet([frame_id]), NOT_DECODABLE, str(error))

    # -- files -----------------------------------------------------------------------------------

    def _change_file(
        self, frame: Frame, shape: tuple[int, ...], dtype: np.dtype, codec: str | None
    ) -> RowWriter:
        """Begin a file for images of this shape, type and series, and close the one before.

        Raises:
            FileError: the one before cannot be closed, or the new one cannot be created.
        """
        old = self._rows.file if self._rows is not None else None
        claim = self._claims.find(self._file_id + 1, frame.id)
        notes: dict[str, str] = {}
        if old is not None:
            was, now = _shown(*old.kind), _shown(shape, dtype)
            text = f"Images changed at id {frame.id} from {was} to {now}:"
            if was == now:
                others = ", ".join(changes(self._series, self._finder.of(frame)))
                text = f"A series with another {others} begins at id {frame.id}:"
            _log.warning("%s file %s follows %s", text, claim.path, old.path)
            notes = {"continues": f"{text} this file continues {old.path.name}."}
            ended = {"continued": f"{text} {claim.path.name} continues this file."}
            self._end_file(self._ledger(), ended, until=self._newest_id)
            self._raise_failure()
        elif before := (self.files[-1] if self.files else claim.follows):
            notes = {"continues": f"This file continues {before.name}."}
            if claim.follows is not None:
                _log.warning(
                    "%s belongs to this run and is kept; the next file is %s", before, claim.path
                )
        return self._begin_file(claim, frame, shape, dtype, codec, notes)

    def _begin_file(
        self,
        claim: Claim,
        frame: Frame,
        shape: tuple[int, ...],
        dtype: np.dtype,
        codec: str | None,
        notes: dict[str, str],
    ) -> RowWriter:
        settings = self.settings
        codec = codec or settings.compression
        prepare(codec)
        make_folder(claim.path.parent)
        check_space(claim.path.parent, 0)
        series = self._finder.of(frame)
        file = NexusFile(
            claim.path,
            shape,
            dtype,
            codec=codec,
            attributes=frame.attributes,
            replaces=claim.replaces,
            image_name=settings.dataset_name,
            notes=notes,
            origin=self._origin(),
            area_detector=self._area_detector,
            live=self._live,
            series=series,
        )
        self._file_id, self._series = claim.number, series
        self._rows = RowWriter(file, self._pool, self._in_flight, self._on_saved, self._refuse)
        self.files.append(claim.path)
        return self._rows

    def _origin(self) -> dict[str, str]:
        """Attributes of the file that identify its writer without a ledger."""
        ledger = self._ledger()
        if ledger is None:
            return {"run": self._run}
        return {
            "run": self._run,
            "stage": f"{ledger.stage} {ledger.stage_id}",
            "input_channel": ledger.input_channel,
        }

    def _end_file(self, ledger: Ledger | None, notes: dict[str, str], until: int | None) -> None:
        """Close the file, if there is one; an error becomes the failure of the writer."""
        rows = self._rows
        if rows is None:
            return
        self._flush()
        self._rows = None
        record = LossRecord.of(ledger, self._last_id, until)
        for kind, ids in (*self._lost.items(), (NOT_WRITTEN, self._doubtful)):
            if ids:
                record.failed.setdefault(kind, IdSet()).update(ids)
        if self._failure is not None:
            notes = {**notes, "ended": f"Writing ended early: {self._failure}"}
        self._last_id = until
        gone = self._doubtful
        try:
            rows.file.close(record, notes)
        except FileError as error:
            rows.file.abandon()
            self._failure = self._failure or error
            # Only the file itself shows which frames were written.
            found = witness(rows.file.part).ids
            self._saved(gone & found)
            gone = (gone - found) | (rows.saved - found)
        if gone:
            self._on_lost(gone, NOT_WRITTEN, str(self._failure))
        self._past = [self._past[0] + rows.n_images, self._past[1] + rows.n_bytes]
        self._lost, self._doubtful = {}, IdSet()

    def _saved(self, ids: IdSet) -> None:
        if ids:
            self._on_saved(ids)

    def _ledger(self) -> Ledger | None:
        return self._account() if self._account is not None else None


def _image_kind(frame: Frame) -> tuple[tuple[int, ...], np.dtype]:
    if not frame.has_image:
        raise ObjectError(f"frame {frame.id} has no image; it is not written")
    return frame.image.shape, frame.image.dtype


def _shown(shape: tuple[int, ...], dtype: np.dtype) -> str:
    return f"{'x'.join(map(str, shape))} {dtype}"
