"""Runs a project: starts each protocol when its inputs are available, and ends in order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pvapy_stream.accounting.audit_result import AuditResult
from pvapy_stream.errors import PvapyStreamError, SettingsError, WorkflowError
from pvapy_stream.launch.programs import Launcher, LocalPrograms
from pvapy_stream.launch.supervisor import restart_lines
from pvapy_stream.signals import hurry_of
from pvapy_stream.workflow.model.graph import Workflow
from pvapy_stream.workflow.model.node import Node
from pvapy_stream.workflow.model.streaming_stage import StreamingStage
from pvapy_stream.workflow.run.project import Project
from pvapy_stream.workflow.run.steps import ENDED, State
from pvapy_stream.workflow.run.units import CommandUnit, ProgramUnit, StepUnit, StreamUnit, resolve

_TICK = 0.1  # s
_STATUS_PERIOD = 0.5  # s
_REPORT_PERIOD = 5.0  # s
_STOP_LIMIT = 60.0  # s; from a stop to the end of the last protocol of steps

_log = logging.getLogger(__name__)

Say = Callable[[str], None]
Unit = StreamUnit | StepUnit | CommandUnit


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a project's run.

    Attributes:
        problems: reasons of failure, a sentence each.
        audits: the fate of all ids, for each group of connected stages.
        restarts: which programs died, how often and why, a line each.
    """

    problems: tuple[str, ...]
    audits: tuple[AuditResult, ...] = ()
    restarts: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems and all(audit.ok for audit in self.audits)


