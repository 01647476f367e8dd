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
from pvapy_stream.launch.programs import Launcher, LocalPrograms, ProgramSpec, SupervisedProgram
from pvapy_stream.launch.supervisor import Death, RestartPolicy
from pvapy_stream.signals import Stop
from pvapy_stream.workflow.model.graph import Workflow
from pvapy_stream.workflow.model.node import Node
from pvapy_stream.workflow.model.plan import WiredStage
from pvapy_stream.workflow.model.streaming_stage import Site, StreamingStage
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
        return [death for stage in self.run.stages.values() for death in stage.deaths]

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
            failed = bool(self._error) or any(one.gave_up for one in stage.members)
            text = "; ".join(stage.problems) or (self._error if failed else "")
            state = State.FAILED if failed else State.FINISHED
            self._project.set_state(node.label, state, text)

    def status(self) -> list[dict[str, Any]]:
        return self.run.status()

    def write_ledgers(self, path: Path) -> None:
        """Put the accounts of all stages into one file, for `pvapy-stream audit`."""
        if self.outcome is not None:
            write_ledgers(path, list(self.outcome.ledgers))


class ProgramUnit(SupervisedProgram):
    """A program of its own."""

    def __init__(
        self,
        project: Project,
        node: Node,
        spec: ProgramSpec,
        launcher: Launcher,
        policy: RestartPolicy,
        say: Callable[[str], None],
    ) -> None:
        self.labels = [node.label]
        self.node = node
        self._project = project
        self._folder = project.run_folder(node.label)
        self.problems: list[str] = []
        super().__init__(spec, self._folder, launcher, policy, say)

    def hurry(self) -> None:
        """End at once."""
        self.kill()

    def kill(self) -> None:
        super().kill()
        self.poll()

    def _status(self, state: str) -> dict[str, object]:
        pid = self.process.pid if self.process else None
        label = self.node.label
        return {"label": label, "state": state, "programs": [{"name": label, "pid": pid}]}


class StepUnit(ProgramUnit):
    """A protocol of steps."""

    def __init__(
        self, project: Project, node: Node, launcher: Launcher, say: Callable[[str], None]
    ) -> None:
        # Here, where the project's folder is; a cluster runs its steps.
        argv = (str(project.folder), node.label, launcher.address)
        name = project.run_folder(node.label).name
        spec = ProgramSpec(name, "protocol_program", argv=argv, has_ledger=False)
        # Steps are resumed by those who look at what they have left.
        super().__init__(project, node, spec, LocalPrograms(), RestartPolicy(0), say)

    def start(self) -> None:
        if (self._folder / "run.sqlite").is_file():
            # What an earlier run wrote there says nothing of this one.
            with closing(StepStore(self._folder / "run.sqlite")) as store:
                store.put_value("state", State.LAUNCHED.value)
        super().start()

    @property
    def at_work(self) -> bool:
        """Whether its steps run."""
        return run_values(self._folder).get("state", "launched") != State.LAUNCHED.value

    def finish(self) -> None:
        """Write how it ended; sets that a killed process left open are closed."""
        values = run_values(self._folder)
        state, error = State(values.get("state", "failed")), str(values.get("error", ""))
        if state not in ENDED:
            state, error = State.FAILED, self.problem or "its process died"
        elif self.problem and not error:
            state, error = State.FAILED, self.problem
        for name, kind in self.node.kind.outputs.items():
            if kind == "set":
                close_set(self._folder / f"{name}.sqlite")
        if state is not State.FINISHED:
            self.problems.append(f"{self.node.label}: {error}")
        self._project.set_state(self.node.label, state, error)

    def status(self) -> list[dict[str, Any]]:
        state = str(run_values(self._folder).get("state", "launched"))
        return [{**self._status(state), "steps": step_counts(self._folder)}]


class CommandUnit(ProgramUnit):
    """Another command, which goes on until all the rest has ended."""

    at_work = True

    def __init__(
        self, project: Project, wired: WiredStage, launcher: Launcher, say: Callable[[str], None]
    ) -> None:
        (spec,) = wired.programs
        policy = wired.stage.restart_policy()
        super().__init__(project, wired.node, spec, launcher, policy, say)

    def finish(self) -> None:
        """Write how it ended."""
        if self.problem:
            self.problems.append(self.problem)
        state = State.FAILED if self.gave_up else State.FINISHED
        self._project.set_state(self.node.label, state, self.problem)

    def status(self) -> list[dict[str, Any]]:
        return [self._status("ended" if self.ended else "running")]


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
        raise WorkflowError(f"its input {pointer} never became available: {label} is {state.value}")
    return None


def _file_of(project: Project, source: Node, output: str) -> str:
    if issubclass(source.kind, StreamingStage):
        return str((project.folder / str(source.params[source.kind.file_param])).absolute())
    with closing(StepStore(project.run_folder(source.label) / "run.sqlite")) as store:
        found = store.value(f"output {output}")
    if found is None:
        raise WorkflowError(f"{source.label} has finished without a file {output!r}")
    return found
