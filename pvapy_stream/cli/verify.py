"""``verify`` (check): check files for lost and damaged images; recover unclosed ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from pvapy_stream.cli.command import CliCommand
from pvapy_stream.cli.console import make_console
from pvapy_stream.files.completeness import FileReport, verify
from pvapy_stream.files.master import make_master
from pvapy_stream.files.repair import repair

# Do not wrap a table that is not shown on a terminal.
_WIDE = 250

_EPILOG = """\
examples:
  pvapy-stream verify scan_*.h5
  pvapy-stream verify --deep scan.h5
  pvapy-stream verify --repair scan.h5.part
  pvapy-stream verify scan_*.h5 --master scan.h5
exit codes: 0 nothing is lost or damaged; 1 something is; 2 wrong options
"""


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    made.add_argument("files", nargs="+", metavar="FILE", help="file to check")
    made.add_argument(
        "--repair",
        action="store_true",
        help="first complete files whose writer was killed, and remove .part from their names",
    )
    made.add_argument(
        "--deep",
        action="store_true",
        help=(
            "also decode every image; checksums only prove that the bytes are those that were"
            " written"
        ),
    )
    made.add_argument(
        "--master",
        metavar="FILE",
        help="then write this master file, which shows the images of all files",
    )
    made.add_argument("--overwrite", action="store_true", help="replace the master if it exists")


def run(options: argparse.Namespace) -> int:
    """Check the files; 1 if something is lost or damaged.

    Raises:
        FileError: a file cannot be recovered, or the master not be made.
    """
    paths = [Path(name) for name in options.files]
    if options.repair:
        paths = [repair(path)[0] for path in paths]
    reports = [verify(path, deep=options.deep) for path in paths]
    if options.master:
        make_master(paths, options.master, overwrite=options.overwrite)
        reports.append(verify(options.master, deep=options.deep))
    show(reports)
    return 0 if all(report.ok for report in reports) else 1


def show(reports: Sequence[FileReport]) -> None:
    """Print a table of files, their problems, and the verdict."""
    console = make_console()
    if not console.is_terminal:
        console = make_console(width=_WIDE)
    table = Table()
    for name in ("file", "state", "images", "ids", "checksums right", "filtered", "lost", "result"):
        right = name in ("images", "checksums right", "filtered", "lost")
        table.add_column(name, justify="right" if right else "left")
    for one in reports:
        table.add_row(
            str(one.path),
            one.state,
            str(one.n_images),
            str(one.ids),
            str(one.n_checked),
            str(len(one.filtered)),
            str(one.n_lost),
            "ok" if one.ok else "NOT OK",
        )
    console.print(table)
    for one in reports:
        lines = [*one.problems, *(f"{what}: {ids}" for what, ids in one.lost.items())]
        for line in lines:
            console.print(f"{one.path}: {line}", soft_wrap=True)
        notes = [*one.notes]
        if one.filtered:
            notes.append(f"filtered before the writer: {one.filtered}")
        for line in notes:
            console.print(f"{one.path}: note: {line}", soft_wrap=True)
    bad = sum(not one.ok for one in reports)
    verdict = f"{bad} of {len(reports)} files not ok" if bad else "All is there."
    sys.stdout.flush()
    console.print(verdict)


COMMAND = CliCommand(
    "pvapy-stream verify",
    "Check the ids, lengths, checksums and loss records of files that were written by"
    " pvapy-stream save, and of masters over them.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
)
main = COMMAND.main
