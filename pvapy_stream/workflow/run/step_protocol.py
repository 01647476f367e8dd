"""Protocols of steps: parameters, steps, inputs and outputs."""

from __future__ import annotations

import importlib
import itertools
import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pvapy_stream.errors import SettingsError, WorkflowError
from pvapy_stream.workflow.model.base_protocol import BaseProtocol
from pvapy_stream.workflow.model.parameters import (
    EXPERT,
    Enum,
    Float,
    Form,
    Int,
    Pointer,
    String,
    Text,
)
from pvapy_stream.workflow.model.validators import GE, GT
from pvapy_stream.workflow.run.execution import execute
from pvapy_stream.workflow.run.step_graph import StepGraph
from pvapy_stream.workflow.run.steps import State, Step, StepStore
from pvapy_stream.workflow.run.stream_set import Item, StreamSet, StreamState, key_maker

RESUME, RESTART = "resume", "restart"

_OWN_PARAMS = ("run_name", "run_mode", "comment", "threads", "workers", "check_interval")


class Protocol(BaseProtocol):
    """A protocol of steps; derive from it and override the hooks.

    Parameters become attributes. ``MyProtocol(n_items=3).run("folder")`` runs it alone; a workflow
    runs it with others.

    Attributes:
        outputs: outputs for other protocols, as name: kind (``set`` or ``file``).
        threads: number of steps that run at the same time in threads; 0: no parameter, one thread.
        workers: number of steps that run at the same time in processes; 0: no parameter, no
            processes.
        check_interval: s between calls of `steps_check`.
        cluster: address of a Dask scheduler whose workers run the steps instead of processes.
        folder: folder of the run, with ``extra`` and ``tmp``.
        log: for the steps' messages.
    """

    threads: int = 0
    workers: int = 0
    check_interval: float = 5.0
    cluster: str = ""

    def __init__(self, **params: object) -> None:
        super().__init__(**params)
        self.folder = Path()
        self.log = logging.getLogger(f"pvapy_stream.workflow.{type(self).__name__}")
        self.state = State.SAVED
        self.error = ""
        self._graph: StepGraph | None = None
        self._store: StepStore | None = None
        self._running = False
        self._sets: dict[str, StreamSet] = {}
        self._taken_from: dict[str, StreamSet] = {}
        self._is_copy = False
        self._lock = threading.Lock()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Parameters are attributes; only the form knows which."""

    # -- hooks -----------------------------------------------------------------------------------

    def define_params(self, form: Form) -> None:
        """Add the parameters to the form."""

    def insert_all_steps(self) -> None:
        """Insert the steps that are known from the start."""

    def steps_check(self) -> None:
        """Called every `check_interval` while the protocol runs, and once more at its end."""

    def more_to_come(self) -> bool:
        """Whether the run continues without a step; default: until all inputs are taken."""
        return any(not self._exhausted(name) for name in self._taken_from)

    def finish(self) -> None:
        """Called when the run has ended, also after a failure."""

    def validate(self) -> list[str]:
        """Errors of the combination of parameters."""
        return []

    def summary(self) -> list[str]:
        """Results of the run, a sentence each."""
        return []

    # -- parameters ------------------------------------------------------------------------------

    @classmethod
    def form(cls) -> Form:
        """All parameters, including those of every protocol."""
        form = Form()
        cls().define_params(form)
        for name in form.params:
            if hasattr(cls, name) or name in _OWN_PARAMS:
                raise SettingsError(
                    f"{cls.__name__}: parameter {name!r} has the name of an attribute of"
                    " protocols; choose another"
                )
        form.section("Run")
        form.add("run_name", String("", help="name of the run"))
        form.add(
            "run_mode",
            Enum(RESUME, choices=(RESUME, RESTART), help="restart: begin with an empty folder"),
        )
        form.add("comment", Text(""))
        form.section("Parallel")
        if cls.threads:
            form.add("threads", Int(cls.threads, validators=(GE(1),)))
        if cls.workers:
            form.add("workers", Int(cls.workers, validators=(GE(0),), help="processes"))
        form.add(
            "check_interval",
            Float(cls.check_interval, expert_level=EXPERT, validators=(GT(0),), help="s"),
        )
        return form

    def problems(self) -> list[str]:
        """Errors of the parameters, which begin with the label; sets the attributes."""
        form = self.form()
        unknown = form.check_names(self.given, type(self).__name__)
        values, wrong = form.evaluate(self.given)
        for name, value in values.items():
            setattr(self, name, value)
        return unknown + wrong or list(self.validate())

    # -- steps -----------------------------------------------------------------------------------

    def insert_step(
        self,
        function: Callable[..., object] | str,
        *args: object,
        prerequisites: Iterable[Step | int] | None = None,
        wait: bool = False,
    ) -> Step:
        """Insert a step.

        Args:
            function: method of the protocol, its name, or a function of a module. The paths it
                returns must exist.
            args: plain values: they are stored, and compared when a run is resumed.
            prerequisites: steps that must have finished; None: the one before; []: none.
            wait: the step does not run, and the run does not end, before `release` of the returned
                step.

        Raises:
            WorkflowError: the function has no name, or the arguments are not plain values.
        """
        if self._graph is None:
            raise WorkflowError("steps can be inserted only while the protocol runs")
        return self._graph.insert(
            self._name_of(function), args, prerequisites, wait=wait, dynamic=self._running
        )

    def _name_of(self, function: Callable[..., object] | str) -> str:
        name = function if isinstance(function, str) else getattr(function, "__name__", "")
        if callable(getattr(self, name, None)):
            return name
        qualified = getattr(function, "__qualname__", "<")
        if "<" in qualified:
            raise WorkflowError(
                f"{type(self).__name__} has no method {name or function!r}; a step is a method of"
                " the protocol or a function of a module"
            )
        return f"{getattr(function, '__module__', '')}:{qualified}"

    def call(self, number: int, name: str, args: bytes) -> list[str]:
        """Run a step here.

        Returns:
            Paths it returned.

        Raises:
            WorkflowError: a path it returned does not exist.
        """
        module, _, function_name = name.rpartition(":")
        owner = importlib.import_module(module) if module else self
        counter = itertools.count()
        token = key_maker.set(lambda: f"step {number}.{next(counter)}")
        try:
            returned = getattr(owner, function_name)(*msgspec.json.decode(args))
        finally:
            key_maker.reset(token)
        if self._is_copy:
            for one in self._sets.values():
                one.flush()
        paths = _paths(returned)
        for path in paths:
            if not Path(path).exists():
                raise WorkflowError(f"it returned {path}, which does not exist")
        return paths

    # -- inputs and outputs ----------------------------------------------------------------------

    def extra(self, *parts: str) -> Path:
        """A path in the folder of results."""
        return self.folder.joinpath("extra", *parts)

    def tmp(self, *parts: str) -> Path:
        """A path in the folder of temporary files."""
        return self.folder.joinpath("tmp", *parts)

    def output(self, name: str, **properties: Any) -> StreamSet:
        """An output set of this run: OPEN now, always CLOSED at the end of the run.

        Args:
            name: as in `outputs`.
            properties: properties of all items.

        Raises:
            WorkflowError: `outputs` does not name it.
        """
        with self._lock:
            if name not in self._sets:
                if self.outputs.get(name) != "set":
                    raise WorkflowError(
                        f"{type(self).__name__} has no output set {name!r}; add it to outputs"
                    )
                path = self.folder / f"{name}.sqlite"
                make = StreamSet.join if self._is_copy else StreamSet.create
                self._sets[name] = make(path)
        if properties:
            self._sets[name].set_properties(**properties)
        return self._sets[name]

    def output_file(self, name: str, path: Path | str) -> None:
        """Set the file that is an output of this run; others get it when the run has finished.

        Raises:
            WorkflowError: `outputs` does not name it.
        """
        if self.outputs.get(name) != "file" or self._store is None:
            raise WorkflowError(f"{type(self).__name__} has no output file {name!r} at this time")
        self._store.put_value(f"output {name}", str(path))

    def take(self, name: str, batch: int = 1) -> list[list[Item]]:
        """New items of an input set, in batches; each item is returned once over all runs.

        An incomplete batch waits for more items, and is returned when the set is CLOSED. Call it in
        `steps_check` and `insert_all_steps`: taken items are stored together with the steps
        inserted for them.
        """
        if self._store is None:
            raise WorkflowError("items can be taken only while the protocol runs")
        source: StreamSet = getattr(self, name)
        self._taken_from[name] = source
        # The state first: what comes between is taken the next time.
        closed = source.state is StreamState.CLOSED
        position = self._store.value(f"taken {name}", 0)
        batches: list[list[Item]] = []
        while True:
            items = source.page(position, batch)
            if not items or (len(items) < batch and not closed):
                break
            batches.append(items)
            position = items[-1]["id"]
        self._store.put_value(f"taken {name}", position)
        return batches

    def _exhausted(self, name: str) -> bool:
        source = self._taken_from[name]
        closed = source.state is StreamState.CLOSED
        assert self._store is not None  # noqa: S101 - `take` was called
        return closed and self._store.value(f"taken {name}", 0) >= len(source)

    # -- running ---------------------------------------------------------------------------------

    def run(self, folder: Path | str, stop: threading.Event | None = None) -> State:
        """Run in a folder to the end; an earlier run in it is continued.

        Args:
            folder: folder of this run only.
            stop: ends it in order when it is set.

        Returns:
            finished, failed (see `error`) or aborted.

        Raises:
            SettingsError: parameters are wrong; no step ran.
            WorkflowError: the folder or its database cannot be used.
        """
        problems = self.problems()
        if problems:
            raise SettingsError("; ".join(problems))
        self.folder = Path(folder)
        if getattr(self, "run_mode", RESUME) == RESTART:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._open_inputs()
        for part in ("extra", "tmp", "logs"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        for name, kind in self.outputs.items():
            if kind == "set" and (self.folder / f"{name}.sqlite").exists():
                self.output(name)
        with self._run_database() as (graph, store):
            try:
                self.state, self.error = execute(self, graph, store, stop or threading.Event())
            finally:
                self.finish()
                self._close_outputs()
            store.put_value("state", self.state.value)
            store.put_value("error", self.error)
        return self.state

    @contextmanager
    def _run_database(self) -> Iterator[tuple[StepGraph, StepStore]]:
        store = StepStore(self.folder / "run.sqlite")
        graph = StepGraph(store)
        self._store, self._graph, self._running = store, graph, False
        try:
            yield graph, store
        finally:
            self._store = self._graph = None
            store.close()

    def insert_steps(self, graph: StepGraph, store: StepStore) -> None:
        """Insert all steps, with what an earlier run left; afterwards the protocol runs."""
        graph.resume(store.load())
        self.insert_all_steps()
        graph.adopt_dynamic()
        self._running = True

    @property
    def n_processes(self) -> int:
        """Processes that run its steps; 0 for threads of this one."""
        return self.workers if "workers" in self.form().params else 0

    def flush(self) -> None:
        """Write what was appended to output sets."""
        for one in list(self._sets.values()):
            one.flush()

    def _close_outputs(self) -> None:
        for one in self._sets.values():
            one.close()
        self._sets.clear()

    def _open_inputs(self) -> None:
        for name, param in self.form().params.items():
            if isinstance(param, Pointer):
                setattr(self, name, _open_input(getattr(self, name)))

    def plain_params(self) -> dict[str, Any]:
        """Parameters that another process can be given."""
        return {name: _plain_input(value) for name, value in self.given.items()}

    @classmethod
    def copy_for_steps(cls, params: Mapping[str, object], folder: str) -> Protocol:
        """The protocol in another process, where some of its steps run."""
        made = cls(**params)
        problems = made.problems()
        if problems:
            raise SettingsError("; ".join(problems))
        made.folder = Path(folder)
        made._is_copy = True
        made._open_inputs()
        return made


def _open_input(value: object) -> Any:
    if isinstance(value, list):
        return [_open_input(one) for one in value]
    if isinstance(value, dict) and set(value) == {"set"}:
        return StreamSet.read(value["set"])
    return value


def _plain_input(value: object) -> Any:
    if isinstance(value, StreamSet):
        return {"set": str(value.path)}
    if isinstance(value, (list, tuple)):
        return [_plain_input(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _paths(returned: object) -> list[str]:
    if isinstance(returned, (str, Path)):
        return [str(returned)]
    if isinstance(returned, (list, tuple)):
        return [str(one) for one in returned if isinstance(one, (str, Path))]
    return []
