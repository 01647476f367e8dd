"""Values of one bsread channel in rows, with their presence and times.

A column holds the values of one type and shape. Small ones are gathered and written as blocks of
rows; large ones are chunks of their own, written as they come, compressed ones as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from pvapy_stream.bsread.packing import Buffer
from pvapy_stream.errors import ObjectError
from pvapy_stream.files.swissfel_layout import DATA, PRESENT, TIMES, make_dataset

_BLOCK = 65536  # bytes in a chunk of gathered rows, and the size from which a value is a chunk
_MOST_ROWS = 1024
_PACKED_CHUNK = 4096  # bytes; a compressed value of at least this size stays as it is
_PRESENT_ROWS = 4096
_MOST_DIMENSIONS = 31
_LARGEST = 2**31  # bytes of one value
_LZ4, _BITSHUFFLE = 32004, 32008
_SKIP_FILTER = 1

_FILTERS: dict[int, Callable[[], Mapping[str, object]]] = {
    0: dict,
    _LZ4: hdf5plugin.LZ4,
    _BITSHUFFLE: lambda: hdf5plugin.Bitshuffle(cname="lz4"),
}


class ColumnHeader(Protocol):
    """What is known of a channel beforehand; see `bsread.codec.ChannelHeader`."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def compression(self) -> str: ...
    @property
    def dtype(self) -> np.dtype[np.generic] | None: ...
    @property
    def array_shape(self) -> tuple[int, ...]: ...


class Value(Protocol):
    """A channel's value in one message; see `bsread.codec.ChannelValue`."""

    @property
    def header(self) -> ColumnHeader: ...
    @property
    def data(self) -> Buffer: ...
    @property
    def timestamp_ns(self) -> int | None: ...
    @property
    def present(self) -> bool: ...
    def decode(self) -> Any: ...
    def hdf5_chunk(self) -> Any: ...


class ColumnKind(NamedTuple):
    """What all values of a column have in common."""

    type: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, header: ColumnHeader) -> ColumnKind:
        return cls(header.type, () if header.dtype is None else header.array_shape)


class Column:
    """Rows of one kind; those that have no value are absent. One thread at a time.

    Args:
        header: of the first value.

    Attributes:
        made: whether its datasets are in the file.
    """

    _data: h5py.Dataset
    _present: h5py.Dataset
    _stamps: h5py.Dataset

    def __init__(self, header: ColumnHeader) -> None:
        self.kind = ColumnKind.of(header)
        self.next_row = 0
        self.suffix = ""
        self._start = 0
        self._payloads: list[Any] = []
        self._times: list[int | None] = []
        self.made = False

    @property
    def waits(self) -> bool:
        """Whether rows wait to be written."""
        return bool(self._times)

    def add(self, row: int, value: Value) -> None:
        """Take the value of a row.

        Raises:
            PvapyStreamError: the value is damaged; its row is absent.
            OSError: it cannot be written.
        """
        payload = self._take(row, value)
        if row != self.next_row:
            self._pass_over(row)
        self._payloads.append(payload)
        self._times.append(value.timestamp_ns or 0)
        self.next_row = row + 1

    def _pass_over(self, row: int) -> None:
        gap = row - self.next_row
        if self._times:
            self._payloads += [None] * gap
            self._times += [None] * gap
        else:
            self._start = row

    def make(self, group: h5py.Group) -> None:
        """Make the datasets in the channel's group."""
        self._make_data(group)
        make_marks(group)
        self.bind(group)

    def step_aside(self, group: h5py.Group) -> None:
        """Give up the names of the datasets to a newer column: `data` becomes `data(1)`."""
        number = 1
        while f"{DATA}({number})" in group:
            number += 1
        self.suffix = f"({number})"
        for name in (DATA, PRESENT, TIMES):
            group.move(name, f"{name}{self.suffix}")

    def bind(self, group: h5py.Group) -> None:
        """Find the datasets, also in a file that was opened anew."""
        self._data = group[f"{DATA}{self.suffix}"]
        self._present = group[f"{PRESENT}{self.suffix}"]
        self._stamps = group[f"{TIMES}{self.suffix}"]
        self.made = True

    def write(self) -> None:
        """Write the rows that wait."""
        times = self._times
        if not times:
            return
        start, n = self._start, len(times)
        self._store(start, self._payloads)
        present: NDArray[np.uint8]
        if None in times:
            present = np.fromiter((time is not None for time in times), np.uint8, n)
            times = [time or 0 for time in times]
        else:
            present = np.ones(n, np.uint8)
        append(self._present, start, present)
        append(self._stamps, start, np.array(times, np.int64))
        self._start = start + n
        self._payloads, self._times = [], []

    def forget(self) -> None:
        """Give up the rows that wait."""
        self._payloads, self._times = [], []

    def _take(self, row: int, value: Value) -> Any:
        raise NotImplementedError

    def _make_data(self, group: h5py.Group) -> None:
        raise NotImplementedError

    def _store(self, start: int, payloads: list[Any]) -> None:
        raise NotImplementedError