class Scheduler:
    """Runs the protocols of a project.

    Args:
        project: the project to run.
        ignore: labels of protocols to skip.
        launcher: starts the programs; default: on this machine.
        say: called with a line about each event.

    Raises:
        SettingsError: the workflow is wrong.
    """

    def __init__(
        self,
        project: Project,
        ignore: Iterable[str] = (),
        launcher: Launcher | None = None,
        say: Say = lambda _: None,
    ) -> None:
        self.project = project
        self._ignored = set(ignore)
        self.flow, self._site = project.next_run(self._ignored)
        self._plan = self.flow.plan(self._site)
        self._plan.check()
        for label in self._ignored:
            self.flow_node(label)
        self._launcher = launcher or LocalPrograms()
        self._show = say
        self._hurry = threading.Event()
        self._troubles: dict[str, str] = {}
        self._waiting: list[Unit] = []
        self._running: list[Unit] = []
        self._at_work: list[Unit] = []
        self._ended: list[Unit] = []

    def flow_node(self, label: str) -> Node:
        """A protocol by its label.

        Raises:
            SettingsError: there is none.
        """
        if label not in self.flow.nodes:
            raise SettingsError(
                f"there is no protocol {label!r}; labels are {', '.join(self.flow.nodes)}"
            )
        return self.flow.nodes[label]

    def run(self, stop: threading.Event) -> Outcome:
        """Run until all protocols have ended or `stop` is set; then end everything in order.

        Raises:
            WorkflowError: another process runs the project, or its database fails.
        """
        self._hurry = hurry_of(stop)
        with self.project.scheduling():
            self._waiting = self._units()
            if not self._waiting:
                self._say("everything has already finished; nothing to do")
            for unit in self._waiting:
                for label in unit.labels:
                    self.project.set_state(label, State.SCHEDULED)
            try:
                self._loop(stop)
            finally:
                self._end()
            return self._outcome()

    # -- what is to be run -----------------------------------------------------------------------

    def _units(self) -> list[Unit]:
        todo = {
            row.label
            for row in self.project.protocols()
            if row.state is not State.FINISHED and row.label not in self._ignored
        }
        for node in self._plan.nodes.values():
            # Whose inputs go on, goes on too: it takes what is new.
            if todo & set(node.sources()) and node.label not in self._ignored:
                todo.add(node.label)
        units: list[Unit] = []
        for nodes in self._groups():
            if not todo & {node.label for node in nodes}:
                continue
            first = nodes[0]
            if issubclass(first.kind, StreamingStage) and first.kind.is_beside:
                stage = self._plan.stages[first.label]
                units.append(CommandUnit(self.project, stage, self._launcher, self._say))
            elif first.is_stage:
                kept = [node for node in nodes if node.label not in self._ignored]
                units.append(
                    StreamUnit(self.project, self.flow, kept, self._site, self._launcher, self._say)
                )
            else:
                units.append(StepUnit(self.project, first, self._launcher, self._say))
        return units

    def _groups(self) -> list[list[Node]]:
        """Stages that are connected, together; each other protocol alone."""
        group_of: dict[str, list[Node]] = {}
        groups: list[list[Node]] = []
        for node in self._plan.nodes.values():
            if node.upstream:
                group = group_of[node.upstream]
                group.append(node)
            else:
                group = [node]
                groups.append(group)
            group_of[node.label] = group
        return groups

    # -- running ---------------------------------------------------------------------------------

    def _loop(self, stop: threading.Event) -> None:
        next_status = 0.0
        next_report = time.monotonic() + _REPORT_PERIOD
        while not stop.is_set():
            for unit in list(self._waiting):
                self._start_if_ready(unit)
            self._try("looking after protocols", self._look_after)
            if time.monotonic() >= next_status:
                next_status = time.monotonic() + _STATUS_PERIOD
                self._write_status("running")
            if time.monotonic() >= next_report:
                next_report = time.monotonic() + _REPORT_PERIOD
                self._report()
            main = [u for u in self._waiting + self._running if not isinstance(u, CommandUnit)]
            if not main and (self._ended or not self._running):
                return
            stop.wait(_TICK)
        self._say("asked to stop")

    def _start_if_ready(self, unit: Unit) -> None:
        if isinstance(unit, CommandUnit) and not self._streams_stand():
            return
        try:
            # Stages of one unit start together, whatever they wait for among themselves.
            within = self._ignored | set(unit.labels)
            if not all(self._ready(self.flow.nodes[label], within) for label in unit.labels):
                return
            for label in unit.labels:
                self.project.set_state(label, State.LAUNCHED)
            unit.start()
        except PvapyStreamError as error:
            self._waiting.remove(unit)
            for label in unit.labels:
                self.project.set_state(label, State.FAILED, str(error))
                self._say(f"{label}: {error}")
            unit.problems.append(f"{', '.join(unit.labels)}: {error}")
            self._ended.append(unit)
            return
        self._waiting.remove(unit)
        self._running.append(unit)
        self._say(f"{', '.join(unit.labels)}: started")

    def _streams_stand(self) -> bool:
        """Whether stages are ready: commands beside them would only slow down their start."""
        streams = [u for u in self._waiting + self._running if isinstance(u, StreamUnit)]
        running = [unit for unit in streams if unit in self._running]
        return all(unit.at_work for unit in running) and bool(running or not streams)

    def _ready(self, node: Node, not_waited_for: set[str]) -> bool:
        """Whether all that a protocol waits for has ended, and its inputs are there."""
        for label in node.after:
            if label not in not_waited_for and self.project.state_of(label) not in ENDED:
                return False
        if node.is_stage:
            return True
        pointers = [to for _, _, to in node.pointers()]
        begun = {label for unit in self._at_work + self._ended for label in unit.labels}
        planned = {label for unit in self._waiting + self._running for label in unit.labels}
        if (planned - begun) & set(node.sources()):
            # Its outputs may be those of an earlier run, which it is about to continue.
            return False
        for to in pointers:
            label = str(to).partition(".")[0]
            if label in self._ignored and self.project.state_of(label) is not State.FINISHED:
                raise WorkflowError(f"its input {to} will never be available: {label} is skipped")
        return all(resolve(self.project, self.flow.nodes, node, to) is not None for to in pointers)

    def _look_after(self) -> None:
        for unit in list(self._running):
            if isinstance(unit, ProgramUnit):
                unit.poll()
            if unit.ended:
                self._bury(unit)
            elif unit not in self._at_work and unit.at_work:
                self._at_work.append(unit)
                for label in unit.labels:
                    self.project.set_state(label, State.RUNNING)

    def _bury(self, unit: Unit) -> None:
        self._running.remove(unit)
        self._ended.append(unit)
        self._try("noting how protocols ended", unit.finish)
        if isinstance(unit, StreamUnit):
            # A report beside the stages shows it.
            self._try("writing the audit", self._write_audit)
        for label in unit.labels:
            state = self.project.state_of(label)
            self._say(f"{label}: {state.value}")

    def _end(self) -> None:
        """Stop what runs, and wait for it. Raises nothing, or processes would be left."""
        for unit in self._waiting:
            for label in unit.labels:
                self._set_state(label, State.ABORTED, "stopped before it started")
        # Commands beside the stages go on to their end: a report shows that too.
        self._stop_units([u for u in self._running if not isinstance(u, CommandUnit)])
        self._stop_units(list(self._running))
        for unit in list(self._running):
            if isinstance(unit, ProgramUnit):
                unit.kill()
        # Connected stages end within limits of their own.
        for unit in list(self._running):
            while not unit.ended:
                if self._hurry.is_set():
                    unit.hurry()
                time.sleep(_TICK)
            self._try("looking after protocols", self._bury, unit)
        self._write_status("ended")
        self._try("leaving the cluster", self._launcher.close)

    def _stop_units(self, units: list[Unit]) -> None:
        for unit in units:
            unit.stop()
        deadline = time.monotonic() + _STOP_LIMIT
        while any(unit in self._running for unit in units) and time.monotonic() < deadline:
            if self._hurry.is_set():
                return
            self._try("looking after protocols", self._look_after)
            time.sleep(_TICK)

    def _try(self, what: str, function: Callable[..., None], *args: Any) -> None:
        """Run an action whose failure must not end supervision; a failure is reported once."""
        try:
            function(*args)
        except Exception as error:
            if what not in self._troubles:
                trace = None if isinstance(error, (PvapyStreamError, OSError)) else error
                _log.error("%s failed: %s", what, error, exc_info=trace)
            self._troubles[what] = f"{what} failed: {error}"

    def _say(self, line: str) -> None:
        self._try("showing what happens", self._show, line)

    def _set_state(self, label: str, state: State, error: str = "") -> None:
        self._try("keeping states", self.project.set_state, label, state, error)

    def _write_audit(self) -> None:
        """Write what is known of the stages that have ended."""
        streams = self._streams_ended()
        for number, unit in enumerate(streams):
            suffix = f"-{number + 1}" if number else ""
            unit.write_ledgers(self.project.folder / f"ledgers{suffix}.json")
        plain = [
            {**one.audit.to_dict(), "restarts": restart_lines(list(one.deaths))}
            for one in (unit.outcome for unit in streams)
            if one is not None
        ]
        _replace(
            self.project.folder / "audit.json", msgspec.json.format(msgspec.json.encode(plain))
        )

    def _streams_ended(self) -> list[StreamUnit]:
        return [unit for unit in self._ended if isinstance(unit, StreamUnit) and unit.outcome]

    def _outcome(self) -> Outcome:
        self._try("writing the audit", self._write_audit)
        problems = [problem for unit in self._ended for problem in unit.problems]
        problems += self._troubles.values()
        deaths = [death for unit in self._ended for death in unit.deaths]
        audits = [unit.outcome.audit for unit in self._streams_ended() if unit.outcome]
        return Outcome(tuple(filter(None, problems)), tuple(audits), tuple(restart_lines(deaths)))

    # -- status ----------------------------------------------------------------------------------

    def _report(self) -> None:
        """One line about all that runs."""
        parts: list[str] = []
        for entry in [entry for unit in self._running for entry in unit.status()]:
            if "steps" in entry:
                steps = ", ".join(f"{n} {state}" for state, n in entry["steps"].items())
                parts.append(f"{entry['label']} {steps or 'no steps yet'}")
            elif "processed" in entry:
                parts.append(f"{entry['label']} {entry['processed'] or entry['published']}")
        if parts:
            self._say("; ".join(parts))

    def _write_status(self, state: str) -> None:
        self._try("writing status.json", self._put_status, state)

    def _put_status(self, state: str) -> None:
        """For `workflow status`; a reader never sees half a file."""
        entries: list[dict[str, object]] = []
        for unit in self._running + self._ended:
            entries += unit.status()
        plain = {"time": time.time(), "state": state, "protocols": entries}
        _replace(self.project.folder / "status.json", msgspec.json.encode(plain))


def _replace(path: Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)


def run_workflow(
    flow: Workflow,
    folder: Path | str,
    stop: threading.Event | None = None,
    launcher: Launcher | None = None,
    say: Say = lambda _: None,
) -> Outcome:
    """Run a workflow in a new folder, which becomes a project.

    Raises:
        SettingsError: the workflow is wrong, or the folder exists.
        WorkflowError: it cannot be run there.
    """
    project = Project.create_in(Path(folder), flow)
    try:
        return Scheduler(project, launcher=launcher, say=say).run(stop or threading.Event())
    finally:
        project.close()
