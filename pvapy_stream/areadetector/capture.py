"""One capture: the images between start and stop, in one file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import IdStep, SequenceTracker
from pvapy_stream.errors import FileError, PvapyStreamError
from pvapy_stream.files.nexus import FrameWriter
from pvapy_stream.files.record import NOT_DECODABLE
from pvapy_stream.frame import Frame
from pvapy_stream.settings import FileSettings

_KIND = "writer"


class Capture:
    """Writes images, and counts those that are in the file before the first loss.

    `take`, `flush` and `close` are for one thread; images are counted by threads of the writer.

    Args:
        path: the file.
        folder: no file may be outside of it.
        compression: of images that arrive uncompressed.
        channel: that the images come from.
        live: whether readers find the file under its name while it is written.
        gaps: whether ids may be missing, as behind a stage that filters.
        changed: called when `count` or `problem` has changed, from any thread.

    Attributes:
        path: the file.
        taken: images that were taken.
        problem: the first thing that went wrong; "" if nothing did.
        over: whether nothing more can be written.

    Raises:
        FileError: the file exists, or cannot be made.
    """

    def __init__(
        self,
        path: Path,
        folder: Path,
        *,
        compression: str,
        channel: str,
        live: bool,
        gaps: bool,
        changed: Callable[[], None],
    ) -> None:
        self.path = path
        self.taken = self.n_flushes = 0
        self.problem = ""
        self.over = False
        self._gaps = gaps
        self._changed = changed
        self._lock = threading.Lock()
        self._saved = 0
        self._limit: int | None = None  # images before the first loss
        self._begun_at = self._last_at = 0.0
        self._tracker = SequenceTracker()
        self._ledger = Ledger(_KIND, 1, channel, file=str(path))
        # Braces in a name are keys to a FrameWriter.
        output = str(path).replace("{", "{{").replace("}", "}}")
        self._writer = FrameWriter(
            FileSettings.of(output=output, compression=compression),
            account=self._account,
            folder=folder,
            area_detector=True,
            live=live,
            on_saved=self._note_saved,
            on_lost=self._note_lost,
        )

    # -- any thread ------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Images in the file that were flushed, up to the first loss."""
        with self._lock:
            return self._saved if self._limit is None else min(self._saved, self._limit)

    @property
    def saved(self) -> int:
        """Images in the file that were flushed, also those after a loss."""
        return self._saved

    @property
    def has_file(self) -> bool:
        """Whether the file was begun."""
        return bool(self._writer.files)

    @property
    def runtime(self) -> float:
        """Time from the first image to the last, s."""
        return self._last_at - self._begun_at

    @property
    def n_bytes(self) -> int:
        """Bytes of the images as they are stored."""
        return self._writer.n_bytes

    def fail(self, problem: str, limit: int | None = None) -> None:
        """Something is lost.

        Args:
            problem: what.
            limit: images before the loss; those that were taken, if it is not given.
        """
        with self._lock:
            before = self.taken if limit is None else limit
            self._limit = before if self._limit is None else min(self._limit, before)
            self.problem = self.problem or problem
        self._changed()

    def _note_saved(self, ids: IdSet) -> None:
        with self._lock:
            self._saved += len(ids)
            self._ledger.processed.update(ids)
            self.n_flushes += 1
        self._changed()

    def _note_lost(self, ids: IdSet, kind: str, message: str) -> None:
        # Images before one that cannot be decoded are in the file, or soon will be.
        limit = self._writer.n_images if kind == NOT_DECODABLE else self._saved
        with self._lock:
            for number in ids:
                self._ledger.fail(kind, number)
        self.fail(f"images {ids} are lost: {message}", limit)

    def _account(self) -> Ledger:
        tracker, ledger = self._tracker, self._ledger
        ledger.missed, ledger.unknown = tracker.missed.copy(), tracker.unknown.copy()
        if self._gaps:
            ledger.excused = tracker.missed.copy()
        return ledger

    # -- the thread that takes images ------------------------------------------------------------

    def begin(self, frame: Frame) -> None:
        """Make the file for images like this one, which is not written.

        Raises:
            PvapyStreamError: that is not possible.
        """
        self._writer.begin(frame)

    def take(self, frame: Frame) -> None:
        """Write an image. What goes wrong is in `problem`."""
        self._follow(frame.id)
        self._last_at = time.monotonic()
        self._begun_at = self._begun_at or self._last_at
        with self._lock:
            self._ledger.received.add(frame.id)
        n_files = len(self._writer.files)
        try:
            self._writer.write(frame)
        except FileError as error:
            self.over = True
            self.fail(str(error), self._saved)
            return
        except PvapyStreamError as error:
            with self._lock:
                self._ledger.fail("no image", frame.id)
            self.fail(f"image {frame.id} is lost: {error}")
            return
        if n_files and len(self._writer.files) > n_files:
            self.fail(
                f"images changed at id {frame.id}; {self._writer.files[-1].name} has the rest"
            )
        self.taken += 1

    def _follow(self, frame_id: int) -> None:
        tracker = self._tracker
        last, n_gone = tracker.last, len(tracker.missed) + len(tracker.unknown)
        step = tracker.observe(frame_id)
        if step is IdStep.BACK:
            self.fail(f"ids went back from {last} to {frame_id}: the source was restarted")
            tracker.begin_epoch(frame_id)
        elif step is IdStep.AGAIN:
            self.fail(f"image {frame_id} came twice")
        elif len(tracker.missed) + len(tracker.unknown) > n_gone and not self._gaps:
            first = (last or 0) + 1
            gone = f"{first}" if frame_id == first + 1 else f"{first} to {frame_id - 1}"
            self.fail(f"images {gone} did not arrive")

    @property
    def unflushed(self) -> int:
        """Images that were taken and are not flushed yet."""
        return max(0, self.taken - self._saved)

    def flush(self) -> None:
        """Make all images that were taken readable. What goes wrong is in `problem`."""
        try:
            self._writer.flush()
        except FileError as error:
            self.over = True
            self.fail(str(error), self._saved)

    def close(self) -> None:
        """Write what waits and close the file. What goes wrong is in `problem`."""
        try:
            self._writer.close(self._account())
        except FileError as error:
            self.fail(str(error), self._saved)
