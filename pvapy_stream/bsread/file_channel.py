"""One bsread channel in a file: a group, and a column for each kind of values it had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvapy_stream.bsread.file_columns import (
    Column,
    ColumnHeader,
    ColumnKind,
    Value,
    column_for,
    make_marks,
)
from pvapy_stream.errors import ObjectError
from pvapy_stream.files.names import quoted

if TYPE_CHECKING:
    import h5py

_MOST_KINDS = 1000


class FileChannel:
    """Sorts the values of one channel into columns.

    Args:
        name: its name, which may hold what names in HDF5 do not.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.header: ColumnHeader | None = None
        self.columns: dict[ColumnKind, Column] = {}
        self.named = False
        self.n_bad = 0
        self._current: Column | None = None
        self._newest: Column | None = None

    def see(self, header: ColumnHeader) -> None:
        """Take note of what the data header says; it counts when there is a value with it."""
        self.header = header
        self._current = None

    def add(self, row: int, value: Value) -> None:
        """Take the value of a row.

        Raises:
            PvapyStreamError: it is damaged, or a file cannot hold it.
            OSError: it cannot be written.
        """
        column = self._current
        if column is not None:
            column.add(row, value)
            return
        kind = ColumnKind.of(value.header)
        column = self.columns.get(kind) or self._new_column(value.header)
        # A kind that only damaged messages have must not come into the file.
        column.add(row, value)
        self._current = self.columns[kind] = column

    def _new_column(self, header: ColumnHeader) -> Column:
        if len(self.columns) >= _MOST_KINDS:
            raise ObjectError(
                f"channel {self.name!r} has had values of {_MOST_KINDS} types and shapes; values"
                " of further ones are not written"
            )
        return column_for(header)

    @property
    def unmade(self) -> bool:
        """Whether the file lacks something of it."""
        return not self.named or any(not column.made for column in self.columns.values())

    def make(self, data: h5py.Group, pulses: h5py.Dataset) -> None:
        """Make what the file lacks."""
        key = quoted(self.name)
        if not self.named:
            group = data.create_group(key)
            group["pulse_id"] = pulses
            if key != self.name:
                group.attrs["name"] = self.name
            make_marks(group)
            self.named = True
        group = data[key]
        for column in self.columns.values():
            if not column.made:
                if self._newest is not None:
                    self._newest.step_aside(group)
                column.make(group)
                self._newest = column

    def bind(self, data: h5py.Group) -> None:
        """Find the datasets in a file that was opened anew."""
        for column in self.columns.values():
            if column.made:
                column.bind(data[quoted(self.name)])
