"""`RecordingFile`: a stream as it came, written to an HDF5 file.

::

    /                   attributes: format, state, problem, created, and what is known of the stream
    /objects/arrival    (n,) when each object came, ns since 1970-01-01 UTC
             id         (n,) its id
             end        (n,) where its bytes end in `bytes`; they begin where those before it end
             checksum   (n,) CRC-32 of its bytes
             bytes      (m,) the objects one after another, in the format of `pva.serial`

Arrival times are of a clock that does not go back. A row is there only when its bytes are.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.keeper import sync_to_disk
from pvapy_stream.errors import FileError
from pvapy_stream.files.chunks import checksum
from pvapy_stream.files.disk import (
    HDF5_ERRORS,
    Reserve,
    check_new,
    check_space,
    file_error,
    identity,
    make_folder,
    note_failed_close,
    take_name,
)
from pvapy_stream.files.names import part_of
from pvapy_stream.files.nexus_layout import opened

FORMAT = "pvapy_stream recording 1"
# States; LIMITED: closed, as a limit was reached.
OPEN, CLOSED, LIMITED = "open", "closed", "limited"
OBJECTS = "objects"
ARRIVAL, ID, END, CHECKSUM, BYTES = "arrival", "id", "end", "checksum", "bytes"
COLUMNS: Mapping[str, str] = {ARRIVAL: "i8", ID: "i8", END: "u8", CHECKSUM: "u4"}
ROWS_PER_CHUNK = 4096

_FLUSH_PERIOD = 0.8  # s; what a crash may take
_PIECE = 2**18  # bytes that are written at a time: a longer call would delay other threads
_CHUNK = 2**20  # bytes
# HDF5 would keep up to 8 MB of each dataset, for which there may be no space at the end. What is
# written here is gathered before, and written once.
_NO_CACHE: Mapping[str, int] = {"rdcc_nbytes": 0, "rdcc_nslots": 1}
_STATE, _PROBLEM = "S8", "S400"
_INDEX = 150_000  # bytes of the disk that the rows of a flush may take

Buffer = bytes | bytearray | memoryview


class RecordingFile:
    """A recording that is being written; `PATH.part` until it is closed. One thread at a time.

    Args:
        path: its name when it is closed.
        about: what is noted of the stream, by name: input_channel, mode, stage, run.
        overwrite: whether a file of the same name, that is there now, may be replaced.

    Attributes:
        n_rows: objects taken.
        n_written: objects that are flushed: in the file, and readable.
        n_bytes: bytes of the objects taken.

    Raises:
        FileError: it exists, or cannot be made.
    """

    def __init__(
        self, path: Path, about: Mapping[str, str] | None = None, overwrite: bool = False
    ) -> None:
        self.path = path
        self.part = part_of(path)
        self.n_rows = self.n_written = self.n_bytes = 0
        self._rows: dict[str, list[int]] = {name: [] for name in COLUMNS}
        self._parts: list[Buffer] = []
        self._waiting = 0  # bytes in `_parts`
        self._stored = 0  # bytes in the file
        self._flushed_at = float("-inf")
        make_folder(path.parent)
        if self.part.exists():
            raise FileError(
                f"{self.part} exists: it is being recorded, or its recorder was killed; then"
                " pvapy-stream replay reads it as it is; give another name"
            )
        check_new(path, overwrite)
        self._replaces = identity(path) if overwrite else None
        self._reserve = Reserve(path.parent)
        try:
            self._file = opened(self.part, "x", **_NO_CACHE)
            self._make(about or {})
            self._file.swmr_mode = True
        except HDF5_ERRORS as error:
            self._reserve.release()
            raise file_error("write", self.part, error) from error

    def _make(self, about: Mapping[str, str]) -> None:
        file = self._file
        created = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        # At most 8 attributes, and those that change of fixed lengths: they are then changed in
        # place. If they moved to the end of the file, nothing of a file that is cut could be read.
        for name, value in {**about, "created": created, "format": FORMAT}.items():
            file.attrs[name] = value
        file.attrs["state"] = np.array(OPEN, _STATE)
        file.attrs["problem"] = np.array("", _PROBLEM)
        group = file.create_group(OBJECTS)
        self._columns: dict[str, Any] = {
            name: group.create_dataset(
                name, (0,), dtype, maxshape=(None,), chunks=(ROWS_PER_CHUNK,)
            )
            for name, dtype in COLUMNS.items()
        }
        group[ARRIVAL].attrs["units"] = "ns"
        group[CHECKSUM].attrs["description"] = "CRC-32 (as zlib's) of the bytes of each object"
        self._bytes: Any = group.create_dataset(
            BYTES, (0,), "u1", maxshape=(None,), chunks=(_CHUNK,)
        )

    @property
    def unwritten(self) -> IdSet:
        """Ids of objects that were taken and are not flushed."""
        return IdSet(self._rows[ID])

    def add(self, arrival_ns: int, object_id: int, parts: Sequence[Buffer]) -> None:
        """Take an object; it is in the file, and readable, within about a second.

        Args:
            arrival_ns: when it came, ns since 1970.
            object_id: its id.
            parts: its bytes, which are kept and must not change.

        Raises:
            FileError: it cannot be written.
        """
        check = 0
        for part in parts:
            check = checksum(part, check)
            self._waiting += len(part)
            self.n_bytes += len(part)
        self._parts += parts
        for name, value in zip(COLUMNS, (arrival_ns, object_id, self.n_bytes, check), strict=True):
            self._rows[name].append(value)
        self.n_rows += 1
        if self._waiting >= _PIECE:
            self._guarded(self._put)
        self.keep_up()

    def keep_up(self) -> None:
        """Flush what waits for too long; call several times a second when nothing comes.

        Raises:
            FileError: it cannot be written.
        """
        if self.n_written < self.n_rows and time.monotonic() - self._flushed_at > _FLUSH_PERIOD:
            self.flush()

    def flush(self) -> None:
        """Make all that was taken readable.

        Raises:
            FileError: that is not possible.
        """
        self._guarded(self._write)

    def _guarded(self, write: Callable[[], None]) -> None:
        try:
            check_space(self.part, self._waiting + _CHUNK + _INDEX)
            write()
        except HDF5_ERRORS as error:
            raise file_error("write", self.part, error) from error

    def _put(self) -> None:
        """Write the bytes that wait."""
        data = np.frombuffer(b"".join(self._parts), np.uint8)
        end = self._stored + data.size
        self._bytes.resize((end,))
        for begin in range(0, data.size, _PIECE):
            piece = data[begin : begin + _PIECE]
            self._bytes[self._stored + begin : self._stored + begin + piece.size] = piece
        # Only now: until here, another try writes the same.
        self._stored = end
        self._parts.clear()
        self._waiting = 0

    def _write(self) -> None:
        """Write all that waits."""
        self._put()
        self._write_rows()

    def _write_rows(self) -> None:
        """Write the rows of all objects whose bytes are in the file."""
        # Bytes first: a reader, or who comes after a crash, goes by the rows.
        self._file.flush()
        n = bisect_right(self._rows[END], self._stored)
        stop = self.n_written + n
        for name, column in self._columns.items():
            column.resize((stop,))
            column[self.n_written :] = np.array(self._rows[name][:n], column.dtype)
        self._file.flush()
        for rows in self._rows.values():
            del rows[:n]
        self.n_written = stop
        self._flushed_at = time.monotonic()

    def close(self, problem: str = "", *, limited: bool = False) -> None:
        """Write what waits, complete and rename the file.

        When what waits cannot be written, the file is completed without it, and says why.

        Args:
            problem: why the recording ended early; "" if it did not.
            limited: whether it ended because a limit was reached.

        Raises:
            FileError: something could not be written. The file is readable: with its own name if it
                could be completed, else as `PATH.part`.
        """
        failed: FileError | None = None
        try:
            if not problem:
                self.flush()
        except FileError as error:
            failed, problem = error, str(error)
        self._reserve.release()
        if problem:
            # What was held back is enough for the rows of what is in the file.
            with suppress(*HDF5_ERRORS):
                self._write_rows()
        try:
            self._file.close()
            with opened(self.part, "r+", locking=False) as file:
                complete_recording(file, self.n_written, problem, LIMITED if limited else CLOSED)
            sync_to_disk(self.part)
            take_name(self.part, self.path, self._replaces)
        except HDF5_ERRORS as error:
            self.abandon()
            raise failed or file_error("complete", self.part, error) from error
        if failed is not None:
            raise failed

    def abandon(self) -> None:
        """Leave the file as it is, as if its recorder had been killed."""
        self._reserve.release()
        try:
            self._file.close()
        except HDF5_ERRORS:
            # Its disk is full: what was flushed is there.
            with suppress(*HDF5_ERRORS):
                note_failed_close(self)


def complete_recording(file: Any, n_rows: int, problem: str, state: str) -> None:
    """Complete a recording that is open for writing with its first rows.

    Args:
        file: the file.
        n_rows: how many objects are whole.
        problem: why there are no more; "" if all is there.
        state: CLOSED or LIMITED.
    """
    # Of the rows that are not complete there may be some columns.
    for name in COLUMNS:
        file[OBJECTS][name].resize((n_rows,))
    text = np.array(problem.encode("ascii", "replace"), _PROBLEM)
    file.attrs.modify("problem", text)
    file.attrs.modify("state", np.array(state, _STATE))
