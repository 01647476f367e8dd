"""Running a project from a command line."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pvapy_stream.cli.console import make_console
from pvapy_stream.signals import run_until_signal

if TYPE_CHECKING:
    from pvapy_stream.workflow.run.project import Project
    from pvapy_stream.workflow.run.scheduler import Outcome


def add_cluster_option(made: argparse.ArgumentParser) -> None:
    """The launcher of stages and steps."""
    made.add_argument(
        "--cluster",
        default="local",
        metavar="WHERE",
        help="local, tcp://HOST:PORT of a Dask scheduler, or a YAML file that describes a"
        " dask-jobqueue cluster [default local]",
    )


def run_project(project: Project, cluster: str = "local", ignore: Sequence[str] = ()) -> int:
    """Run a project in this process until its end, or a signal."""
    from pvapy_stream.workflow.run.clusters import make_launcher
    from pvapy_stream.workflow.run.scheduler import Scheduler

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
