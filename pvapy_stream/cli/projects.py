"""``project`` (workflow): create, schedule, stop, list, show and resume projects."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from pvapy_stream.cli.command import CliCommand
from pvapy_stream.cli.console import make_console
from pvapy_stream.cli.project_run import add_cluster_option, run_project
from pvapy_stream.errors import PvapyStreamError, SettingsError, WorkflowError
from pvapy_stream.logs import configure_logging
from pvapy_stream.settings import LoggingSettings

_STOP_LIMIT = 120.0  # s; for a run to end in order
_WIDE = 160
_NAMES = ("name", "workflow", "location", "comment")


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's actions."""
    actions = made.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser(
        "create",
        help="create a project with the protocols of a workflow file",
        description="Create a project with the protocols of a workflow file.",
        epilog="NAME WORKFLOW LOCATION COMMENT in this order, or name=… workflow=… location=…"
        " comment=…\n"
        "Without a location it goes to PVAPY_STREAM_PROJECTS (~/pvapy_stream/projects).\n"
        "exit codes: 0 made; 1 the name is taken, or the file is missing or wrong",
    )
    create.add_argument(
        "words", nargs="+", metavar="NAME [WORKFLOW] [LOCATION] [COMMENT]", help="of the project"
    )
    schedule = actions.add_parser(
        "schedule",
        help="run the protocols of a project",
        description=(
            "Run the protocols of a project, each when its inputs are available, until all have"
            " ended."
        ),
        epilog="exit codes: 0 all finished; 1 one failed, or frames were lost; 2 no such project",
    )
    stop = actions.add_parser(
        "stop",
        help="end the run of a project in order",
        description="End the run of a project in order, wherever it was started on this machine.",
        epilog="exit codes: 0 it has ended; 1 it does not run, or does not end; 2 no such project",
    )
    actions.add_parser("list", help="list all projects and their states")
    show = actions.add_parser("show", help="show the protocols of a project and their states")
    resume = actions.add_parser("resume", help="run again what has not finished")
    for one in (schedule, stop, show, resume):
        one.add_argument("name", metavar="NAME", help="of the project, or its folder")
    schedule.add_argument(
        "--ignore", nargs="+", default=(), metavar="LABEL", help="protocols to skip"
    )
    add_cluster_option(schedule)


def run(options: argparse.Namespace) -> int:
    """Do what was asked.

    Raises:
        PvapyStreamError: there is no such project, or it cannot be run.
    """
    if options.action == "create":
        return _create(options.words)
    if options.action == "list":
        return show_list()
    if options.action == "show":
        return show_status(options.name)
    if options.action == "stop":
        return stop_scheduler(options.name)
    if options.action == "resume":
        return schedule(options.name)
    configure_logging(LoggingSettings.of())
    return schedule(options.name, options.ignore, options.cluster)


def _create(words: Sequence[str]) -> int:
    from pvapy_stream.workflow.model.workflow_file import read_workflow
    from pvapy_stream.workflow.run.project import Project

    try:
        given = named_words(words, _NAMES)
        if "name" not in given:
            raise SettingsError("a project needs a name")
        flow = read_workflow(given["workflow"]) if given.get("workflow") else None
        location = Path(given["location"]) if given.get("location") else None
        project = Project.create(given["name"], flow, location, given.get("comment", ""))
    except PvapyStreamError as error:
        # Always 1, as scripts expect.
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{project.folder}: {len(project.protocols())} protocols\n")
    project.close()
    return 0