class RowColumn(Column):
    """Numbers that are gathered into blocks of rows."""

    def __init__(self, header: ColumnHeader) -> None:
        super().__init__(header)
        dtype = header.dtype
        assert dtype is not None  # noqa: S101 - texts have a column of their own
        self._dtype = dtype
        self._n_bytes = _size(header)
        self._empty = bytes(self._n_bytes)
        self._plain: ColumnHeader | None = None

    def _take(self, row: int, value: Value) -> Any:
        data = value.data
        if value.header is self._plain and len(data) == self._n_bytes:
            return data
        array = value.decode()
        header = value.header
        if header.compression == "none" and header.dtype == self._dtype:
            self._plain = header
        return array.astype(self._dtype, copy=False).tobytes()

    def _make_data(self, group: h5py.Group) -> None:
        rows = max(1, min(_MOST_ROWS, _BLOCK // self._n_bytes))
        make_dataset(group, DATA, self._dtype, self.kind.shape, rows)

    def _store(self, start: int, payloads: list[Any]) -> None:
        if None in payloads:
            payloads = [self._empty if data is None else data for data in payloads]
        rows = np.frombuffer(b"".join(payloads), self._dtype)
        append(self._data, start, rows.reshape(len(payloads), *self.kind.shape))


class ChunkColumn(Column):
    """Large arrays, each a chunk, written when they come and in the form in which they come."""

    def __init__(self, header: ColumnHeader) -> None:
        super().__init__(header)
        dtype = header.dtype
        assert dtype is not None  # noqa: S101 - texts have a column of their own
        self._dtype = dtype
        self._filter = {"lz4": _LZ4, "bitshuffle_lz4": _BITSHUFFLE}.get(header.compression, 0)
        self._offset = (0,) * len(self.kind.shape)
        self.n_bytes = 0

    def _take(self, row: int, value: Value) -> Any:
        if value.header.dtype == self._dtype:
            chunk = value.hdf5_chunk()
            found, data = chunk.filter_id, chunk.data
        else:
            found, data = 0, value.decode().astype(self._dtype).tobytes()
        if found not in (0, self._filter):
            found, data = 0, value.decode().tobytes()
        if not self.made:
            return found, data
        self._put(row, found, data)
        return True

    def _put(self, row: int, found: int, data: bytes) -> None:
        dataset = self._data.id
        if dataset.shape[0] <= row:
            dataset.set_extent((row + 1, *self.kind.shape))
        mask = 0 if found == self._filter else _SKIP_FILTER
        dataset.write_direct_chunk((row, *self._offset), data, mask)
        self.n_bytes += len(data)

    def _make_data(self, group: h5py.Group) -> None:
        make_dataset(group, DATA, self._dtype, self.kind.shape, 1, **_FILTERS[self._filter]())

    def _store(self, start: int, payloads: list[Any]) -> None:
        for row, payload in enumerate(payloads, start):
            if isinstance(payload, tuple):
                self._put(row, *payload)


class TextColumn(Column):
    """Texts."""

    def _take(self, row: int, value: Value) -> Any:
        # HDF5 ends a text at a NUL; this sign for it loses nothing.
        return value.decode().replace("\0", "\N{SYMBOL FOR NULL}")

    def _make_data(self, group: h5py.Group) -> None:
        make_dataset(group, DATA, h5py.string_dtype("utf-8"), (), _MOST_ROWS)

    def _store(self, start: int, payloads: list[Any]) -> None:
        append(self._data, start, np.array([text or "" for text in payloads], object))


def column_for(header: ColumnHeader) -> Column:
    """A column for values like this one.

    Raises:
        ObjectError: a file cannot hold them.
    """
    dtype = header.dtype
    if dtype is None:
        return TextColumn(header)
    shape, size = header.array_shape, _size(header)
    if not size or size > _LARGEST or len(shape) > _MOST_DIMENSIONS:
        raise ObjectError(
            f"channel {header.name!r}: a value of shape {str(list(shape))[:80]} cannot be in a"
            " file: it must have elements, at most 2 GiB of them, in at most 31 dimensions"
        )
    packed = header.compression != "none" and size >= _PACKED_CHUNK
    return ChunkColumn(header) if packed or size >= _BLOCK else RowColumn(header)


def make_marks(group: h5py.Group) -> None:
    """Make the datasets that show which rows have values, and their times."""
    for name, dtype, rows in ((PRESENT, np.uint8, _PRESENT_ROWS), (TIMES, np.int64, _MOST_ROWS)):
        if name not in group:
            make_dataset(group, name, dtype, (), rows)
    group[TIMES].attrs["units"] = "ns"


def append(dataset: h5py.Dataset, start: int, rows: NDArray[np.generic]) -> None:
    """Write rows at the end of a dataset; those between its end and them stay empty."""
    stop = start + len(rows)
    if dataset.shape[0] < stop:
        dataset.resize(stop, 0)
    dataset[start:stop] = rows


def _size(header: ColumnHeader) -> int:
    assert header.dtype is not None  # noqa: S101 - callers have seen it
    return math.prod(header.array_shape) * header.dtype.itemsize
