"""What a scheduler starts: connected stages, a protocol of steps, a command beside them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from pvapy_stream.accounting.keeper import write_ledgers
from pvapy_stream.errors import PvapyStreamError, WorkflowError
from pvapy_stream.launch.entry import STOP
from pvapy_stream.launch.programs import Launcher, LocalPrograms, ProgramSpec
from pvapy_stream.launch.supervised_program import SupervisedProgram
from pvapy_stream.launch.supervisor import Death, RestartPolicy
from pvapy_stream.signals import Stop
from pvapy_stream.workflow.model.graph import Workflow
from pvapy_stream.workflow.model.node import Node
from pvapy_stream.workflow.model.plan import WiredStage
from pvapy_stream.workflow.model.streaming_stage import Site, Stage
from pvapy_stream.workflow.run.project import Project
from pvapy_stream.workflow.run.steps import ENDED, State, StepStore
from pvapy_stream.workflow.run.stream_run import StreamOutcome, StreamRun
from pvapy_stream.workflow.run.stream_set import StreamSet, StreamState, close_set

_log = logging.getLogger(__name__)


class StreamUnit:
    """Stages that are connected by streams; they start and end together."""

    def __init__(
        self,
        project: Project,
        flow: Workflow,
        nodes: list[Node],
        site: Site,
        launcher: Launcher,
        say: Callable[[str], None],
    ) -> None:
        self.labels = [node.label for node in nodes]
        self.nodes = nodes
        self.outcome: StreamOutcome | None = None
        self._project = project
        folders = {node.label: project.run_folder(node.label) for node in nodes}
        self.run = StreamRun(flow, nodes, site, folders, launcher, say)
        self._stop = Stop()
        self._error = ""
        self.problems: list[str] = []
        self._thread = threading.Thread(target=self._work, name="streams")

    def start(self) -> None:
        self._thread.start()

    def _work(self) -> None:
        try:
            self.outcome = self.run.run(self._stop)
        except Exception as error:
            if not isinstance(error, PvapyStreamError):
                _log.exception("stages failed")
            self._error = str(error) or type(error).__name__

    @property
    def deaths(self) -> list[Death]:
        """Programs that died."""
        return [
            death
            for stage in self.run.stages.values()
            for one in stage.members
            for death in one.deaths
        ]

    def stop(self) -> None:
        self._stop.set()

    def hurry(self) -> None:
        """End without draining."""
        self._stop.hurry.set()

    @property
    def ended(self) -> bool:
        return self._thread.ident is not None and not self._thread.is_alive()

    @property
    def at_work(self) -> bool:
        """Whether all stages are ready."""
        return self.run.phase != "starting"

    def finish(self) -> None:
        """Write how the stages ended."""
        self._thread.join()
        if self.outcome is None:
            self.problems.append(self._error)
        else:
            self.problems += [*self.outcome.problems, *self.outcome.audit.failures]
        for node in self.nodes:
            stage = self.run.stages[node.label]
            problems = [one.problem for one in stage.members if one.problem]
            failed = bool(self._error) or any(one.gave_up for one in stage.members)
            text = "; ".join(problems) or (self._error if failed else "")
            state = State.FAILED if failed else State.FINISHED
            self._project.set_state(node.label, state, text)

    def status(self) -> list[dict[str, Any]]:
        return self.run.status()

    def write_ledgers(self, path: Path) -> None:
        """Put the accounts of all stages into one file, for `pvapy-stream audit`."""
        if self.outcome is not None:
            write_ledgers(path, list(self.outcome.ledgers))


class StepUnit:
    """A protocol of steps, in a process of its own."""

    def __init__(
        self, project: Project, node: Node, launcher: Launcher, say: Callable[[str], None]
    ) -> None:
        self.labels = [node.label]
        self.node = node
        self._project = project
        self._folder = project.run_folder(node.label)
        # Here, where the project's folder is; a cluster runs its steps.
        argv = (str(project.folder), node.label, launcher.address)
        spec = ProgramSpec(self._folder.name, "protocol", argv=argv, has_ledger=False)
        # Steps are resumed by those who look at what they have left.
        self._supervised = SupervisedProgram(
            spec, self._folder, LocalPrograms(), RestartPolicy(0), say
        )
        self.problems: list[str] = []

    def start(self) -> None:
        if (self._folder / "run.sqlite").is_file():
            # What an earlier run wrote there says nothing of this one.
            store = StepStore(self._folder / "run.sqlite")
            store.put_value("state", State.LAUNCHED.value)
            store.close()
        self._supervised.start()

    def poll(self) -> None:
        self._supervised.poll()

    @property
    def deaths(self) -> list[Death]:
        """How its program died."""
        return self._supervised.deaths

    def stop(self) -> None:
        self._supervised.stop(STOP)

    def hurry(self) -> None:
        """End without finishing the steps that run."""
        self.kill()

    def kill(self) -> None:
        self._supervised.kill()
        self._supervised.poll()

    @property
    def ended(self) -> bool:
        return self._supervised.ended

    @property
    def at_work(self) -> bool:
        """Whether its steps run."""
        return run_values(self._folder).get("state", "launched") != State.LAUNCHED.value

    def finish(self) -> None:
        """Write how it ended; sets that a killed process left open are closed."""
        values = run_values(self._folder)
        state, error = State(values.get("state", "failed")), str(values.get("error", ""))
        if state not in ENDED:
            state, error = State.FAILED, self._supervised.problem or "its process died"
        elif self._supervised.problem and not error:
            state, error = State.FAILED, self._supervised.problem
        for name, kind in self.node.kind.outputs.items():
            if kind == "set":
                close_set(self._folder / f"{name}.sqlite")
        if state is not State.FINISHED:
            self.problems.append(f"{self.node.label}: {error}")
        self._project.set_state(self.node.label, state, error)

    def status(self) -> list[dict[str, Any]]:
        program = self._supervised.process
        return [
            {
                "label": self.node.label,
                "state": str(run_values(self._folder).get("state", "launched")),
                "programs": [{"name": self.node.label, "pid": program.pid if program else None}],
                "steps": step_counts(self._folder),
            }
        ]


class CommandUnit(StepUnit):
    """Another command, which goes on until all the rest has ended."""

    def __init__(
        self,
        project: Project,
        wired: WiredStage,
        launcher: Launcher,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(project, wired.node, launcher, say)
        (spec,) = wired.programs
        self._supervised = SupervisedProgram(
            spec, self._folder, launcher, wired.stage.restart_policy(), say
        )

    @property
    def at_work(self) -> bool:
        return True

    def finish(self) -> None:
        problem = self._supervised.problem
        if problem:
            self.problems.append(problem)
        failed = self._supervised.gave_up
        self._project.set_state(
            self.node.label, State.FAILED if failed else State.FINISHED, problem
        )

    def status(self) -> list[dict[str, Any]]:
        entry = super().status()[0]
        del entry["steps"]
        return [{**entry, "state": "ended" if self.ended else "running"}]


def run_values(folder: Path) -> dict[str, Any]:
    """State, error and outputs that a run has written so far."""
    if not (folder / "run.sqlite").is_file():
        return {}
    with closing(StepStore(folder / "run.sqlite")) as store:
        names = ("state", "error", "summary")
        return {name: store.value(name) for name in names if store.value(name) is not None}


def step_counts(folder: Path) -> dict[str, int]:
    """How many steps there are in each state."""
    if not (folder / "run.sqlite").is_file():
        return {}
    with closing(StepStore(folder / "run.sqlite")) as store:
        return store.count_states()


def resolve(project: Project, nodes: Mapping[str, Node], node: Node, pointer: str) -> Any:
    """What a pointer gives to a protocol of steps; None while it is not there.

    Raises:
        WorkflowError: it will never come.
    """
    label, _, output = pointer.partition(".")
    source = nodes[label]
    state = project.state_of(label)
    folder = project.run_folder(label)
    if source.kind.outputs[output] == "set":
        path = folder / f"{output}.sqlite"
        if path.is_file():
            reader = StreamSet.read(path)
            try:
                closed = reader.state is StreamState.CLOSED
                if closed or (node.kind.streaming and len(reader)):
                    return {"set": str(path)}
            finally:
                reader.release()
    elif state is State.FINISHED:
        return _file_of(project, source, output)
    if state in ENDED:
        raise WorkflowError(f"its input {pointer} never came: {label} is {state.value}")
    return None


def _file_of(project: Project, source: Node, output: str) -> str:
    if issubclass(source.kind, Stage):
        return str((project.folder / str(source.params[source.kind.file_param])).absolute())
    with closing(StepStore(project.run_folder(source.label) / "run.sqlite")) as store:
        found = store.value(f"output {output}")
    if found is None:
        raise WorkflowError(f"{source.label} has finished and told no file {output!r}")
    return found
