"""`SwissfelFile`: bsread messages to an HDF5 file in the SwissFEL layout. No sockets.

::

    /general/created, user, process, instrument     fixed-length texts
    /data/CHANNEL/data              (n, …) values, one row for each message
                  pulse_id          (n,) pulse ids; the same dataset for all channels
                  is_data_present   (n,) whether the row of `data` is a value
                  timestamp         (n,) ns since 1970-01-01 UTC, 0 for unknown
    /acquisition/pulse_id, timestamp, flags         (n,) of the messages
                 lost               (k, 2) first and last pulse id of ranges that are not there

A channel whose type or shape changes goes on in a new `data`; the one before becomes `data(1)`,
with `is_data_present(1)` and `timestamp(1)`. Row k belongs to `pulse_id[k]` in all of them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.keeper import sync_to_disk
from pvapy_stream.bsread.file_channel import FileChannel
from pvapy_stream.bsread.file_columns import ChunkColumn, Value, append
from pvapy_stream.errors import FileError, MissingExtraError, PvapyStreamError
from pvapy_stream.files.disk import (
    Reserve,
    check_new,
    check_space,
    file_error,
    identity,
    make_folder,
    note_failed_close,
    take_name,
)
from pvapy_stream.files.ending import PLAIN, Ending
from pvapy_stream.files.names import part_of
from pvapy_stream.files.nexus_layout import opened
from pvapy_stream.files.record import ids_of
from pvapy_stream.files.swissfel_layout import (
    ACQUISITION,
    CHANNELS,
    CLOSED,
    COUNTED,
    PULSES,
    complete,
    make_tree,
    write_general,
)

_FLUSH_PERIOD = 0.8  # s; what a crash may take
_FLUSH_ROWS = 4096
_FLUSH_BYTES = 64 * 2**20  # of rows that wait
_CHECK_EVERY = 500_000  # bytes, of the space on the disk
_PER_CHANNEL = 24_000  # bytes; chunks that a flush may begin in each channel
# HDF5 would keep up to 8 MB of each dataset, of which a channel has three; what is written here is
# gathered before, and written once.
_NO_CACHE: Mapping[str, int] = {"rdcc_nbytes": 0, "rdcc_nslots": 1}

_CLOSING = 200_000  # bytes; to complete a file
_MOST_NAMED = 200  # channels with damaged values that a file names

# What HDF5 and the system raise.
TROUBLE = (OSError, RuntimeError, ValueError)


class MessageLike(Protocol):
    """What is written of a message; see `bsread.codec.Message`."""

    @property
    def pulse_id(self) -> int: ...
    @property
    def timestamp_ns(self) -> int | None: ...
    @property
    def channels(self) -> Sequence[Value]: ...
    @property
    def nbytes(self) -> int: ...


class SwissfelFile:
    """A file that is being written; `PATH.part` until it is closed. One thread at a time.

    Args:
        path: its name when it is closed.
        general: texts for /general, by name.
        about: what is noted of the acquisition, by name.
        overwrite: whether a file of the same name, that is there now, may be replaced.

    Attributes:
        n_rows: messages taken.
        n_written: messages that are flushed: in the file, and readable.
        n_bytes: size of the messages taken.
        n_steps: grows while it is at work, also within a call that takes long.
        damaged: pulse ids of messages with a value that was damaged.
        lost: after `close`, first and last pulse id of ranges that are not in it.
        saved: after `close`, the pulse ids that are in it, also when that failed; None before.

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
        self.n_rows = 0
        self.n_written = 0
        self.n_bytes = 0
        self.n_steps = 0
        self.damaged = IdSet()
        self.lost: list[tuple[int, int]] = []
        self.saved: IdSet | None = None
        # Up to so many bytes there is space.
        self._checked = 0
        self._channels: dict[str, FileChannel] = {}
        self._plan: list[FileChannel] = []
        self._pulses: list[int] = []
        self._times: list[int] = []
        self._flags: list[int] = []
        self._direct: list[ChunkColumn] = []
        # Bytes that were gathered and then written, up to the last flush.
        self._settled = 0
        self._flushed_at = float("-inf")
        make_folder(path.parent)
        check_new(path, overwrite)
        self._replaces = identity(path) if overwrite else None
        self._reserve = Reserve(path.parent)
        try:
            self._file = opened(self.part, "x", **_NO_CACHE)
            make_tree(self._file, general or {}, about or {})
            self._bind()
            self._file.swmr_mode = True
        except TROUBLE as error:
            self._reserve.release()
            raise file_error("write", self.part, error) from error

    def _bind(self) -> None:
        group = self._file[ACQUISITION]
        self._rows = [group[name] for name in PULSES]
        data = self._file[CHANNELS]
        for channel in self._channels.values():
            channel.bind(data)

    @property
    def bad_values(self) -> dict[str, int]:
        """Values that could not be written because they were damaged, by channel."""
        return {name: channel.n_bad for name, channel in self._channels.items() if channel.n_bad}

    @property
    def unwritten(self) -> IdSet:
        """Pulse ids of messages that were taken and are not flushed."""
        return IdSet(self._pulses)

    def add(self, message: MessageLike, flags: int = 0) -> int:
        """Take a message; it is in the file, and readable, within about a second.

        Values that are damaged are counted, and their rows are absent.

        Returns:
            its row.

        Raises:
            FileError: it cannot be written.
            MissingExtraError: the library of a compression is not installed.
        """
        row = self.n_rows
        size = message.nbytes
        try:
            if self.n_bytes + size > self._checked:
                check_space(self.part, size + _CHECK_EVERY)
                self._checked = self.n_bytes + size + _CHECK_EVERY
            n_bad = self._add_values(row, message.channels)
        except TROUBLE as error:
            raise file_error("write", self.part, error) from error
        if n_bad:
            self.damaged.add(message.pulse_id)
        self._pulses.append(message.pulse_id)
        self._times.append(message.timestamp_ns or 0)
        self._flags.append(flags)
        self.n_rows = row + 1
        self.n_bytes += size
        self._flush_if_due()
        return row

    def _add_values(self, row: int, values: Sequence[Value]) -> int:
        """Take the values of a row; how many of them are damaged."""
        plan, n_bad = self._plan, 0
        if len(plan) != len(values):
            plan = self._plan = [self._channel(value.header.name) for value in values]
        for position, value in enumerate(values):
            channel = plan[position]
            if channel.header is not value.header:
                channel = plan[position] = self._channel(value.header.name)
                channel.see(value.header)
            if value.present:
                try:
                    channel.add(row, value)
                except MissingExtraError:
                    # The value may be whole.
                    raise
                except PvapyStreamError:
                    channel.n_bad += 1
                    n_bad += 1
        return n_bad

    def _channel(self, name: str) -> FileChannel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = FileChannel(name)
        return channel

    def _flush_if_due(self) -> None:
        late = time.monotonic() - self._flushed_at > _FLUSH_PERIOD
        if late or len(self._pulses) >= _FLUSH_ROWS or self._waiting > _FLUSH_BYTES:
            self.flush()

    @property
    def _waiting(self) -> int:
        """Bytes of values that are in memory only."""
        return max(0, self.n_bytes - self._n_direct() - self._settled)

    @property
    def _needed(self) -> int:
        """Bytes of the disk that a flush may take: what waits, and chunks that are begun."""
        return self._waiting + _PER_CHANNEL * len(self._channels)

    def _n_direct(self) -> int:
        return sum(column.n_bytes for column in self._direct)

    def keep_up(self) -> None:
        """Flush what waits for too long; call several times a second when nothing comes.

        Raises:
            FileError: it cannot be written.
        """
        if self._pulses and time.monotonic() - self._flushed_at > _FLUSH_PERIOD:
            self.flush()

    def flush(self) -> None:
        """Make all that was taken readable.

        Raises:
            FileError: that is not possible.
        """
        try:
            check_space(self.part, self._needed)
            self._write()
        except TROUBLE as error:
            raise file_error("write", self.part, error) from error

    def _write(self) -> None:
        self._make_channels()
        self._write_rows()
        self._settled = self.n_bytes - self._n_direct()
        self._flushed_at = time.monotonic()

    def _write_rows(self) -> None:
        for channel in self._channels.values():
            self.n_steps += 1
            for column in channel.columns.values():
                if column.waits:
                    column.write()
        # Values first: a reader, or the recovery after a crash, counts the pulse ids.
        self._file.flush()
        waiting = self._times, self._flags, self._pulses
        for dataset, rows in zip(self._rows, waiting, strict=True):
            if rows:
                append(dataset, self.n_written, np.array(rows, dataset.dtype))
        self._file.flush()
        # Only now: until here, another try writes the same rows.
        for rows in waiting:
            rows.clear()
        self.n_written = self.n_rows

    def _make_channels(self) -> None:
        """Make groups and datasets, which a file that can be read along does not take."""
        new = [channel for channel in self._channels.values() if channel.unmade]
        if not new:
            return
        self._file.close()
        # Those who read along hold a lock, which must not keep us off.
        self._file = opened(self.part, "r+", locking=False, **_NO_CACHE)
        self._bind()
        for channel in new:
            self.n_steps += 1
            channel.make(self._file[CHANNELS], self._rows[-1])
        self._direct = [
            column
            for channel in self._channels.values()
            for column in channel.columns.values()
            if isinstance(column, ChunkColumn)
        ]
        self._file.swmr_mode = True

    def close(self, ending: Ending = PLAIN) -> None:
        """Write what waits, complete and rename the file; then `lost` and `saved` are known.

        Raises:
            FileError: that is not possible; what was written stays as `PATH.part`.
        """
        problem = self._last_flush()
        notes = dict(ending.about)
        if self.damaged:
            named = list(self.bad_values.items())[:_MOST_NAMED]
            notes["damaged_values"] = json.dumps(dict(named))
        try:
            self._file.close()
            with opened(self.part, "r+", locking=False) as file:
                ids = file[COUNTED][()]
                missing = self._settle(ids, ending)
                if ending.general:
                    write_general(file, ending.general)
                self.n_rows = self.n_written = complete(file, missing, notes, CLOSED, ending.last)
                self.saved = ids_of(ids[: self.n_rows])
            sync_to_disk(self.part)
            take_name(self.part, self.path, self._replaces)
        except (*TROUBLE, KeyError) as error:
            note_failed_close(self)
            self.abandon()
            # Only the file shows which rows it has.
            ids = _readable_ids(self.part)
            self._settle(ids, ending)
            self.saved = ids_of(ids)
            raise problem or file_error("complete", self.part, error) from error
        if problem is not None:
            raise problem

    def _settle(self, ids: NDArray[np.int64], ending: Ending) -> IdSet:
        """Take rows that the file has, though their flush failed, from those that wait; set `lost`.

        Args:
            ids: (n,) pulse ids of the rows of the file; a row is counted when its values are in it.
            ending: what the stream lost.

        Returns:
            what the stream lost, and what was taken and is not in the file.
        """
        # By position: the same id may have come before.
        come = ids[self.n_written : self.n_written + len(self._pulses)].tolist()
        if come == self._pulses[: len(come)]:
            for rows in (self._times, self._flags, self._pulses):
                del rows[: len(come)]
            self.n_written += len(come)
        missing = IdSet(self._pulses)
        for first, end in ending.lost:
            missing.add_range(first, end)
        self.lost = [(first, end - 1) for first, end in missing.ranges().tolist()]
        return missing

    def _last_flush(self) -> FileError | None:
        """Write what waits; why not all of it could be written."""
        problem: FileError | None = None
        try:
            self.flush()
        except FileError as error:
            problem = error
        self._reserve.release()
        disk = os.statvfs(self.part)
        if problem is not None and disk.f_bavail * disk.f_frsize > self._needed + _CLOSING:
            # What was held back is enough for rows whose images are in the file. Where it is not,
            # trying would leave a file that nobody can read.
            with suppress(*TROUBLE):
                self._write()
        return problem

    def abandon(self) -> None:
        """Leave the file as it is, as if its writer had been killed."""
        self._reserve.release()
        try:
            self._file.close()
        except TROUBLE:
            # Its disk is full: what was flushed is there.
            note_failed_close(self)


def _readable_ids(path: Path) -> NDArray[np.int64]:
    """The pulse ids of a file that was not closed well; none when it cannot be read."""
    for swmr in (False, True):
        with suppress(*TROUBLE, KeyError), opened(path, "r", swmr=swmr, locking=False) as file:
            return file[COUNTED][()]
    return np.zeros(0, np.int64)
