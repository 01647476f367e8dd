"""One worker process of `UserMpWorkerPool`, and what is on its way to it."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from pvapy_stream.base_settings import Settings
from pvapy_stream.hpc.worker_memory import PackedObject, Slot
from pvapy_stream.hpc.worker_process import ProcessorSource, run_worker
from pvapy_stream.launch.child import Child, SupervisedChild
from pvapy_stream.launch.entry import STOP
from pvapy_stream.launch.supervisor import Restarts, exit_words
from pvapy_stream.logs import logging_settings


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
    item: object
    context: object
    result: object = None
    error: tuple[str, str] = ("", "")
    slot: Slot | None = None
    size: int = 0
    sent: bool = False
    over: bool = False


class WorkerPoolOptions(Settings):
    """Options of `UserMpWorkerPool`; all other keys are the worker class's."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)

    worker_class: str = ""
    worker_file: str = ""
    n_workers: int = Field(2, ge=1, le=256)
    queue_depth: int = Field(2, ge=1, le=100)
    keep_order: bool = True
    max_restarts: int = Field(5, ge=0)
    object_timeout: float = Field(60.0, gt=0)
    start_timeout: float = Field(60.0, gt=0)
    drain_timeout: float = Field(10.0, ge=0)


class UserMpWorker(Child):
    """One worker process, as the parent has it.

    Args:
        worker_id: from 1.
        depth: objects it has at most.
        heard: called with each of its messages.
        source: the user's class, with `config` for its constructor and `changes` by commands.
    """

    def __init__(
        self,
        worker_id: int,
        depth: int,
        heard: Callable[[UserMpWorker, Any], None],
        source: ProcessorSource,
        config: dict[str, object],
        changes: list[object],
    ) -> None:
        self.worker_id = worker_id
        self.jobs: deque[Job] = deque()
        self.free = [Slot(number) for number in range(depth)]
        self.ready = False
        self.stopped = False
        # When it began with the first of its jobs; until it is ready, when it was started.
        self.busy_since = time.monotonic()
        self.stats: dict[str, object] = {}
        self.death = ""
        self._heard = heard
        super().__init__(
            f"worker-{worker_id}", run_worker, source, config, changes, worker_id,
            logging_settings(), daemon=True,
        )  # fmt: skip
        # If the pool is not stopped, the end of this process must not wait for a worker that hangs.
        Finalize(self, self.process.kill, exitpriority=10)

    def take(self, message: Any) -> None:
        self._heard(self, message)

    def send_job(self, job: Job, slot: Slot, packed: PackedObject, spare: int) -> None:
        """Hand an object over. That a worker is gone shows in its end, not here.

        Raises:
            ProcessorError: there is no shared memory.
        """
        try:
            with self._send_lock:
                pid = self.process.pid or 0
                memory = slot.make_room(packed.size + spare, self.pipe, pid)
                packed.write(memory)
                job.size, job.sent = packed.size, True
                message = ("object", job.sequence, slot.number, packed.layout)
                self.pipe.send(message)
        except OSError:
            return


class WorkerPlace(SupervisedChild[UserMpWorker]):
    """A worker of a pool, over all its processes.

    Args:
        number: of the worker, from 1; its processes share it.
        make: starts a process.
        restarts: of all workers of the pool.
        bury: takes back what a process that ended still had.
    """

    def __init__(
        self,
        number: int,
        make: Callable[[int], UserMpWorker],
        restarts: Restarts,
        bury: Callable[[UserMpWorker], None],
    ) -> None:
        self._log = logging.getLogger(__name__)
        super().__init__(f"worker {number}", lambda _: make(number), restarts, self._log.error)
        self._take_back = bury

    def begun(self) -> bool:
        return self.process is not None and self.process.ready

    def judge(self, process: UserMpWorker, code: int) -> str | None:
        return "" if process.stopped or self.stopping else None

    def cause(self, process: UserMpWorker, code: int) -> str:
        return process.death or exit_words(code)

    def bury(self, process: UserMpWorker, died: bool) -> None:
        self._take_back(process)

    def stop(self, word: str = STOP) -> None:
        # What a worker still has when it is to stop is not finished.
        if self.process is not None and self.process.jobs:
            self.process.kill()
        super().stop(word)

    def kill(self) -> None:
        if self.process is not None:
            self._log.error("%s does not end; it is killed", self.name)
        super().kill()


@dataclass(slots=True)
class PoolCounts:
    """What a pool counted."""

    submitted: int = 0
    finished: int = 0
    failed: int = 0
    died: int = 0
    alive: int = 0
