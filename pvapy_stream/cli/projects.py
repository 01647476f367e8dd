"""Projects from the command line: create, schedule, stop, list, show, resume."""

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

from pvapy_stream.cli.console import make_console
from pvapy_stream.cli.options import plain_parser
from pvapy_stream.cli.runner import exit_code
from pvapy_stream.errors import WorkflowError

_STOP_LIMIT = 120.0  # s; for a run to end in order
_WIDE = 160


def parser() -> argparse.ArgumentParser:
    """The parser of ``pvapy-stream project``."""
    made = plain_parser("pvapy-stream project", "Look after projects.")
    actions = made.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="all projects, and how they do")
    show = actions.add_parser("show", help="the protocols of a project, and how they do")
    resume = actions.add_parser("resume", help="run again what has not finished")
    for one in (show, resume):
        one.add_argument("name", help="of the project, or its folder")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``pvapy-stream project``; returns its exit code."""
    options = parser().parse_args(argv)
    if options.action == "list":
        return exit_code(show_list)
    if options.action == "show":
        return exit_code(lambda: show_status(options.name))
    return exit_code(lambda: schedule(options.name))


def schedule(name: str, ignore: Sequence[str] = (), cluster: str = "local") -> int:
    """Run a project's protocols that have not finished.

    Raises:
        PvapyStreamError: it does not exist, or another process runs it.
    """
    from pvapy_stream.cli.workflow import run_project
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
    """How the protocols of a project do."""
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
        return f"the process that ran it is gone; go on with: {again}"
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
    """Ask the process that runs a project to end in order, and wait for it.

    Raises:
        WorkflowError: nobody runs it, or it does not end.
    """
    from pvapy_stream.workflow.run.project import Project

    project = Project.find(name)
    try:
        pid = project.scheduler_pid()
        if pid is None:
            raise WorkflowError(f"nobody runs project {project.name}; there is nothing to stop")
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
