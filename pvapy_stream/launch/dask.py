"""Stages as programs on the workers of a Dask cluster, and steps as its tasks."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.errors import WorkflowError
from pvapy_stream.launch import agent
from pvapy_stream.launch.programs import ProgramSpec
from pvapy_stream.launch.supervisor import AbsentError
from pvapy_stream.plugins import require

_TIMEOUT = 20.0  # s; for the scheduler, and for the first worker
_ANSWER_TIMEOUT = 8.0  # s
_LOOK_PERIOD = 0.2  # s
_CALLS = 64  # at a time
_TRIES = 3  # workers on which a program is tried to be started
_LOST = -9  # a program whose worker is gone has gone with it
_ADDRESSES = "EPICS_PVA_ADDR_LIST"

_log = logging.getLogger(__name__)


def connect(address: str) -> Any:
    """A client of the cluster.

    Raises:
        MissingExtraError: distributed is not installed.
        WorkflowError: the scheduler does not answer.
    """
    distributed = require("distributed", "dask")
    try:
        return distributed.Client(address, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise WorkflowError(
            f"the Dask scheduler at {address} does not answer ({error}); is it running?"
        ) from error


@dataclass(eq=False)
class DaskProgram:
    """A program on a worker, which is its host; `seen` is the last that was received of it."""

    launcher: DaskPrograms
    key: str
    host: str
    pid: int
    log: Path
    seen: dict[str, Any] = field(
        default_factory=lambda: {"code": None, "state": "", "ledgers": None, "log": ""}
    )

    def poll(self) -> int | None:
        if self.seen["code"] is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.log.write_text(self.seen["log"])
        return self.seen["code"]

    def send_word(self, word: str) -> None:
        self.launcher.call(self.host, agent.send_word, self.key, word)

    def kill(self) -> None:
        self.launcher.call(self.host, agent.kill, self.key)
        deadline = time.monotonic() + _ANSWER_TIMEOUT
        while self.seen["code"] is None and time.monotonic() < deadline:
            time.sleep(_LOOK_PERIOD)

    def state(self) -> str:
        return self.seen["state"]

    def ledgers(self) -> list[Ledger] | None:
        found = self.seen["ledgers"]
        return None if found is None else [Ledger.from_dict(dict(one)) for one in found]

    def log_tail(self) -> str:
        return self.seen["log"]


class DaskPrograms:
    """Starts programs on the workers of a cluster, on the one with the fewest each time.

    Args:
        client: of the cluster.
        address: of its scheduler.
        close: gives back what was made for it.
    """

    def __init__(self, client: Any, address: str, close: Any = None) -> None:
        self._client = client
        self.address = address
        self._close = close
        self._programs: dict[str, DaskProgram] = {}
        # Programs of other runs, whose names may be the same, have other keys.
        self._id = uuid.uuid4().hex[:12]
        self._numbers = itertools.count(1)
        # A call to a worker that has just died takes as long as Dask tries to connect to it.
        self._calls = ThreadPoolExecutor(_CALLS, thread_name_prefix="dask-call")
        self._asked: dict[str, Future[Any]] = {}
        self._stop = threading.Event()
        self._looker = threading.Thread(target=self._look_on, name="dask-look", daemon=True)
        self._looker.start()

    def workers(self) -> dict[str, Any]:
        """Workers that are there now, by address."""
        return dict(self._client.scheduler_info(n_workers=-1)["workers"])

    def start(self, spec: ProgramSpec, folder: Path, incarnation: int) -> DaskProgram:
        """Start a program.

        Raises:
            AbsentError: there is no worker for it now.
            WorkflowError: it cannot be started there.
        """
        failed: set[str] = set()
        for _ in range(_TRIES):
            # Whoever supervises has other programs to look after: a restart does not wait here.
            known = self._wait_for_workers(0.0 if incarnation > 1 else _TIMEOUT)
            workers = {a: i for a, i in known.items() if a not in failed}
            worker = self._choose(spec, workers)
            key = f"{self._id}-{next(self._numbers)}-{spec.name}"
            env = {**_addresses(workers), **spec.env}
            what = key, replace(spec, env=env), incarnation
            end = partial(self._end_late, worker, key)
            pid = self.call(worker, agent.start, *what, late=end)
            if pid is not None:
                log = folder / "logs" / f"{spec.name}.{incarnation}.log"
                program = self._programs[key] = DaskProgram(self, key, worker, pid, log)
                return program
            failed.add(worker)
        raise WorkflowError(f"{spec.name} cannot be started on {', '.join(failed)}")

    def _end_late(self, worker: str, key: str, late: Future[Any]) -> None:
        """End a program that has started after its worker was given up: another worker has it."""
        if late.cancelled() or late.result() is None:
            return
        with suppress(RuntimeError):  # we are leaving the cluster
            self._calls.submit(self._call, worker, agent.kill, key)

    def _wait_for_workers(self, timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while not (found := self.workers()):
            if time.monotonic() >= deadline:
                raise AbsentError(f"the cluster at {self.address} has no worker; start some")
            time.sleep(0.2)
        return found

    def _choose(self, spec: ProgramSpec, workers: dict[str, Any]) -> str:
        if spec.place:
            for address, info in workers.items():
                if spec.place in (address, str(info.get("name")), info.get("host")):
                    return address
            known = ", ".join(str(info.get("name")) for info in workers.values())
            raise AbsentError(
                f"{spec.name} must run on {spec.place!r}, but there is no such worker; known:"
                f" {known}"
            )
        if not workers:
            raise WorkflowError(f"{spec.name} cannot be started on any worker; see their logs")
        load = dict.fromkeys(workers, 0)
        for program in self._programs.values():
            if program.seen["code"] is None and program.host in load:
                load[program.host] += 1
        return min(load, key=lambda address: load[address])

    def call(
        self,
        worker: str,
        function: Any,
        *args: Any,
        late: Callable[[Future[Any]], None] | None = None,
    ) -> Any:
        """Call a function on a worker; None when it does not answer in time.

        Args:
            worker: its address.
            function: what is called there.
            args: its arguments.
            late: gets the answer that comes after that time.
        """
        asked = self._calls.submit(self._call, worker, function, *args)
        try:
            return asked.result(_ANSWER_TIMEOUT)
        except FutureTimeout:
            _log.warning("worker %s does not answer within %g s", worker, _ANSWER_TIMEOUT)
            if late is not None:
                asked.add_done_callback(late)
            return None

    def _call(self, worker: str, function: Any, *args: Any) -> Any:
        try:
            return self._client.run(function, *args, workers=[worker])[worker]
        except Exception as error:
            # Dask reports a lost worker in many ways; `_look` finds out whether it is there.
            _log.debug("worker %s: %s: %s", worker, function.__name__, error)
            return None

    def _look_on(self) -> None:
        while not self._stop.wait(_LOOK_PERIOD):
            try:
                self._look()
            except Exception as error:
                _log.debug("the state of the cluster cannot be read: %s", error)

    def _look(self) -> None:
        """Ask all workers how their programs do; one that is gone is not waited for."""
        by_worker: dict[str, list[DaskProgram]] = {}
        for program in list(self._programs.values()):
            if program.seen["code"] is None:
                by_worker.setdefault(program.host, []).append(program)
        # After the programs: the worker of one that was started meanwhile may not be in it.
        there = self.workers()
        for worker, programs in by_worker.items():
            if worker not in there:
                for program in programs:
                    program.seen = {**program.seen, "code": _LOST}
                continue
            asked = self._asked.get(worker)
            if asked is None or asked.done():
                self._asked[worker] = self._calls.submit(self._look_at, worker, programs)

    def _look_at(self, worker: str, programs: list[DaskProgram]) -> None:
        found = self._call(worker, agent.look, [program.key for program in programs]) or {}
        for program in programs:
            if program.key in found and program.seen["code"] is None:
                program.seen = found[program.key]

    def close(self) -> None:
        """Leave the cluster; one that was made for us ends."""
        self._stop.set()
        self._looker.join(_ANSWER_TIMEOUT)
        self._calls.shutdown(wait=False, cancel_futures=True)
        self._client.close()
        if self._close is not None:
            self._close()


def _addresses(workers: dict[str, Any]) -> dict[str, str]:
    """How stages on several hosts find each other: by all hosts' addresses."""
    hosts = sorted({str(info.get("host")) for info in workers.values()})
    if len(hosts) < 2:
        return {}
    known = os.environ.get(_ADDRESSES, "").split()
    return {_ADDRESSES: " ".join(dict.fromkeys([*known, *hosts]))}


class DaskSteps:
    """Runs steps as tasks of a cluster.

    Args:
        address: of its scheduler.
        function: runs one step there; gets `what`, then the step's number, name and arguments.
        what: names the protocol.
        n: steps at a time.
    """

    def __init__(self, address: str, function: Any, what: Any, n: int) -> None:
        self.n = n
        self._function = function
        self._what = what
        self._client = connect(address)

    def submit(self, step: Any) -> Any:
        return self._client.submit(
            self._function, self._what, step.id, step.name, step.args, pure=False
        )

    def renew(self) -> None:
        """Nothing to do: the cluster replaces its workers."""

    def close(self) -> None:
        self._client.close()
