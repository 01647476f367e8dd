"""`NexusMessages`: images, and messages with one, as a `FrameWriter` writes them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.bsread.codec import ChannelValue
from pvapy_stream.bsread.image_messages import ImageMessage
from pvapy_stream.daq.items import Item
from pvapy_stream.errors import FileError, ObjectError, PvapyStreamError
from pvapy_stream.files.disk import file_error
from pvapy_stream.files.ending import PLAIN, Ending
from pvapy_stream.files.instrument import SeriesFinder
from pvapy_stream.files.names import part_of
from pvapy_stream.files.nexus import FrameWriter
from pvapy_stream.files.nexus_layout import (
    ATTRIBUTES,
    CHECKSUMS,
    IDS,
    IMAGES,
    TIMES,
    add_notes,
    opened,
)
from pvapy_stream.files.record import NOT_DECODABLE
from pvapy_stream.frame import Frame
from pvapy_stream.settings import FileSettings

if TYPE_CHECKING:
    import h5py

_LZ4_PREFIX = 4  # bytes of the size before an lz4 block
_NO_IMAGE = "(no image)"


class NexusMessages:
    """Writes the first image of each message, and its other values as attributes of the image.

    Args:
        path: the file.
        general: texts that become notes of the entry.
        about: what is noted of the acquisition.
        overwrite: whether the file may be replaced.

    Raises:
        FileError: it exists, or cannot be made.
    """

    def __init__(
        self,
        path: Path,
        general: Mapping[str, str] | None = None,
        about: Mapping[str, str | int] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = path
        self.part = part_of(path)
        self.n_bytes = self.n_steps = 0
        self.bad_values: dict[str, int] = {}
        self.saved: IdSet | None = None
        self._flushed = IdSet()
        self._lock = threading.Lock()  # of what the writer's threads report
        self.lost: list[tuple[int, int]] = []
        self._about = dict(about or {})
        self._general = dict(general or {})
        self._channel = ""
        self._ledger = Ledger("writer")
        self._not_written = IdSet()
        self._finder = SeriesFinder()
        # Braces in a name are keys to a FrameWriter.
        output = str(path).replace("{", "{{").replace("}", "}}")
        self._writer = FrameWriter(
            FileSettings.of(output=output, overwrite=overwrite),
            on_saved=self._note_saved,
            on_lost=self._note_lost,
        )

    @property
    def n_rows(self) -> int:
        """Images taken."""
        return self._writer.n_images

    @property
    def damaged(self) -> IdSet:
        """Ids of messages without an image, or with one that cannot be decoded."""
        with self._lock:
            return self._not_written.copy()

    @property
    def unwritten(self) -> IdSet:
        """Ids of images that were taken and are not flushed."""
        with self._lock:
            return self._ledger.processed - self._flushed - self._not_written

    def _note_saved(self, ids: IdSet) -> None:
        with self._lock:
            self._flushed.update(ids)

    def _note_lost(self, ids: IdSet, kind: str, message: str) -> None:
        # What a file could not take is found missing from what it has.
        if kind == NOT_DECODABLE:
            self._note_damaged(ids)

    def _note_damaged(self, ids: IdSet) -> None:
        with self._lock:
            name = self._channel or _NO_IMAGE
            self.bad_values[name] = self.bad_values.get(name, 0) + len(ids)
            self._not_written.update(ids)

    def add(self, message: Item, flags: int = 0) -> int:
        """Take a message; one without an image is counted, and not written.

        Raises:
            FileError: it cannot be written.
        """
        self._ledger.received.add(message.pulse_id)
        try:
            frame = self._frame(message)
            self._writer.write(frame)
        except FileError:
            raise
        except PvapyStreamError:
            self._note_damaged(IdSet([message.pulse_id]))
            self._ledger.fail("no image", message.pulse_id)
            return self.n_rows
        self.n_bytes += message.nbytes
        self._ledger.processed.add(message.pulse_id)
        return self.n_rows

    def _frame(self, message: Item) -> Frame:
        if not isinstance(message, ImageMessage):
            return self._frame_of_message(message)
        source, frame = message.source, message.frame
        self._channel = source.name
        attributes = {name: _plain(one) for name, one in source.attributes(frame).items()}
        made = frame.replace(id=message.pulse_id, attributes=attributes)
        # The new names of its attributes do not show it.
        made.series = self._finder.of(frame)
        return made

    def _frame_of_message(self, message: Item) -> Frame:
        image: ChannelValue | None = None
        attributes: dict[str, object] = {}
        for value in message.channels:
            if not value.present:
                continue
            name = value.header.name
            if name == self._channel if self._channel else _is_image(value):
                self._channel, image = name, value
            else:
                attributes[name] = _plain(value.decode())
        if image is None:
            raise ObjectError(f"pulse {message.pulse_id} has no image")
        return _as_frame(message, image, attributes)

    def keep_up(self) -> None:
        """Nothing: the writer flushes by itself."""

    def close(self, ending: Ending = PLAIN) -> None:
        """Write what waits, complete the files, and cut off images after the last pulse.

        Raises:
            FileError: that is not possible.
        """
        last = ending.last
        for first, end in ending.lost:
            self._ledger.missed.add_range(first, end)
        if last is not None:
            # What came after it is none of this file's.
            within = IdSet()
            within.add_range(0, last)
            self._ledger.received = self._ledger.received & within
        try:
            self._writer.close(self._ledger)
        finally:
            missing = self._ledger.missed | self.damaged
            self.lost = [(first, end - 1) for first, end in missing.ranges().tolist()]
        with self._lock:
            self.saved = self._flushed.copy()
        texts = {**self._general, **ending.general}
        notes = {**self._about, **ending.about}
        notes |= {f"general_{name}": text for name, text in texts.items()}
        try:
            for path in self._writer.files:
                _finish(path, last, notes)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise file_error("complete", self.path, error) from error


def _is_image(value: ChannelValue) -> bool:
    return value.header.dtype is not None and len(value.header.shape) in (2, 3)


def _as_frame(message: Item, value: ChannelValue, attributes: Mapping[str, object]) -> Frame:
    """A frame; compressed images stay as they are."""
    header = value.header
    time_ns = message.timestamp_ns or value.timestamp_ns or 0
    chunk = value.hdf5_chunk()
    if header.compression == "none" or chunk is None or len(header.shape) != 2:
        return Frame.of(message.pulse_id, value.decode(), time_ns=time_ns, attributes=attributes)  # type: ignore[arg-type]
    lz4 = header.compression == "lz4"
    return Frame(
        message.pulse_id,
        np.frombuffer(value.data, np.uint8, offset=_LZ4_PREFIX if lz4 else 0),
        header.array_shape,
        time_ns=time_ns,
        dtype=header.dtype,
        codec="lz4" if lz4 else "bslz4",
        attributes=attributes,
    )


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.item() if value.size == 1 else value.astype(value.dtype.newbyteorder("="))
    return value


def _finish(path: Path, last: int | None, notes: Mapping[str, str | int]) -> None:
    """Cut a closed file off after a pulse, and add notes."""
    with opened(path, "r+") as file:
        entry = file["entry"]
        add_notes(entry, {name: str(text) for name, text in notes.items()})
        ids = file[IDS][()]
        within = np.flatnonzero(ids <= last) if last is not None else np.arange(len(ids))
        n = int(within[-1]) + 1 if within.size else 0
        if n == len(ids):
            return
        for name in (IMAGES, IDS, TIMES, CHECKSUMS):
            file[name].resize(n, 0)
        for name in list(file[ATTRIBUTES]):
            _cut(file[ATTRIBUTES], name, n)


def _cut(group: h5py.Group, name: str, n: int) -> None:
    """Make a column anew with its first n rows."""
    column = group[name]
    values, attributes, dtype = column[:n], dict(column.attrs), column.dtype
    if "absent_rows" in attributes:
        ranges = np.minimum(attributes["absent_rows"], n - 1)
        attributes["absent_rows"] = ranges[attributes["absent_rows"][:, 0] < n]
        attributes["n_absent"] = int((np.diff(attributes["absent_rows"], axis=1) + 1).sum())
    del group[name]
    group.create_dataset(name, data=values, dtype=dtype).attrs.update(attributes)
