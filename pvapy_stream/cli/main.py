"""``pvapy-stream COMMAND``: one program for all commands.

A command is a file of this folder with a ``COMMAND``; its first line has the name, the group and a
summary. Only the file of the chosen command is imported, so the list is shown at once.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

PROG = "pvapy-stream"

GROUPS = ("run", "record", "watch", "check", "workflow", "set up")

# Names of earlier versions; they work, and are not listed.
ALIASES = {
    "write": ("save",),
    "writer": ("bsread-writer",),
    "writer-client": ("bsread-client",),
    "buffer": ("bsread-buffer",),
    "demo-writer": ("demo", "--bsread"),
    "create-project": ("project", "create"),
    "schedule-project": ("project", "schedule"),
    "stop-project": ("project", "stop"),
}

_FOLDER = Path(__file__).parent
_FIRST_LINE = re.compile(r'"""``([a-z-]+)`` \(([a-z ]+)\): (.*)\."""')


class Entry(NamedTuple):
    """The module of a command, its group, and its summary in one line."""

    module: str
    group: str
    help: str


@functools.cache
def commands() -> dict[str, Entry]:
    """All commands, by group."""
    found = dict(filter(None, map(_read, sorted(_FOLDER.glob("*.py")))))
    return dict(sorted(found.items(), key=lambda item: GROUPS.index(item[1].group)))


def find(name: str) -> Entry | None:
    """A command by its name; most are in the file of that name, and the others are not read."""
    path = _FOLDER / f"{name.replace('-', '_')}.py"
    likely = _read(path) if path.is_file() else None
    return likely[1] if likely and likely[0] == name else commands().get(name)


def _read(path: Path) -> tuple[str, Entry] | None:
    """Name and entry of the command in a file, if it has one."""
    with path.open(encoding="utf-8") as file:
        line = _FIRST_LINE.match(file.readline())
    return (line[1], Entry(path.stem, line[2], line[3])) if line else None


def usage() -> str:
    """The commands by group."""
    width = max(map(len, commands()))
    lines = [
        f"usage: {PROG} [-h] [-v] COMMAND …",
        "",
        "Distributed, real-time streaming of detector data over EPICS PVAccess.",
    ]
    for group in GROUPS:
        lines += ["", f"{group}:"]
        lines += [
            f"  {name:<{width}}  {entry.help}"
            for name, entry in commands().items()
            if entry.group == group
        ]
    return "\n".join([*lines, "", f"{PROG} COMMAND -h lists the options of a command.", ""])


def load(name: str) -> ModuleType:
    """The module of a command, by its name, an earlier name of one word, or the module's name."""
    entry = find(ALIASES.get(name, (name,))[0])
    return importlib.import_module(f"pvapy_stream.cli.{entry.module if entry else name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in the first argument; returns its exit code, 2 if it is unknown."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "-h"
    if name in ("-h", "--help", "help"):
        sys.stdout.write(usage())
        return 0
    if name in ("-v", "--version"):
        from pvapy_stream import __version__

        sys.stdout.write(f"{PROG} {__version__}\n")
        return 0
    name, *arguments = (*ALIASES.get(name, (name,)), *arguments[1:])
    if find(name) is None:
        sys.stderr.write(f"error: {_unknown(name)}\n")
        return 2
    try:
        return load(name).main(arguments)
    except ModuleNotFoundError as error:
        if error.name not in ("pvaccess", "pvapy"):
            raise
        sys.stderr.write(
            "error: pvapy is not installed; install it with: pip install pvapy"
            f"  ({PROG} doctor checks all of the installation)\n"
        )
        return 1


def _unknown(name: str) -> str:
    import difflib  # here, as few command lines are wrong

    nearest = difflib.get_close_matches(name, commands(), n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"{PROG} -h lists the commands"
    what = "option" if name.startswith("-") else "command"
    return f"{PROG} has no {what} {name!r}; {hint}"


if __name__ == "__main__":
    sys.exit(main())