def named_words(words: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Words by name: ``name=…``, or by position.

    Raises:
        SettingsError: there are too many, or a name comes twice.
    """
    found: dict[str, str] = {}
    places = iter(names)
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name in names:
            if name in found:
                raise SettingsError(f"{name} is given twice")
            found[name] = value
            continue
        place = next((p for p in places if p not in found), None)
        if place is None:
            raise SettingsError(f"unexpected word {word!r}; give {', '.join(names)}")
        found[place] = word
    return found


def schedule(name: str, ignore: Sequence[str] = (), cluster: str = "local") -> int:
    """Run a project's protocols that have not finished.

    Raises:
        PvapyStreamError: it does not exist, or another process runs it.
    """
    from pvapy_stream.workflow.run.project import Project

    project = Project.find(name)
    try:
        return run_project(project, cluster, ignore)
    finally:
        project.close()


def show_list() -> int:
    """Print all projects."""
    from pvapy_stream.workflow.run.project import list_projects

    table = _table("project", "created", "protocols", "state", "folder")
    for project in list_projects():
        rows = project.protocols()
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(project.meta().get("created", 0)))
        state = _state(project)
        table.add_row(project.name, created, str(len(rows)), state, str(project.folder))
    _print(table)
    return 0


def show_status(name: str) -> int:
    """Print a project's protocols; 1 when the process that ran it has died.

    Raises:
        SettingsError: there is no such project.
    """
    from pvapy_stream.workflow.run.project import Project

    project = Project.find(name)
    try:
        _print(status_table(project))
        sys.stdout.write(f"{project.folder}: {_state(project)}\n")
        return 1 if project.died else 0
    finally:
        project.close()


def status_table(project: Any) -> Table:
    """States of the protocols of a project."""
    live = {e["label"]: e for e in _live(project.folder).get("protocols", [])}
    table = _table("protocol", "class", "state", "what it did", "programs", "message")
    for row in project.protocols():
        entry = live.get(row.label, {})
        table.add_row(
            row.label, row.class_name, row.state.value, _numbers(entry), _programs(entry),
            row.error,
        )  # fmt: skip
    return table


def _state(project: Any) -> str:
    pid = project.scheduler_pid()
    if pid:
        return f"run by process {pid}"
    if project.died:
        again = f"pvapy-stream project resume {project.name}"
        return f"the process that ran it has ended; continue with: {again}"
    states = sorted({row.state.value for row in project.protocols()})
    return ", ".join(states)


def _live(folder: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode((folder / "status.json").read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}


def _numbers(entry: dict[str, Any]) -> str:
    if "steps" in entry:
        return ", ".join(f"{n} {state}" for state, n in entry["steps"].items())
    names = ("received", "processed", "filtered", "published", "missed")
    return ", ".join(f"{entry[name]} {name}" for name in names if entry.get(name))


def _programs(entry: dict[str, Any]) -> str:
    found: list[str] = []
    for one in entry.get("programs", ()):
        again = f" started again {one['restarts']} times" if one.get("restarts") else ""
        where = (
            f" on {one['host']}" if one.get("host", "localhost") not in ("", "localhost") else ""
        )
        if one.get("pid"):
            found.append(f"{one['name']}: process {one['pid']}{where}{again}")
        elif again:
            found.append(f"{one['name']}:{again}")
    return "\n".join(found)


def _table(*columns: str) -> Table:
    table = Table()
    for name in columns:
        table.add_column(name)
    return table


def _print(table: Table) -> None:
    console = make_console()
    if not console.is_terminal:
        console = make_console(width=_WIDE)
    console.print(table)


def stop_scheduler(name: str) -> int:
    """Request the process that runs a project to end in order, and wait for it.

    Raises:
        WorkflowError: it does not run, or does not end.
    """
    from pvapy_stream.workflow.run.project import Project

    project = Project.find(name)
    try:
        pid = project.scheduler_pid()
        if pid is None:
            raise WorkflowError(f"project {project.name} does not run; there is nothing to stop")
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_LIMIT
        while project.scheduler_pid() == pid:
            if time.monotonic() > deadline:
                raise WorkflowError(
                    f"process {pid} does not end within {_STOP_LIMIT:g} s; look at its log, then"
                    f" kill -9 {pid}"
                )
            time.sleep(0.1)
        sys.stdout.write(f"{project.name}: stopped\n")
        return 0
    finally:
        project.close()


COMMAND = CliCommand(
    "pvapy-stream project",
    "Create, run and stop projects.",
    run,
    add_arguments=add_arguments,
)
main = COMMAND.main
