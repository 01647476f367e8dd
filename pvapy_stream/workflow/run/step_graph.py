"""Which steps of a run can run: what each waits for, and what an earlier run has finished."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from pvapy_stream.errors import WorkflowError
from pvapy_stream.workflow.run.steps import State, Step, StepStore, id_of


class StepGraph:
    """Steps and what they wait for; says which can run. Any thread may insert and release."""

    def __init__(self, store: StepStore) -> None:
        self._store = store
        self._lock = threading.RLock()
        self.steps: dict[int, Step] = {}
        self._open_needs: dict[int, int] = {}
        self._needed_by: dict[int, list[int]] = {}
        self._ready: dict[int, None] = {}
        self._waiting: set[int] = set()
        # Steps of an earlier run that the new one may insert again, by name and arguments.
        self._earlier: dict[tuple[str, bytes], list[Step]] = {}
        # Of those, the ones that were inserted while it ran.
        self._earlier_dynamic: set[int] = set()
        # What an earlier run finished, and this one did not begin anew.
        self._kept: set[int] = set()
        self._next_id = 1
        self.last: Step | None = None

    def resume(self, stored: Iterable[Step]) -> None:
        """Remember the steps of an earlier run.

        Those inserted while it ran are taken over as they are, once the others are inserted.
        """
        self._store.clear_steps()
        for step in stored:
            self._earlier.setdefault((step.name, step.args), []).append(step)
            if step.dynamic:
                self._earlier_dynamic.add(step.id)
            self._next_id = max(self._next_id, step.id + 1)

    def insert(
        self,
        name: str,
        args: Sequence[object],
        prerequisites: Iterable[Step | int] | None,
        *,
        wait: bool = False,
        dynamic: bool = False,
    ) -> Step:
        """Insert a step, or find the one an earlier run inserted with this name and arguments.

        Args:
            name: method of the protocol, or ``module:function``.
            args: plain values.
            prerequisites: None for the step inserted before, [] for none.
            wait: it does not run until it is released.
            dynamic: the protocol runs already.

        Raises:
            WorkflowError: the arguments are no plain values.
        """
        try:
            encoded = msgspec.json.encode(list(args))
        except (TypeError, OverflowError) as error:
            raise WorkflowError(
                f"step {name}: its arguments cannot be kept ({error}); pass numbers, text, lists,"
                " dicts or paths"
            ) from error
        with self._lock:
            if prerequisites is None:
                needs = (self.last.id,) if self.last else ()
            else:
                needs = tuple(map(id_of, prerequisites))
            earlier = self._earlier.get((name, encoded))
            if earlier:
                step = self._again(earlier.pop(0), needs, wait)
            else:
                step = Step(self._next_id, name, encoded, needs, dynamic=dynamic, waits=wait)
                self._next_id += 1
            if step.id not in self.steps:
                self._add(step)
            self.last = step
            return step

    def _again(self, step: Step, needs: tuple[int, ...], wait: bool) -> Step:
        """A step of an earlier run: finished only if its results are there and its needs kept."""
        if step.id in self.steps:
            return step
        kept = all(map(self._finished, needs))
        # What it has to wait for since the earlier run is taken over later.
        added = self._earlier_dynamic.difference(needs).intersection(step.prerequisites)
        step.prerequisites, step.waits = (*needs, *sorted(added)), wait
        there = all(Path(path).exists() for path in step.results)
        if step.state is State.FINISHED and kept and there:
            self._kept.add(step.id)
        else:
            step.state, step.error, step.results = State.NEW, "", []
        return step

    def adopt_dynamic(self) -> None:
        """Take over what an earlier run inserted while it ran, and forget what does not fit."""
        with self._lock:
            left = sorted((s for same in self._earlier.values() for s in same), key=lambda s: s.id)
            for step in left:
                if step.dynamic:
                    self._add(self._again(step, step.prerequisites, step.waits))
                else:
                    self._earlier[(step.name, step.args)].remove(step)
            for number in sorted(self._kept):
                if not all(map(self._finished, self.steps[number].prerequisites)):
                    self._begin_anew(self.steps[number])

    def _add(self, step: Step) -> None:
        step.on_release, step.on_need = self._release, self._need
        self.steps[step.id] = step
        if step.state is State.FINISHED:
            self._notify(step.id)
        else:
            self._hold(step)
        self._store.put(step)

    def _hold(self, step: Step) -> None:
        """Let a step wait for its release and for its prerequisites."""
        step.state = State.WAITING if step.waits else State.NEW
        self._open_needs[step.id] = 0
        self._wait_for(step, step.prerequisites)
        if step.waits:
            self._waiting.add(step.id)
        elif not self._open_needs[step.id]:
            self._ready[step.id] = None

    def _wait_for(self, step: Step, needs: Iterable[int]) -> None:
        for need in set(needs):
            if not self._finished(need):
                self._needed_by.setdefault(need, []).append(step.id)
                self._open_needs[step.id] += 1

    def _need(self, step: Step, needs: Sequence[int]) -> None:
        """A step gets further prerequisites."""
        with self._lock:
            further = tuple(sorted(set(needs).difference(step.prerequisites, (step.id,))))
            if not further:
                return
            if step.state in (State.NEW, State.WAITING):
                self._wait_for(step, further)
                if self._open_needs[step.id]:
                    self._ready.pop(step.id, None)
                step.prerequisites += further
            elif step.id in self._kept:
                step.prerequisites += further
                self._begin_anew(step)
            else:
                raise WorkflowError(
                    f"{step.words} is {step.state.value}, and cannot wait for further steps; insert"
                    " it with wait=True, and release it when it has all its prerequisites"
                )
            self._store.put(step)

    def _begin_anew(self, step: Step) -> None:
        """Run what an earlier run finished once more, and what needs it."""
        self._kept.discard(step.id)
        step.error, step.results = "", []
        self._hold(step)
        self._store.put(step)
        for other in list(self.steps.values()):
            if step.id in other.prerequisites:
                if other.id in self._kept:
                    self._begin_anew(other)
                elif other.state in (State.NEW, State.WAITING):
                    self._wait_for(other, [step.id])
                    self._ready.pop(other.id, None)

    def _release(self, step: Step) -> None:
        with self._lock:
            if step.state is State.WAITING:
                step.state = State.NEW
                step.waits = False
                self._waiting.discard(step.id)
                if not self._open_needs[step.id]:
                    self._ready[step.id] = None
                self._store.put(step)

    def _notify(self, finished: int) -> None:
        for number in self._needed_by.pop(finished, ()):
            self._open_needs[number] -= 1
            if not self._open_needs[number] and self.steps[number].state is State.NEW:
                self._ready[number] = None

    def next(self) -> Step | None:
        """A step that can run; it is running now."""
        with self._lock:
            if not self._ready:
                return None
            number = next(iter(self._ready))
            del self._ready[number]
            step = self.steps[number]
            step.state, step.started = State.RUNNING, time.time()
            self._store.put(step)
            return step

    def finish(self, step: Step, results: list[str]) -> None:
        """A step has done its work."""
        with self._lock:
            step.state, step.results, step.ended = State.FINISHED, results, time.time()
            self._open_needs.pop(step.id, None)
            self._store.put(step)
            self._notify(step.id)

    def fail(self, step: Step, error: str) -> None:
        """A step has failed."""
        with self._lock:
            step.state, step.error, step.ended = State.FAILED, error, time.time()
            self._store.put(step)

    @property
    def waiting(self) -> bool:
        """Whether a step waits to be released."""
        return bool(self._waiting)

    @property
    def ready(self) -> bool:
        """Whether a step can run."""
        return bool(self._ready)

    def unsatisfiable(self) -> list[tuple[Step, str]]:
        """Steps that can never run, when nothing runs and nothing waits; with the reason."""
        found: list[tuple[Step, str]] = []
        for step in self.steps.values():
            if step.state is State.NEW and step.id not in self._ready:
                needs = [n for n in step.prerequisites if not self._finished(n)]
                found.append((step, f"{step.words} can never run: {self._why(needs)}"))
        return found

    def _finished(self, number: int) -> bool:
        return number in self.steps and self.steps[number].state is State.FINISHED

    def _why(self, needs: list[int]) -> str:
        absent = [str(n) for n in needs if n not in self.steps]
        if absent:
            return f"it needs step {', '.join(absent)}, which does not exist"
        return "it needs " + ", ".join(
            f"{self.steps[n].words}, which is {self.steps[n].state.value}" for n in needs
        )
