"""Consoles on which names and messages of users are shown as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_ANY_WIDTH = 100_000
_GAP = 2  # columns between the cells of a line


def make_console(*, file: IO[str] | None = None, width: int | None = None) -> Console:
    """A console that takes no text for markup, an emoji or a number.

    Args:
        file: what it writes to; standard output when not given.
        width: number of columns; that of the terminal when not given.
    """
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False)


class FittedTable:
    """A table where it fits; on a narrow terminal each of its rows as lines of names and values.

    Args:
        columns: their names.
        left: names of those that are justified left.
    """

    def __init__(self, columns: Sequence[str], left: Sequence[str] = ()) -> None:
        self._columns = columns
        self._left = left
        self._rows: list[list[Text]] = []
        self._total: list[Text] = []

    def add_row(self, *cells: str | Text) -> None:
        """Add a row, with a cell for each column."""
        self._rows.append(_texts(cells))

    def set_total(self, *cells: str | Text) -> None:
        """Set the last row, which is separate from the others."""
        self._total = _texts(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self._table()
        wide = options.update(width=_ANY_WIDTH)
        if console.measure(table, options=wide).maximum <= options.max_width:
            yield table
        else:
            yield from self._lines(options.max_width)

    def _table(self) -> Table:
        table = Table()
        for name in self._columns:
            table.add_column(name, justify="left" if name in self._left else "right")
        for row in self._rows:
            table.add_row(*row)
        if self._total:
            table.add_section()
            table.add_row(*self._total)
        return table

    def _lines(self, width: int) -> RenderResult:
        rows = [
            [
                Text.assemble((f"{name} ", "bold"), cell)
                for name, cell in zip(self._columns, row, strict=True)
                if cell
            ]
            for row in filter(None, (*self._rows, self._total))
        ]
        size = max((cell.cell_len for row in rows for cell in row), default=0)
        number = max(1, (width + _GAP) // (size + _GAP))
        for row in rows:
            yield Text("─" * width)
            for start in range(0, len(row), number):
                line = row[start : start + number]
                for cell in line[:-1]:
                    cell.pad_right(size + _GAP - cell.cell_len)
                yield Text.assemble(*line)


def _texts(cells: Sequence[str | Text]) -> list[Text]:
    return [Text(cell) if isinstance(cell, str) else cell for cell in cells]
