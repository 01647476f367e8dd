"""`RecordedStream`: reads the files of `recording`, also those that are cut short or not closed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.errors import FileError
from pvapy_stream.files.chunks import checksum
from pvapy_stream.files.disk import HDF5_ERRORS, file_error
from pvapy_stream.files.reading import open_any
from pvapy_stream.files.recording import (
    ARRIVAL,
    BYTES,
    CHECKSUM,
    CLOSED,
    COLUMNS,
    END,
    FORMAT,
    ID,
    LIMITED,
    OBJECTS,
    ROWS_PER_CHUNK,
)
from pvapy_stream.files.superblock import is_cut, open_cut

_FORMATS = FORMAT[:-1]
_BLOCK = 2**16  # bytes that are read at a time; a longer read would delay what is due


class Recorded(NamedTuple):
    """An object as it was recorded.

    Attributes:
        arrival_ns: when it came, ns since 1970.
        id: its id.
        data: its bytes, in the format of `pva.serial`.
    """

    arrival_ns: int
    id: int
    data: memoryview


class RecordedStream:
    """A recording that is read.

    Args:
        path: the file.

    Attributes:
        n_rows: objects that the file names.
        arrivals: (n_rows,) when they came, ns since 1970.
        ids: (n_rows,) their ids.
        unreadable: ids of objects whose bytes could not be read; known when `rows` is over.
        problem: why the file has not all that came; "" if it has.
        closed: whether its recorder closed it.
        limited: whether it ended because a limit was reached.
        channel, mode: where it was received from, and how.
        stage, run: of the recorder, as in other files.

    Raises:
        FileError: it is not there, or no recording, or nothing of it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unreadable = IdSet()
        self.problem = ""
        try:
            self._cut = is_cut(path)
            self._file: h5py.File = open_cut(path) if self._cut else open_any(path)
        except OSError as error:
            raise file_error("read", path, error) from error
        try:
            self._read_index()
        except BaseException:
            self.close()
            raise

    def _read_index(self) -> None:
        try:
            attributes: Any = self._file.attrs
            kind = str(attributes.get("format", ""))
            self.channel = str(attributes.get("input_channel", ""))
            self.mode = str(attributes.get("mode", ""))
            self.stage = str(attributes.get("stage", ""))
            self.run = str(attributes.get("run", ""))
            state, problem = (
                bytes(attributes.get(name, b"")).rstrip(b"\0").decode()
                for name in ("state", "problem")
            )
            group: Any = self._file[OBJECTS] if kind == FORMAT else None
        except (*HDF5_ERRORS, KeyError) as error:
            raise FileError(f"{self.path}: nothing of it can be read: {error}") from error
        if kind != FORMAT:
            found = kind if kind.startswith(_FORMATS) else "no recording of pvapy-stream record"
            raise FileError(f"{self.path} is {found}; only {FORMAT!r} can be read")
        if self._cut:
            self.problem = "its end is missing"
        elif problem:
            self.problem = f"its recording ended early: {problem}"
        elif state not in (CLOSED, LIMITED):
            self.problem = "its recorder was killed, or has not ended"
        self.closed = state in (CLOSED, LIMITED) and not self._cut
        self.limited = state == LIMITED
        self._read_columns(group)

    def _read_columns(self, group: Any) -> None:
        try:
            # Without a cache for whole chunks: a piece of one is then read in less time.
            low: Any = h5py
            access = low.h5p.create(low.h5p.DATASET_ACCESS)
            access.set_chunk_cache(1, 0, 1.0)
            self._bytes: Any = low.Dataset(low.h5d.open(group.id, BYTES.encode(), access))
            columns = {name: _readable(group[name]) for name in COLUMNS}
        except (*HDF5_ERRORS, KeyError) as error:
            raise FileError(f"{self.path}: nothing of it can be read: {error}") from error
        n = min(len(column) for column in columns.values())
        # Missing bytes read as zeros, and nothing ends at 0.
        if not (whole := columns[END][:n] != 0).all():
            n = int(np.argmin(whole))
        self.n_rows = n
        self.arrivals = columns[ARRIVAL][:n]
        self.ids = columns[ID][:n]
        self._ends = columns[END][:n].astype(np.int64)
        self._checks = columns[CHECKSUM][:n]
        if n and (self.arrivals.min() <= 0 or (np.diff(self._ends, prepend=0) < 0).any()):
            raise FileError(f"{self.path}: its rows are damaged; nothing of it can be used")

    def rows(self) -> Iterator[Recorded]:
        """The objects in the order in which they came, without those that cannot be read."""
        ends, at, begin = self._ends, 0, 0
        while at < self.n_rows:
            stop = max(at + 1, int(np.searchsorted(ends, begin + _BLOCK, "right")))
            data = self._bytes_between(begin, int(ends[stop - 1]))
            if data is None and stop > at + 1:
                # Some of it may be readable.
                stop = at + 1
                data = self._bytes_between(begin, int(ends[at]))
            start = begin
            for row in range(at, stop):
                end = int(ends[row])
                piece = None if data is None else data[begin - start : end - start]
                if piece is None or checksum(piece) != self._checks[row]:
                    self.unreadable.add(int(self.ids[row]))
                else:
                    yield Recorded(int(self.arrivals[row]), int(self.ids[row]), piece)
                begin = end
            at = stop

    def _bytes_between(self, begin: int, end: int) -> memoryview | None:
        try:
            data: NDArray[np.uint8] = self._bytes[begin:end]
        except HDF5_ERRORS:
            return None
        return data.data if len(data) == end - begin else None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> RecordedStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def is_recording(file: h5py.File) -> bool:
    """Whether an open file is a recording, of whatever version."""
    attributes: Any = file.attrs
    return str(attributes.get("format", "")).startswith(_FORMATS)


def _readable(column: Any) -> NDArray[Any]:
    """The rows of a column up to the first that cannot be read."""
    found: list[NDArray[Any]] = []
    for begin in range(0, len(column), ROWS_PER_CHUNK):
        try:
            found.append(column[begin : begin + ROWS_PER_CHUNK])
        except HDF5_ERRORS:
            break
    return np.concatenate(found) if found else np.zeros(0, column.dtype)
