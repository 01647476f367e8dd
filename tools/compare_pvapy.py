"""Compare PvaPy's programs with ours: options, defaults, modes, fields of channels.

    python -m tools.compare_pvapy [--all]

Each difference needs an explanation in `tools/differences.py`; exit code 1 when one has none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rich.console import Console
from rich.table import Table

from tools.differences import EXPLAINED
from tools.incumbent import PROGRAMS, Option, modes, our_options, structures, their_options


@dataclass(frozen=True, slots=True)
class Row:
    """Something that PvaPy has or ours have.

    Attributes:
        what: program or channel, and the option or field.
        theirs: PvaPy's type and default; "" when it has none.
        ours: the same here.
    """

    what: str
    theirs: str
    ours: str

    @property
    def differs(self) -> bool:
        return self.theirs != self.ours

    def __str__(self) -> str:
        return f"{self.what}: {self.theirs or 'none'} > {self.ours or 'none'}"

    def explanation(self, explained: Mapping[str, str]) -> str:
        """Why they differ; "" when nobody says."""
        return next((why for key, why in explained.items() if fnmatchcase(str(self), key)), "")


def rows() -> dict[str, list[Row]]:
    """All that is compared, by the title of its table."""
    found = {f"Options of {program}": list(_option_rows(program)) for program in PROGRAMS}
    found["Modes"] = [
        Row(f"{name} {mode}", *("yes" if mode in side else "" for side in (theirs, ours)))
        for name, theirs, ours in modes()
        for mode in sorted(theirs | ours)
    ]
    for name, theirs, ours in structures():
        found[f"Fields of {name}"] = [
            Row(f"{name} {field}", theirs.get(field, ""), ours.get(field, ""))
            for field in [*theirs, *(field for field in ours if field not in theirs)]
        ]
    return found


def _option_rows(program: str) -> Iterator[Row]:
    theirs, ours = their_options(program), our_options(program)
    for name, option in theirs.items():
        # All of its flags must mean the same here.
        same = next((one for one in ours.values() if option.flags <= one.flags), None)
        yield Row(f"{program} {name}", _form(option), _form(same) if same else "")
    known = {flag for option in theirs.values() for flag in option.flags}
    for name, option in ours.items():
        if not option.flags & known:
            yield Row(f"{program} {name}", "", _form(option))


def _form(option: Option) -> str:
    return f"{option.kind}, {option.default or 'no default'}"


def main(argv: Sequence[str] | None = None, explained: Mapping[str, str] = EXPLAINED) -> int:
    """Print the tables; 1 when a difference has no explanation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="show what is the same, too")
    options = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 160)
    found = rows()
    differences = [row for table in found.values() for row in table if row.differs]
    for title, table in found.items():
        _show(console, title, table, explained, options.all)
    unexplained = [row for row in differences if not row.explanation(explained)]
    for key in explained:
        if not any(fnmatchcase(str(row), key) for row in differences):
            console.print(f"nothing to explain, for now: {key}", markup=False)
    console.print(f"{len(differences)} differences, {len(unexplained)} without an explanation")
    for row in unexplained:
        console.print(f"unexplained: {row}", markup=False)
    return 1 if unexplained else 0


def _show(
    console: Console,
    title: str,
    table: Sequence[Row],
    explained: Mapping[str, str],
    everything: bool,
) -> None:
    shown = Table("what", "PvaPy", "here", "why", title=title, title_justify="left")
    for row in table:
        if everything or row.differs:
            why = (row.explanation(explained) or "UNEXPLAINED") if row.differs else ""
            shown.add_row(row.what, row.theirs, row.ours, why)
    same = sum(not row.differs for row in table)
    if shown.row_count:
        console.print(shown, markup=False)
    console.print(f"{title}: {same} of {len(table)} the same\n", markup=False)


if __name__ == "__main__":
    raise SystemExit(main())
