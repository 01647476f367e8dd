"""Runs the steps of a protocol: in threads, in processes of their own, or elsewhere."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol, cast

from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.launch.dask import DaskSteps
from pvapy_stream.workflow.model.protocol_classes import find_class, reference
from pvapy_stream.workflow.run.step_graph import StepGraph
from pvapy_stream.workflow.run.steps import State, Step, StepStore

_COMMIT_PERIOD = 0.05  # s; when steps are quick, several are written at once
_TICK = 0.1  # s; how soon a released step or a stop is noticed

_log = logging.getLogger(__name__)


class StepOwner(Protocol):
    """What is needed of a protocol to run its steps; `n_processes` is 0 for threads."""

    folder: Path
    threads: int
    cluster: str
    check_interval: float

    @property
    def n_processes(self) -> int: ...
    def plain_params(self) -> dict[str, object]: ...
    def insert_steps(self, graph: StepGraph, store: StepStore) -> None: ...
    def call(self, number: int, name: str, args: bytes) -> list[str]: ...
    def flush(self) -> None: ...
    def steps_check(self) -> None: ...
    def more_to_come(self) -> bool: ...


class StepCopies(Protocol):
    """A class of protocols whose steps run in other processes."""

    def copy_for_steps(self, params: Mapping[str, object], folder: str) -> StepOwner: ...


class StepPool(Protocol):
    """Where steps run; `n` of them at the same time."""

    n: int

    def submit(self, step: Step) -> Future[list[str]]: ...
    def renew(self) -> None: ...
    def close(self) -> None: ...


class StepThreads:
    """Runs steps in threads of this process."""

    def __init__(self, protocol: StepOwner, n: int) -> None:
        self.n = n
        self._protocol = protocol
        self._pool = ThreadPoolExecutor(n, thread_name_prefix="step")

    def submit(self, step: Step) -> Future[list[str]]:
        return self._pool.submit(self._protocol.call, step.id, step.name, step.args)

    def renew(self) -> None:
        """Nothing to do: threads do not die."""

    def close(self) -> None:
        self._pool.shutdown()


class StepProcesses:
    """Runs steps in spawned processes, each with a copy of the protocol."""

    def __init__(self, protocol: StepOwner, n: int) -> None:
        self.n = n
        self._what = described(protocol)
        self._pool = self._make_pool()

    def _make_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.n, multiprocessing.get_context("spawn"))

    def submit(self, step: Step) -> Future[list[str]]:
        try:
            return self._pool.submit(run_step, self._what, step.id, step.name, step.args)
        except BrokenProcessPool as error:
            failed: Future[list[str]] = Future()
            failed.set_exception(error)
            return failed

    def renew(self) -> None:
        """New processes, after one has died and taken the pool with it."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._make_pool()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


_copies: dict[str, StepOwner] = {}


def run_step(
    what: tuple[str, dict[str, object], str], number: int, name: str, args: bytes
) -> list[str]:
    """Run a step in this process, for a protocol that runs in another."""
    class_name, params, folder = what
    key = f"{class_name} {params} {folder}"
    if key not in _copies:
        _copies.clear()
        kind = cast(StepCopies, find_class(class_name))
        _copies[key] = kind.copy_for_steps(params, folder)
    return _copies[key].call(number, name, args)


def described(protocol: StepOwner) -> tuple[str, dict[str, Any], str]:
    """What `run_step` needs to make a protocol again."""
    return reference(type(protocol)), protocol.plain_params(), str(protocol.folder)


def execute(
    protocol: StepOwner, graph: StepGraph, store: StepStore, stop: threading.Event
) -> tuple[State, str]:
    """Run a protocol's steps to their end.

    Returns:
        finished, failed or aborted; why it is not finished.
    """
    try:
        protocol.insert_steps(graph, store)
        store.put_value("state", State.RUNNING.value)
        store.commit()
    except Exception as error:
        if not isinstance(error, PvapyStreamError):
            _log.exception("steps could not be inserted")
        return State.FAILED, f"steps could not be inserted: {_words(error)}"
    workers = protocol.n_processes
    pool: StepPool
    if not workers:
        pool = StepThreads(protocol, max(1, protocol.threads))
    elif protocol.cluster:
        pool = DaskSteps(protocol.cluster, run_step, described(protocol), workers)
    else:
        pool = StepProcesses(protocol, workers)
    try:
        return StepLoop(protocol, graph, store, pool, stop).run()
    finally:
        pool.close()


