"""``link`` (set up): make the names that pvapy also installs run this package, or pvapy."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from pvapy_stream.cli.command import CliCommand
from pvapy_stream.errors import SettingsError

PACKAGE = "pvapy-stream"
INCUMBENT = "pvapy"

# Names that both packages install, and the command of this package for each.
SHARED = {
    "pvapy-hpc-consumer": "consumer",
    "pvapy-hpc-collector": "collector",
    "pvapy-mirror-server": "mirror",
    "pvapy-ad-sim-server": "sim",
}
_SCRIPT_BYTES = 65536
_LONGEST_LINE = 127  # bytes that old kernels read of the first line

_EPILOG = """\
examples:
  pvapy-stream link            # ours: pvapy-hpc-consumer, pvapy-hpc-collector, …
  pvapy-stream link --undo     # pvapy's, or none where pvapy is not installed
pvapy installs the same names; which package has them depends on the order of installation. Whatever
they are, `pvapy-stream consumer`, `collector`, `mirror` and `sim` do the same.
exit codes: 0 success; 1 a name belongs to neither package, or the folder cannot be used;
            2 wrong options
"""


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    made.add_argument("--undo", action="store_true", help="make the names run pvapy again")
    made.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="folder of the names [default that of this Python's commands]",
    )


def run(options: argparse.Namespace) -> int:
    """Make the names run this package, or pvapy again; 1 if one belongs to neither package.

    Raises:
        SettingsError: the folder cannot be written to.
    """
    folder = options.folder or _folder()
    if not folder.is_dir():
        raise LinkError(f"{folder} is not a folder; give the folder of the commands with --folder")
    theirs = _entry_points() if options.undo else {}
    foreign = 0
    for name, command in SHARED.items():
        path = folder / name
        owner = owner_of(path) if path.exists() or path.is_symlink() else "nobody"
        if not owner:
            foreign += 1
            sys.stderr.write(
                f"error: {path} belongs to neither pvapy_stream nor pvapy, and is left unchanged;"
                f" check that file; {PACKAGE} {command} runs this package\n"
            )
            continue
        with _told(path):
            said = (
                _give_back(path, theirs.get(name, ""), owner)
                if options.undo
                else _take(path, command, owner)
            )
        sys.stdout.write(f"{path} {said}\n")
    return 1 if foreign else 0


def _folder() -> Path:
    """Path of this program, if it was called as a command."""
    program = Path(sys.argv[0])
    if program.name == PACKAGE:
        return program.absolute().parent
    return Path(sysconfig.get_path("scripts"))


class LinkError(SettingsError):
    """The folder of the commands cannot be used."""

    exit_code = 1


def _take(path: Path, command: str, owner: str) -> str:
    if owner == "pvapy_stream":
        return "already runs this package"
    _write(path, f"pvapy_stream.cli.{command}:main")
    return "now runs this package"


def _give_back(path: Path, theirs: str, owner: str) -> str:
    if owner == INCUMBENT or (owner == "nobody" and not theirs):
        return "does not run this package"
    if theirs:
        _write(path, theirs)
        return "now runs pvapy"
    path.unlink()
    return "is removed; pvapy is not installed"


def _write(path: Path, entry_point: str) -> None:
    """Write a console script, as pip does, in one step."""
    module, _, function = entry_point.partition(":")
    line = f"#!{sys.executable}"
    if " " in line or len(line.encode()) > _LONGEST_LINE:
        line = f"#!/bin/sh\n'''exec' {shlex.quote(sys.executable)} \"$0\" \"$@\"\n' '''"
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(
        f"{line}\nimport sys\nfrom {module} import {function}\n"
        f'if __name__ == "__main__":\n    sys.exit({function}())\n',
        encoding="utf-8",
    )
    aside.chmod(0o755)
    aside.replace(path)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LinkError(f"cannot change {path}: {error.strerror}; may you write there?") from error


def _entry_points() -> dict[str, str]:
    """The console scripts of pvapy; none where it is not installed."""
    try:
        found = metadata.distribution(INCUMBENT).entry_points
    except metadata.PackageNotFoundError:
        return {}
    return {entry.name: entry.value for entry in found.select(group="console_scripts")}


def owner_of(script: Path) -> str:
    """The package that a console script imports: pvapy_stream, pvapy or "" for another."""
    try:
        with script.open("rb") as file:
            text = file.read(_SCRIPT_BYTES)
    except OSError:
        return ""
    if b"pvapy_stream" in text:
        return "pvapy_stream"
    return INCUMBENT if re.search(rb"\bpvapy\.", text) else ""


COMMAND = CliCommand(
    "pvapy-stream link",
    "Make the command names that pvapy also installs run this package, or pvapy again.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
)
main = COMMAND.main
