"""A protocol of steps in a process of its own; a scheduler starts it."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from pvapy_stream.cli.exit_codes import exit_code
from pvapy_stream.logs import configure_logging
from pvapy_stream.settings import LoggingSettings
from pvapy_stream.signals import run_until_signal
from pvapy_stream.workflow.run.project import Project
from pvapy_stream.workflow.run.step_protocol import Protocol
from pvapy_stream.workflow.run.steps import State
from pvapy_stream.workflow.run.units import resolve


def main(argv: Sequence[str]) -> int:
    """Run the protocol of a project: its folder, the label, and the address of a cluster."""
    configure_logging(LoggingSettings.of(log_level="info"))
    folder, label, cluster = argv
    return exit_code(lambda: run_until_signal(lambda stop: run(Path(folder), label, cluster, stop)))


def run(folder: Path, label: str, cluster: str, stop: threading.Event) -> int:
    """Run it to the end; 0 when it finished.

    Raises:
        PvapyStreamError: it cannot be run.
    """
    project = Project(folder)
    nodes = project.workflow().nodes
    node = nodes[label]
    changes = {}
    for name, _, pointer in node.pointers():
        found = resolve(project, nodes, node, pointer)
        if isinstance(node.params[name], (list, tuple)):
            changes.setdefault(name, []).append(found)
        else:
            changes[name] = found
    protocol = node.make(**changes)
    assert isinstance(protocol, Protocol)  # noqa: S101 - the scheduler starts no other here
    protocol.cluster = cluster
    state = protocol.run(project.run_folder(label), stop)
    for line in protocol.summary() if state is State.FINISHED else [protocol.error]:
        logging.getLogger(__name__).info("%s", line)
    if state is not State.FINISHED:
        sys.stderr.write(f"{protocol.error}\n")
    project.close()
    return 0 if state is State.FINISHED else 1