class StepLoop:
    """Starts steps, takes their ends, and checks for new ones."""

    def __init__(
        self,
        protocol: StepOwner,
        graph: StepGraph,
        store: StepStore,
        pool: StepPool,
        stop: threading.Event,
    ) -> None:
        self._protocol = protocol
        self._graph = graph
        self._store = store
        self._pool = pool
        self._stop = stop
        self._ended: queue.SimpleQueue[tuple[Step, Future[list[str]]]] = queue.SimpleQueue()
        self._n_running = 0
        self._problem = ""
        self._died: set[int] = set()
        self._again: list[Step] = []
        self._next_check = time.monotonic() + protocol.check_interval
        self._next_commit = 0.0

    def run(self) -> tuple[State, str]:
        """Run until nothing is left to do."""
        while True:
            self._start_steps()
            if self._n_running:
                self._wait_for_end(min(_TICK, max(0.0, self._next_check - time.monotonic())))
            elif self._problem:
                break
            elif self._stop.is_set():
                return self._stopped()
            elif not self._graph.ready and not self._idle():
                break
            if time.monotonic() >= self._next_check and not self._closing:
                self._check()
        self._commit()
        return (State.FAILED, self._problem) if self._problem else (State.FINISHED, "")

    @property
    def _closing(self) -> bool:
        return bool(self._problem) or self._stop.is_set()

    def _start_steps(self) -> None:
        if self._again:
            # One at a time, so that a second death shows whose it was.
            if not self._n_running and not self._closing:
                self._pool.renew()
                self._submit(self._again.pop())
            return
        while self._n_running < self._pool.n and not self._closing:
            step = self._graph.next()
            if step is None:
                return
            self._submit(step)

    def _submit(self, step: Step) -> None:
        future = self._pool.submit(step)
        self._n_running += 1
        future.add_done_callback(lambda done, step=step: self._ended.put((step, done)))

    def _wait_for_end(self, timeout: float) -> None:
        try:
            self._take_end(*self._ended.get_nowait())
            if time.monotonic() < self._next_commit:
                return
        except queue.Empty:
            # Nothing to do for the moment: the time to write.
            self._commit()
            try:
                self._take_end(*self._ended.get(timeout=timeout))
            except queue.Empty:
                return
        self._next_commit = time.monotonic() + _COMMIT_PERIOD
        self._commit()

    def _take_end(self, step: Step, future: Future[list[str]]) -> None:
        self._n_running -= 1
        try:
            self._graph.finish(step, future.result())
        except BrokenProcessPool:
            self._process_died(step)
        except Exception as error:
            if not isinstance(error, PvapyStreamError):
                _log.error("%s failed", step.words, exc_info=error)
            self._fail(step, _words(error))

    def _process_died(self, step: Step) -> None:
        """Steps whose pool died with one of their processes: once more, in new processes."""
        if step.id in self._died:
            self._pool.renew()
            self._fail(step, "its process died twice")
            return
        self._died.add(step.id)
        _log.error("%s: a process of the pool died; the step is run again", step.words)
        self._again.append(step)

    def _fail(self, step: Step, error: str) -> None:
        self._graph.fail(step, error)
        self._problem = self._problem or f"{step.words} failed: {error}"

    def _commit(self) -> None:
        # Items before the steps that appended them: a step that counts as finished has its items.
        self._protocol.flush()
        self._store.commit()

    def _check(self) -> None:
        self._next_check = time.monotonic() + self._protocol.check_interval
        try:
            self._protocol.steps_check()
        except Exception as error:
            if not isinstance(error, PvapyStreamError):
                _log.exception("steps check failed")
            self._problem = f"steps check failed: {_words(error)}"
        self._commit()

    def _idle(self) -> bool:
        """No step runs and none can: wait, or look once more; False when this is the end."""
        if not self._more():
            self._check()
            if not (self._problem or self._graph.ready or self._more()):
                for step, reason in self._graph.unsatisfiable():
                    self._graph.fail(step, reason)
                    self._problem = self._problem or reason
                return False
            return True
        self._commit()
        while not self._graph.ready and not self._stop.is_set():
            left = self._next_check - time.monotonic()
            if left <= 0:
                break
            self._stop.wait(min(_TICK, left))
        return True

    def _more(self) -> bool:
        return self._graph.waiting or self._protocol.more_to_come()

    def _stopped(self) -> tuple[State, str]:
        """A stop is a clean end where nothing was left undone."""
        if not self._left():
            # Those that close the run; what they wait for has ended.
            for step in list(self._graph.steps.values()):
                step.release()
            while not self._problem and (step := self._graph.next()) is not None:
                self._submit(step)
                self._take_end(*self._ended.get())
        self._commit()
        if self._problem:
            return State.FAILED, self._problem
        if left := self._left():
            return State.ABORTED, f"stopped with {left} steps left; resume continues with them"
        return State.FINISHED, ""

    def _left(self) -> int:
        """Steps that were not run, and do not wait to be released."""
        return sum(step.state is State.NEW for step in self._graph.steps.values())


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, PvapyStreamError) else f"{type(error).__name__}: {error}"
