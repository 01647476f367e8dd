"""``workflow`` (workflow): run, check or draw a whole chain from one file."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import msgspec

from pvapy_stream.cli.command import CliCommand
from pvapy_stream.cli.project_run import add_cluster_option, run_project
from pvapy_stream.cli.projects import show_status, stop_scheduler
from pvapy_stream.errors import SettingsError
from pvapy_stream.logs import configure_logging
from pvapy_stream.settings import LoggingSettings

_EPILOG = """\
examples:
  pvapy-stream workflow check examples/split_collect_save.yaml
  pvapy-stream workflow run examples/split_collect_save.yaml --folder my_run
  pvapy-stream workflow status my_run
  pvapy-stream workflow graph examples/split_collect_save.yaml > graph.svg
exit codes: 0 all well, every frame has a fate; 1 a protocol failed or frames were lost;
            2 wrong options, or a wrong file
"""


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    actions = made.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="report errors in a file; nothing is started")
    run = actions.add_parser("run", help="run a file to the end")
    graph = actions.add_parser("graph", help="draw a file as SVG, on standard output")
    export = actions.add_parser("export", help="write a file as workflow.json or as YAML")
    for one in (check, run, graph, export):
        one.add_argument("file", help="YAML, or workflow.json")
    export.add_argument(
        "--to",
        choices=("json", "yaml"),
        default="json",
        help="format of the output [default json]",
    )
    run.add_argument("--folder", metavar="DIR", help="new folder of the run [default NAME-TIME]")
    add_cluster_option(run)
    status = actions.add_parser("status", help="show the state of a run")
    stop = actions.add_parser("stop", help="end a run in order")
    for one in (status, stop):
        one.add_argument("folder", metavar="DIR", help="folder of the run, or name of a project")
    actions.add_parser("schema", help="print the JSON schema of files, for editors")


def check(options: argparse.Namespace) -> int:
    """Report all problems of a file."""
    from pvapy_stream.workflow.model.absent import absent
    from pvapy_stream.workflow.model.streaming_stage import Site
    from pvapy_stream.workflow.model.workflow_file import read_workflow

    flow = read_workflow(options.file)
    plan = flow.plan(Site("", sources=flow.sources))
    problems = [*plan.problems, *absent(plan)]
    for problem in problems:
        sys.stderr.write(f"error: {options.file}: {problem}\n")
    if not problems:
        sys.stdout.write(f"{options.file}: {len(flow.nodes)} protocols, no problem\n")
    return SettingsError.exit_code if problems else 0


def run_file(options: argparse.Namespace) -> int:
    """Run a file in a new folder."""
    from pvapy_stream.workflow.model.workflow_file import read_workflow
    from pvapy_stream.workflow.run.project import Project

    configure_logging(LoggingSettings.of())
    flow = read_workflow(options.file)
    folder = Path(options.folder or f"{flow.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    project = Project.create_in(folder, flow)
    return run_project(project, options.cluster)


def graph(options: argparse.Namespace) -> int:
    """Draw a file."""
    from pvapy_stream.workflow.model.drawing import draw
    from pvapy_stream.workflow.model.workflow_file import read_workflow

    flow = read_workflow(options.file)
    flow.check()
    sys.stdout.write(draw(flow))
    return 0


def export(options: argparse.Namespace) -> int:
    """Write a file in the other format."""
    from pvapy_stream.workflow.model.workflow_file import read_workflow, to_json, to_yaml

    flow = read_workflow(options.file)
    flow.check()
    sys.stdout.write(to_json(flow) if options.to == "json" else to_yaml(flow))
    return 0


def status(options: argparse.Namespace) -> int:
    """Show the state of a run."""
    return show_status(options.folder)


def stop(options: argparse.Namespace) -> int:
    """End a run in order."""
    return stop_scheduler(options.folder)


def schema(_: argparse.Namespace) -> int:
    """Print the JSON schema."""
    from pvapy_stream.workflow.model.workflow_file import json_schema

    plain = msgspec.json.encode(json_schema(), enc_hook=str)
    sys.stdout.write(msgspec.json.format(plain, indent=1).decode() + "\n")
    return 0


_ACTIONS = {
    "check": check,
    "run": run_file,
    "graph": graph,
    "export": export,
    "status": status,
    "stop": stop,
    "schema": schema,
}


def run(options: argparse.Namespace) -> int:
    """Do what was asked.

    Raises:
        PvapyStreamError: the file is wrong, or it cannot be run.
    """
    return _ACTIONS[options.action](options)


COMMAND = CliCommand(
    "pvapy-stream workflow",
    "Run a whole chain from one file: stages and protocols of steps are started, supervised,"
    " ended in order and audited.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
)
main = COMMAND.main
