"""Attributes as columns: one dataset for each name, one row for each image.

A file that is read while it is written can get no new datasets, and no dataset changes its type.
So the columns are those of the first image. What does not fit them (a name that appears late, a
missing value, a text that is too long) is recorded in a log in the file, and is merged into the
columns when the file is closed or recovered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import h5py
import msgspec
import numpy as np
from numpy.typing import NDArray

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.files.names import quoted

LOG = "log"

_ROWS_PER_CHUNK = 1024
_LOG_CHUNK = 16384  # bytes
_TEXT_LENGTH = 64  # bytes, at least; a file that is being read while written has no longer ones
_LENGTH = 4  # bytes that hold the length of a log entry
_MOST_RANGES = 1000  # of absent rows
_BIG = 2**63

_ABSENT = object()

# What HDF5 raises for data that are not there.
_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError)


class Columns:
    """The columns of one file while it is written. One thread at a time.

    Args:
        group: the group for the datasets.
        first: attributes of the first image.
    """

    def __init__(self, group: h5py.Group, first: Mapping[str, object]) -> None:
        self._columns = {
            name: _Column(group, name, value)
            for name, value in first.items()
            if _kind(value) is not None
        }
        self._log = group.create_dataset(
            LOG, (0,), np.uint8, maxshape=(None,), chunks=(_LOG_CHUNK,)
        )
        self._exceptions: list[tuple[int, str, object]] = []

    def add(self, row: int, attributes: Mapping[str, object]) -> None:
        """Add the attributes of the next image."""
        columns = self._columns
        known = 0
        for name, column in columns.items():
            value = attributes.get(name, _ABSENT)
            known += value is not _ABSENT
            if not column.add(value):
                self._exceptions.append((row, name, None if value is _ABSENT else _plain(value)))
        if known < len(attributes):
            self._exceptions += [
                (row, name, _plain(value))
                for name, value in attributes.items()
                if name not in columns
            ]

    def write(self, start: int, stop: int) -> None:
        """Write the rows from start to before stop; later rows are discarded."""
        for column in self._columns.values():
            column.write(start, stop)
        exceptions = [entry for entry in self._exceptions if entry[0] < stop]
        self._exceptions.clear()
        if exceptions:
            encoded = msgspec.msgpack.encode(exceptions)
            data = np.frombuffer(len(encoded).to_bytes(_LENGTH, "big") + encoded, np.uint8)
            end = self._log.shape[0]
            self._log.resize((end + data.size,))
            self._log[end:] = data


class _Column:
    """One dataset, and values that are not written to it yet."""

    def __init__(self, group: h5py.Group, name: str, value: Any) -> None:
        self._kind = _kind(value)
        shape = np.shape(value)
        dtype: object = self._kind
        self._width = 0
        if self._kind == "S":
            self._width = max(_TEXT_LENGTH, 2 * len(str(value).encode()))
            dtype = h5py.string_dtype("utf-8", self._width)
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._fill: object = _fill(self._dtype, shape)
        self._values: list[object] = []
        rows = max(1, _ROWS_PER_CHUNK * 8 // max(8, self._dtype.itemsize * int(np.prod(shape))))
        self._data = group.create_dataset(
            _quoted(name),
            (0, *shape),
            self._dtype,
            maxshape=(None, *shape),
            chunks=(rows, *shape),
        )
        self._data.attrs["name"] = name

    def add(self, value: Any) -> bool:
        """Add the value of the next row; False if it does not fit: the row gets a fill value."""
        if value is not _ABSENT and _kind(value) == self._kind:
            if self._width:
                value = str(value).encode()
                fits = len(value) <= self._width
            else:
                fits = np.shape(value) == self._shape
            if fits:
                self._values.append(value)
                return True
        self._values.append(self._fill)
        return False

    def write(self, start: int, stop: int) -> None:
        rows = np.array(self._values[: stop - start], self._dtype)
        self._values.clear()
        self._data.resize(stop, 0)
        self._data[start:stop] = rows.reshape(stop - start, *self._shape)


def settle(group: h5py.Group, n_rows: int) -> None:
    """Cut the columns to `n_rows` and merge the log into them; the file is not in SWMR mode."""
    by_name: dict[str, dict[int, object]] = defaultdict(dict)
    for row, name, value in read_log(group):
        if row < n_rows:
            by_name[name][row] = value
    del group[LOG]
    for column in group.values():
        if column.shape[0] > n_rows:
            column.resize(n_rows, 0)
    for name, values in by_name.items():
        _rewrite(group, name, values, n_rows)


def read_log(group: h5py.Group) -> Iterator[tuple[int, str, object]]:
    """Row, name and value (None for no value) of all entries in the log."""
    log = bytes(group[LOG][()]) if LOG in group else b""
    at = 0
    while at < len(log):
        end = at + _LENGTH + int.from_bytes(log[at : at + _LENGTH], "big")
        try:
            yield from msgspec.msgpack.decode(log[at + _LENGTH : end])
        except msgspec.DecodeError:
            return  # incomplete, as its writer was killed
        at = end


def _rewrite(group: h5py.Group, name: str, exceptions: dict[int, object], n_rows: int) -> None:
    """Replace a column by one with the values of the log."""
    values: list[object] = [_ABSENT] * n_rows
    if (key := _quoted(name)) in group:
        old = _values(group[key])[:n_rows]
        values[: len(old)] = old
        del group[key]
    for row, value in exceptions.items():
        values[row] = _ABSENT if value is None else value
    _store(group, name, values)


def gather(
    sources: Sequence[h5py.Group],
    lengths: Sequence[int],
    order: NDArray[np.int64],
    group: h5py.Group,
) -> None:
    """Join the columns of several files.

    Args:
        sources: group with the columns of each file.
        lengths: images in each file.
        order: (n,) row numbers in the joined files, in the order of the new columns.
        group: the group for the new columns.
    """
    names = {key: data.attrs["name"] for one in sources for key, data in one.items() if key != LOG}
    for key, name in names.items():
        values: list[object] = []
        for one, length in zip(sources, lengths, strict=True):
            found = _values(one[key])[:length] if key in one else []
            values += found + [_ABSENT] * (length - len(found))
        _store(group, name, [values[row] for row in order])


def take_rows(source: h5py.Group, rows: NDArray[np.int64], group: h5py.Group) -> None:
    """Make columns from some rows of the columns of a file that was not closed.

    Values that cannot be read are absent.

    Args:
        source: group with its columns and log.
        rows: (n,) numbers of the rows.
        group: the group for the new columns; empty except for a log.
    """
    logged: dict[str, dict[int, object]] = defaultdict(dict)
    with suppress(*_UNREADABLE):
        for row, name, value in read_log(source):
            logged[name][row] = _ABSENT if value is None else value
    found: dict[str, list[object]] = {name: [] for name in logged}
    for key in source:
        with suppress(*_UNREADABLE):
            if key != LOG:
                found[str(source[key].attrs["name"])] = _values(source[key])
    if LOG in group:
        del group[LOG]
    for name, values in found.items():
        late = logged[name]
        picked = [
            late.get(row, values[row] if row < len(values) else _ABSENT) for row in rows.tolist()
        ]
        _store(group, name, picked)


def _values(data: h5py.Dataset) -> list[object]:
    """The values of a column; absent rows are `_ABSENT`."""
    text = h5py.check_string_dtype(data.dtype) is not None
    values = (data.asstr() if text else data)[()].tolist()
    for first, last in data.attrs.get("absent_rows", ()):
        values[first : last + 1] = [_ABSENT] * (last + 1 - first)
    return values


def _store(group: h5py.Group, name: str, values: list[object]) -> None:
    data = group.create_dataset(_quoted(name), data=joined(values))
    data.attrs["name"] = name
    absent = IdSet(row for row, value in enumerate(values) if value is _ABSENT)
    if absent:
        # The values in these rows are fill values.
        data.attrs["n_absent"] = len(absent)
        ranges = absent.ranges()[:_MOST_RANGES]
        data.attrs["absent_rows"] = np.stack([ranges[:, 0], ranges[:, 1] - 1], axis=1)


def joined(values: list[Any]) -> np.ndarray:
    """An array of values of any kinds: numbers if all are, else text; absent ones are filled."""
    present = [value for value in values if value is not _ABSENT]
    kinds = {_kind(value) for value in present}
    shapes = {np.shape(value) for value in present}
    if len(shapes) > 1:
        # Such as a number and an array.
        dtype, shapes = np.dtype("O"), {()}
    elif kinds <= {"?"}:
        dtype = np.dtype("?")
    elif kinds <= {"?", "i8"}:
        dtype = np.dtype("i8")
    elif kinds <= {"?", "i8", "u8"} and np.min(np.array(present, object)) >= 0:
        dtype = np.dtype("u8")
    elif kinds <= {"?", "i8", "u8", "f8"}:
        dtype = np.dtype("f8")
    else:
        dtype, shapes = np.dtype("O"), {()}
    if dtype.kind == "O":
        texts = ["" if value is _ABSENT else str(value) for value in values]
        return np.array(
            [text.encode() for text in texts], h5py.string_dtype("utf-8", _width(texts))
        )
    shape = shapes.pop() if shapes else ()
    fill = _fill(dtype, shape)
    return np.array([fill if value is _ABSENT else value for value in values], dtype)


def _width(texts: list[str]) -> int:
    return max(1, max((len(text.encode()) for text in texts), default=1))


def _kind(value: object) -> str | None:
    """Type of a column for a value; None for what cannot begin one."""
    if isinstance(value, str):
        return "S"
    if isinstance(value, (bool, np.bool_)):
        return "?"
    if isinstance(value, float):
        return "f8"
    if isinstance(value, int):
        return "i8" if -_BIG <= value < _BIG else "u8" if 0 <= value < 2 * _BIG else None
    kind = None
    if isinstance(value, (np.ndarray, np.generic, list, tuple)):
        array = np.asarray(value)
        if array.size:
            kind = {"b": "?", "i": "i8", "u": "i8", "f": "f8"}.get(array.dtype.kind)
            if array.dtype.kind == "u" and array.max() >= _BIG:
                kind = "u8"
    return kind


def _plain(value: object) -> object:
    """A value that can be put into the log; anything else than numbers and text as text."""
    kind = _kind(value)
    if kind is None:
        return str(value)
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _fill(dtype: np.dtype, shape: tuple[int, ...]) -> object:
    """The fill value of a missing value: NaN, 0, False or an empty text."""
    if dtype.kind == "S":
        return b""
    value = dtype.type(np.nan if dtype.kind == "f" else 0)
    return np.full(shape, value) if shape else value


def _quoted(name: str) -> str:
    """A name without special characters of HDF5 paths, and different from that of the log."""
    key = quoted(name)
    return key.replace("l", "%6C", 1) if key == LOG else key
