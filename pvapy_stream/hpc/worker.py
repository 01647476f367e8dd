"""One worker process of `UserMpWorkerPool`, and what is on its way to it."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any

from pvapy_stream.hpc.launch.supervisor import Restarts, Supervised, exit_words
from pvapy_stream.hpc.worker_memory import Packed, Slot
from pvapy_stream.hpc.worker_process import ProcessorSource, run_worker
from pvapy_stream.logs import logging_settings
from pvapy_stream.signals import held_back


@dataclass(slots=True, eq=False)
class Job:
    """One object on its way.

    Attributes:
        object_id: its id.
        item: what the worker gets.
        context: kept for the result; it does not go to the worker.
        result: what the worker returned.
        error: kind and message of what went wrong, ("", "") if nothing did.
    """

    sequence: int
    object_id: int
    item: Any
    context: Any
    result: Any = None
    error: tuple[str, str] = ("", "")
    slot: Slot | None = None
    size: int = 0
    sent: bool = False
    over: bool = False


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How a pool works.

    Attributes:
        workers: number of processes.
        depth: objects a worker has at most: the one in work, and those that wait for it.
        keep_order: whether results come out in the order of the objects.
        max_restarts: how many dead workers are replaced at most.
        object_timeout: after this a worker is taken to hang, and killed, s.
        start_timeout: how long workers may take to start, s.
    """

    workers: int = 2
    depth: int = 2
    keep_order: bool = True
    max_restarts: int = 5
    object_timeout: float = 60.0
    start_timeout: float = 60.0


class UserMpWorker:
    """One worker process, as the parent has it."""

    def __init__(self, worker_id: int, depth: int) -> None:
        self.worker_id = worker_id
        self.jobs: deque[Job] = deque()
        self.free = [Slot(number) for number in range(depth)]
        self.ready = False
        self.stopped = False
        # When it began with the first of its jobs; until it is ready, when it was started.
        self.busy_since = time.monotonic()
        self.stats: dict[str, Any] = {}
        self.death = ""
        self._send_lock = threading.Lock()

    def start(self, source: ProcessorSource, config: dict[str, Any], changes: list[Any]) -> None:
        """Start the process."""
        # EPICS has threads as soon as it is used: a forked child would inherit their locks.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=run_worker,
            args=(theirs, source, config, changes, self.worker_id, logging_settings()),
            name=f"worker-{self.worker_id}",
            daemon=True,
        )
        with held_back():
            self.process.start()
        # Our end would wait for one that hangs, whoever forgot to stop the pool.
        Finalize(self, self.process.kill, exitpriority=10)
        # Only the child may hold its end, or its death would not close the pipe.
        theirs.close()

    @property
    def pid(self) -> int | None:
        return self.process.pid

    def poll(self) -> int | None:
        """Exit code of the process; None while it runs."""
        return None if self.process.is_alive() else self.process.exitcode

    def kill(self) -> None:
        """End the process by force."""
        self.process.kill()

    def send(self, *message: Any) -> bool:
        """Tell the worker something; False when it is gone."""
        try:
            with self._send_lock:
                self.connection.send(message)
        except OSError:
            return False
        return True

    def send_job(self, job: Job, slot: Slot, packed: Packed, spare: int) -> None:
        """Hand an object over. That a worker is gone shows in its end, not here.

        Raises:
            ProcessorError: there is no shared memory.
        """
        try:
            with self._send_lock:
                pid = self.process.pid or 0
                memory = slot.make_room(packed.size + spare, self.connection, pid)
                packed.write(memory)
                job.size, job.sent = packed.size, True
                message = ("object", job.sequence, slot.number, packed.layout)
                self.connection.send(message)
        except OSError:
            return


class WorkerPlace(Supervised[UserMpWorker]):
    """A worker of a pool, over all its processes.

    Args:
        number: of the worker, from 1; its processes share it.
        make: starts a process.
        restarts: of all workers of the pool.
        receive: takes what a process has sent.
        bury: takes back what a process that ended still had.
    """

    def __init__(
        self,
        number: int,
        make: Callable[[int], UserMpWorker],
        restarts: Restarts,
        receive: Callable[[UserMpWorker], None],
        bury: Callable[[UserMpWorker], None],
    ) -> None:
        say = logging.getLogger(__name__).error
        super().__init__(f"worker {number}", lambda _: make(number), restarts, say)
        self._receive = receive
        self._take_back = bury

    def begun(self) -> bool:
        return self.process is not None and self.process.ready

    def judge(self, process: UserMpWorker, code: int) -> str | None:
        # What it sent before its end tells whether that was in order.
        self._receive(process)
        return "" if process.stopped or self.stopping else None

    def cause(self, process: UserMpWorker, code: int) -> str:
        return process.death or exit_words(code)

    def bury(self, process: UserMpWorker, died: bool) -> None:
        self._take_back(process)


@dataclass(slots=True)
class PoolCounts:
    """What a pool counted."""

    submitted: int = 0
    finished: int = 0
    failed: int = 0
    died: int = 0
    alive: int = 0
