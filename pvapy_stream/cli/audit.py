"""``audit`` (check): check whether every frame of a run has a fate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import msgspec
from rich.table import Table

from pvapy_stream.accounting.audit_result import AuditResult, audit
from pvapy_stream.accounting.comparison import StageAccount
from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.cli.command import CliCommand
from pvapy_stream.cli.console import make_console
from pvapy_stream.files.summary import decided_by_files

# Do not wrap a table that is not shown on a terminal.
_WIDE = 250

_EPILOG = """\
examples:
  pvapy-stream audit sim.json mirror.json consumers.json
  pvapy-stream audit --strict --json *.json
exit codes: 0 every id has a fate; 1 an id has none, or a ledger cannot be read; 2 wrong options
"""

_COUNTS = (
    "received", "processed", "filtered", "skipped", "duplicate", "missed", "unknown", "rejected",
    "failed", "left", "published",
)  # fmt: skip


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    made.add_argument("ledgers", nargs="+", metavar="LEDGER", help="file written with --ledger")
    made.add_argument(
        "--strict", action="store_true", help="exit code 1 also if an id was not processed"
    )
    made.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace) -> int:
    """Audit the ledgers of the files and print the outcome.

    Raises:
        LedgerError: a file is missing, or is not a ledger.
    """
    ledgers, notes = decided_by_files(
        [one for path in options.ledgers for one in read_ledgers(path)]
    )
    result = audit(ledgers, options.strict, notes)
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(result.to_dict())).decode() + "\n")
    else:
        show(result)
    return 0 if result.ok else 1


def show(result: AuditResult) -> None:
    """Print tables of stages and channels, and the verdict."""
    console = make_console()
    if not console.is_terminal:
        console = make_console(width=_WIDE)
    console.print(_stage_table(result.stages))
    if result.channels:
        console.print(_channel_table(result))
    drops = () if result.strict else result.drops
    for line in (*result.notes, *drops, result.verdict):
        console.print(line, soft_wrap=True)


def _stage_table(stages: Sequence[StageAccount]) -> Table:
    table = Table()
    for name in ("stage", "id", "channel in", "channel out"):
        table.add_column(name, justify="right" if name == "id" else "left")
    for name in _COUNTS:
        table.add_column(name, justify="right")
    for stage in stages:
        one = stage.ledger
        table.add_row(
            one.stage,
            str(one.stage_id),
            one.input_channel,
            one.output_channel,
            *(str(stage.count(name)) for name in _COUNTS),
        )
    return table


def _channel_table(result: AuditResult) -> Table:
    table = Table()
    table.add_column("channel")
    table.add_column("published", justify="right")
    table.add_column("received by")
    table.add_column("lost")
    for channel in result.channels:
        published = str(len(channel.published))
        if not channel.subscribers:
            table.add_row(channel.channel, published, "no stage in these ledgers", "")
        for one in channel.subscribers:
            lost = [str(one.lost)] if one.lost else []
            lost += [f"{ids} by {member}" for member, ids in one.lost_by.items()]
            lost += [f"{one.unknown} unknown"] if one.unknown else []
            table.add_row(channel.channel, published, one.name, "; ".join(lost) or "none")
    return table


COMMAND = CliCommand(
    "pvapy-stream audit",
    "Compare the ledgers of a run and report whether every frame has a fate.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
)
main = COMMAND.main
