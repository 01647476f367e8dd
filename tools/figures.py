"""How large and how tangled the code is, beside the goals for it."""

from __future__ import annotations

import argparse
import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import permutations
from pathlib import Path
from typing import TypeAlias

import grimp

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pvapy_stream"
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"

Names: TypeAlias = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Example:
    """A part as it would be added, from which files that an addition changes are counted.

    Attributes:
        kind: what it is.
        files: its own files.
        names: what registers it: its classes, and its name as a text.
        ignored: files that name it for a reason that no new one has.
    """

    kind: str
    files: tuple[str, ...]
    names: frozenset[str]
    ignored: frozenset[str] = frozenset()


EXAMPLES = (
    Example(
        "transport (from consumer to workflow)",
        # Settings, receiver, publisher and datagrams could be in the file of the mode.
        (
            "transport/ejfat_mode.py",
            "transport/ejfat.py",
            "transport/ejfat_settings.py",
            "transport/ejfat_wire.py",
        ),
        frozenset(
            {"ejfat", "ejfat_mode", "ejfat_settings", "EjfatReceiver", "EjfatPublisher"}
            | {"EjfatInputSettings", "EjfatOutputSettings"}
        ),
        # The numbers that PvaPy has for its modes.
        frozenset({"settings/text_types.py"}),
    ),
    Example(
        "monitor",
        ("monitor/table_monitor.py",),
        frozenset({"table_monitor", "TableMonitor", "TableSettings"}),
        # Where users may import its settings from, as in earlier versions.
        frozenset({"settings/__init__.py"}),
    ),
    Example("command", ("cli/keygen.py",), frozenset({"keygen"})),
    Example(
        "processor",
        ("processors/transpose.py",),
        frozenset({"transpose", "Transpose"}),
        # numpy's function of this name.
        frozenset({"frame.py", "sim/image_sources.py"}),
    ),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table.

    Attributes:
        what: it measures.
        value: of today.
        goal: the value to reach.
        least: the goal is the least value, not the largest.
        details: where it comes from, a line each.
    """

    what: str
    value: float
    goal: float
    least: bool = False
    details: tuple[str, ...] = ()

    @property
    def reached(self) -> bool:
        """Whether the value is as good as the goal."""
        return self.value >= self.goal if self.least else self.value <= self.goal

    @property
    def cells(self) -> tuple[str, str, str]:
        """The row as text."""
        goal = f"{'≥' if self.least else '≤'} {self.goal:,g}" if self.goal > 1 or self.least else ""
        return self.what, f"{self.value:,g}", goal or f"{self.goal:g}"


def figures() -> Iterator[Figure]:
    """All rows."""
    for example in EXAMPLES:
        changed = files_changed(example)
        yield Figure(f"files that a new {example.kind} changes", len(changed), 1, details=changed)
    trees = [tree for _, tree in sources()]
    lines = lines_of(PACKAGE)
    anys = sum(isinstance(one, ast.Name) and one.id == "Any" for t in trees for one in ast.walk(t))
    yield Figure("`Any` in 1,000 lines", round(1000 * anys / lines, 1), 8)
    yield Figure("lines in the package", lines, 36_000)
    yield _shared("module names", modules(), 5)
    yield _shared("class names", classes(), 0)
    ratio = round(lines_of(ROOT / "tests") / lines, 2)
    yield Figure("test lines for a line of code", ratio, 0.7, least=True)
    found = circles()
    yield Figure("circles among siblings", len(found), 0, details=found)


def _shared(what: str, names: Names, goal: int) -> Figure:
    shared = {name: places for name, places in sorted(names.items()) if len(places) > 1}
    details = tuple(f"{name}: {', '.join(places)}" for name, places in shared.items())
    return Figure(f"{what} that two or more bear", len(shared), goal, details=details)


@cache
def sources() -> tuple[tuple[str, ast.Module], ...]:
    """Name and content of each file of the package."""
    return tuple(
        (path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_bytes()))
        for path in sorted(PACKAGE.rglob("*.py"))
    )


def lines_of(folder: Path) -> int:
    """Lines of all Python files, comments and empty ones too."""
    return sum(len(path.read_bytes().splitlines()) for path in folder.rglob("*.py"))


def modules() -> Names:
    """Files by the name of their module."""
    found: dict[str, list[str]] = defaultdict(list)
    for file, _ in sources():
        name = Path(file).stem
        if not name.startswith("__"):
            found[name].append(file)
    return found


def classes() -> Names:
    """Files by the names of the classes in them."""
    found: dict[str, list[str]] = defaultdict(list)
    for file, tree in sources():
        for one in ast.walk(tree):
            if isinstance(one, ast.ClassDef):
                found[one.name].append(file)
    return found


def files_changed(example: Example) -> tuple[str, ...]:
    """One file for the part itself, and those that register it by one of its names."""
    others = [
        file
        for file, tree in sources()
        if file not in {*example.files, *example.ignored}
        and not example.names.isdisjoint(_words(tree))
    ]
    return (example.files[0], *others)


def _words(tree: ast.Module) -> Iterator[str]:
    """Names that code uses, and whole texts."""
    for one in ast.walk(tree):
        if isinstance(one, ast.Name):
            yield one.id
        elif isinstance(one, ast.alias):
            yield one.name.rpartition(".")[2]
        elif isinstance(one, ast.ImportFrom):
            yield (one.module or "").rpartition(".")[2]
        elif isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value


def circles() -> tuple[str, ...]:
    """A circle of imports for each package whose parts import each other."""
    graph = grimp.build_graph(PACKAGE.name, cache_dir=None)
    found: list[str] = []
    for package in sorted(graph.modules):
        parts = sorted(graph.find_children(package))
        inside = {part: {part, *graph.find_descendants(part)} for part in parts}
        imported = {
            part: {one for module in inside[part]
                   for one in graph.find_modules_directly_imported_by(module)}
            for part in parts
        }  # fmt: skip
        arrows: dict[str, set[str]] = {part: set() for part in parts}
        for one, other in permutations(parts, 2):
            if imported[one] & inside[other]:
                arrows[one].add(other)
        try:
            TopologicalSorter(arrows).prepare()
        except CycleError as error:
            found.append(" < ".join(error.args[1]))
    return tuple(found)


def table(rows: Iterable[Figure]) -> str:
    """The rows as Markdown."""
    lines = [f"| {' | '.join(row.cells)} | {'yes' if row.reached else 'no'} |" for row in rows]
    return "\n".join(["| | today | goal | reached |", "|---|--:|--:|---|", *lines])


def write(page: Path, text: str) -> None:
    """Put the table between the markers of a page.

    Raises:
        ValueError: the page has no markers.
    """
    head, begin, rest = page.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the table: {BEGIN} and {END}")
    page.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.figures", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit code 1 when a goal is missed")
    parser.add_argument("--details", action="store_true", help="show what is counted, too")
    parser.add_argument("--table", type=Path, metavar="FILE", help="page to put the table into")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; with --check 1 when a goal is missed."""
    options = _parser().parse_args(argv)
    rows = list(figures())
    text = table(rows)
    sys.stdout.write(f"{text}\n")
    for row in rows if options.details else ():
        if row.details:
            sys.stdout.write("\n".join([f"\n{row.what}:", *(f"  {d}" for d in row.details)]) + "\n")
    if options.table:
        write(options.table, text)
    missed = [row.what for row in rows if not row.reached]
    if options.check and missed:
        sys.stderr.write(f"goals missed: {'; '.join(missed)}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
