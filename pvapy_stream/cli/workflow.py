"""``pvapy-stream workflow check|run|graph|status|stop|export|schema``."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pvapy_stream.cli.console import make_console
from pvapy_stream.cli.options import plain_parser
from pvapy_stream.cli.projects import show_status, stop_scheduler
from pvapy_stream.cli.runner import exit_code
from pvapy_stream.errors import SettingsError
from pvapy_stream.logs import configure_logging
from pvapy_stream.settings import LoggingSettings
from pvapy_stream.signals import run_until_signal

_EPILOG = """\
examples:
  pvapy-stream workflow check examples/split_collect_save.yaml
  pvapy-stream workflow run examples/split_collect_save.yaml --folder my_run
  pvapy-stream workflow status my_run
  pvapy-stream workflow graph examples/split_collect_save.yaml > graph.svg
exit codes: 0 all well, every frame has a fate; 1 a protocol failed or frames were lost;
            2 wrong options, or a wrong file
"""


def parser() -> argparse.ArgumentParser:
    """The command's parser."""
    made = plain_parser(
        "pvapy-stream workflow",
        "Run a whole chain from one file: stages and protocols of steps, started in any order,"
        " supervised, ended in order and audited.",
        _EPILOG,
    )
    actions = made.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="tell what is wrong with a file; nothing is started")
    run = actions.add_parser("run", help="run a file to the end")
    graph = actions.add_parser("graph", help="draw a file as SVG, on standard output")
    export = actions.add_parser("export", help="write a file as workflow.json or as YAML")
    for one in (check, run, graph, export):
        one.add_argument("file", help="YAML, or workflow.json")
    export.add_argument("--to", choices=("json", "yaml"), default="json", help="[default json]")
    run.add_argument("--folder", metavar="DIR", help="new folder of the run [default NAME-TIME]")
    add_cluster_option(run)
    status = actions.add_parser("status", help="how a run does")
    stop = actions.add_parser("stop", help="end a run in order")
    for one in (status, stop):
        one.add_argument("folder", metavar="DIR", help="folder of the run, or name of a project")
    actions.add_parser("schema", help="print the JSON schema of files, for editors")
    return made


def add_cluster_option(made: argparse.ArgumentParser) -> None:
    """Where stages and steps run."""
    made.add_argument(
        "--cluster",
        default="local",
        metavar="WHERE",
        help="local, tcp://HOST:PORT of a Dask scheduler, or a YAML file that describes a"
        " dask-jobqueue cluster [default local]",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parser().parse_args(argv)
    return exit_code(lambda: _ACTIONS[options.action](options))


def check(options: argparse.Namespace) -> int:
    """Tell all problems of a file."""
    from pvapy_stream.workflow.model.workflow_file import read_workflow

    flow = read_workflow(options.file)
    problems = flow.problems()
    for problem in problems:
        sys.stderr.write(f"error: {options.file}: {problem}\n")
    if not problems:
        sys.stdout.write(f"{options.file}: {len(flow.nodes)} protocols, no problem\n")
    return SettingsError.exit_code if problems else 0


def run(options: argparse.Namespace) -> int:
    """Run a file in a folder of its own."""
    from pvapy_stream.workflow.model.workflow_file import read_workflow
    from pvapy_stream.workflow.run.project import Project

    configure_logging(LoggingSettings.of())
    flow = read_workflow(options.file)
    folder = Path(options.folder or f"{flow.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    project = Project.create_in(folder, flow)
    return run_project(project, options.cluster)


def run_project(project: object, cluster: str = "local", ignore: Sequence[str] = ()) -> int:
    """Run a project in this process until its end, or a signal."""
    from pvapy_stream.workflow.run.clusters import make_launcher
    from pvapy_stream.workflow.run.project import Project
    from pvapy_stream.workflow.run.scheduler import Outcome, Scheduler

    assert isinstance(project, Project)  # noqa: S101 - imported late
    console = make_console()
    start = time.monotonic()

    def say(line: str) -> None:
        console.print(
            f"{time.monotonic() - start:7.1f} s  {line}",
            soft_wrap=True,
        )

    def body(stop: threading.Event) -> Outcome:
        return Scheduler(project, ignore, make_launcher(cluster), say).run(stop)

    say(f"project {project.folder}")
    outcome = run_until_signal(body)
    for audit in outcome.audits:
        for line in (*audit.notes, *audit.drops, audit.verdict):
            say(line)
    for line in outcome.restarts:
        say(line)
    for problem in outcome.problems:
        sys.stderr.write(f"error: {problem}\n")
    say(f"ledgers, logs and audit.json are in {project.folder}")
    return 0 if outcome.ok else 1


def graph(options: argparse.Namespace) -> int:
    """Draw a file."""
    from pvapy_stream.workflow.model.drawing import draw
    from pvapy_stream.workflow.model.workflow_file import read_workflow

    flow = read_workflow(options.file)
    flow.check()
    sys.stdout.write(draw(flow))
    return 0


def export(options: argparse.Namespace) -> int:
    """Write a file in the other form."""
    from pvapy_stream.workflow.model.workflow_file import read_workflow, to_json, to_yaml

    flow = read_workflow(options.file)
    flow.check()
    sys.stdout.write(to_json(flow) if options.to == "json" else to_yaml(flow))
    return 0


def status(options: argparse.Namespace) -> int:
    """Show how a run does."""
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
    "run": run,
    "graph": graph,
    "export": export,
    "status": status,
    "stop": stop,
    "schema": schema,
}


if __name__ == "__main__":
    raise SystemExit(main())
