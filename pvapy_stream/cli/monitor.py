"""``monitor`` (watch): watch disks, machines, stages, images, tables; send alarms."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pvapy_stream.cli.command import CliCommand
from pvapy_stream.cli.options import add_settings, settings_of
from pvapy_stream.logs import configure_logging
from pvapy_stream.monitor.kinds import kinds
from pvapy_stream.settings import LoggingSettings, MonitorSettings
from pvapy_stream.signals import run_until_signal

_EPILOG = """\
examples:
  pvapy-stream monitor disk --path /data --min-free 500 --notify print --email-to me@home.org
  pvapy-stream monitor streams -sc 'det:status:*' --ids 1,2,3,4 --alarm 'silence > 60 s'
  pvapy-stream monitor run monitors.toml
A rule is QUANTITY[@SUBJECT] <|> VALUE [clear VALUE] [for TIME] [every TIME]; see docs/monitoring.md
exit codes: 0 all well; 1 a monitor met errors; 2 wrong options
"""


class _RunSettings(LoggingSettings):
    """What `run` takes beside its file."""


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the kinds of monitors, and their options."""
    parsers = made.add_subparsers(dest="kind", metavar="KIND", required=True)
    for name, kind in kinds().items():
        one = parsers.add_parser(
            name,
            help=kind.help,
            description=f"Watch {kind.help}.",
            epilog=_quantities(kind.settings),
        )
        add_settings(one, kind.settings)
    several = parsers.add_parser(
        "run",
        help="the monitors that a TOML or JSON file lists",
        description="Run the monitors that a TOML or JSON file lists.",
    )
    several.add_argument("file", help="file with [[monitor]] tables")
    add_settings(several, _RunSettings)


def _quantities(model: type[MonitorSettings]) -> str:
    if not model.QUANTITIES:
        return "quantities of rules: the columns"
    named = (f"{name} [{unit}]" if unit else name for name, unit in model.QUANTITIES.items())
    return f"quantities of rules: {', '.join(named)}"


def run(options: argparse.Namespace) -> int:
    """Run the monitors that were asked for.

    Raises:
        PvapyStreamError: an option or the file is wrong, or a monitor cannot be made.
    """
    given = vars(options)
    if options.kind == "run":
        return run_file(options.file, settings_of(_RunSettings, given))
    settings = settings_of(kinds()[options.kind].settings, given)
    return run_all([settings], settings)


def run_file(file: str, logging: LoggingSettings) -> int:
    """Run the monitors of a file.

    Raises:
        PvapyStreamError: the file is wrong, or a monitor cannot be made.
    """
    from pvapy_stream.monitor.run import read_monitors

    return run_all(read_monitors(file), logging)


def run_all(settings: Sequence[MonitorSettings], logging: LoggingSettings) -> int:
    """Run monitors until they end, or until a signal comes.

    Raises:
        PvapyStreamError: a monitor cannot be made.
    """
    from pvapy_stream.monitor.run import make_monitor, run_monitors

    configure_logging(logging)
    monitors = [make_monitor(one) for one in settings]
    problems = run_until_signal(lambda stop: run_monitors(monitors, stop))
    for problem in problems:
        sys.stderr.write(f"error: {problem}\n")
    return 1 if problems else 0


COMMAND = CliCommand(
    "pvapy-stream monitor",
    "Watch stages, disks or machines: store samples, and send alarms when a bad state begins or"
    " ends.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
)
main = COMMAND.main
