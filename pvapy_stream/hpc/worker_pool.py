"""A pool of worker processes: objects out, results back, in order or not; deaths are noticed."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pvapy_stream.errors import ProcessorError
from pvapy_stream.hpc.worker import Job, PoolCounts, UserMpWorker, WorkerPlace, WorkerPoolOptions
from pvapy_stream.hpc.worker_memory import PackedObject, Slot, parts_in, room, unpack
from pvapy_stream.hpc.worker_process import ProcessorSource
from pvapy_stream.launch.entry import STOP
from pvapy_stream.launch.supervisor import RestartPolicy, Restarts, Supervisor, exit_words

Deliver = Callable[[Job], None]

_TICK = 0.1  # s; how soon a hanging worker is noticed
_STOP_GRACE = 5.0  # s; for the workers' own `stop`


class WorkerPool:
    """Runs a user's class in processes.

    `submit` is called by one thread; a thread of the pool calls `deliver` with each finished job.
    An object whose worker dies has failed; those that waited behind it go to other workers.

    Args:
        source: the user's class.
        config: for its constructor.
        deliver: gets each job, with its result or its error.
        settings: of the pool.
    """

    def __init__(
        self,
        source: ProcessorSource,
        config: dict[str, object],
        deliver: Deliver,
        settings: WorkerPoolOptions,
    ) -> None:
        self.settings = settings
        self.counts = PoolCounts()
        self._source = source
        self._config = config
        self._deliver = deliver
        self._changes: list[object] = []
        self._past_stats: list[dict[str, object]] = []
        self._cond = threading.Condition()
        self._sequence = itertools.count()
        self._order: deque[Job] = deque()
        self._backlog: deque[Job] = deque()
        self._spare = 0
        self._restarts = Restarts(RestartPolicy(self.settings.max_restarts))
        self._broken = ""
        self._replies: list[str] | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="workers", daemon=True)
        self._log = logging.getLogger(__name__)
        self._places = Supervisor(
            [
                WorkerPlace(number, self._make_worker, self._restarts, self._bury)
                for number in range(1, self.settings.n_workers + 1)
            ]
        )

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the workers, and wait until they can work.

        Raises:
            ProcessorError: one cannot.
        """
        for place in self._places.members:
            place.start()
        self.counts.alive = len(self._workers)
        self._thread.start()
        with self._cond:
            started = self._cond.wait_for(
                lambda: self._broken or all(place.begun() for place in self._places.members),
                self.settings.start_timeout,
            )
            problem = self._broken
        if problem or not started:
            self.stop(0)
            raise ProcessorError(
                problem or f"workers did not start within {self.settings.start_timeout} s"
            )

    @property
    def _workers(self) -> list[UserMpWorker]:
        return [one for place in self._places.members if (one := place.process) is not None]

    def _make_worker(self, number: int) -> UserMpWorker:
        return UserMpWorker(
            number, self.settings.queue_depth, self._receive, self._source, self._config,
            list(self._changes),
        )  # fmt: skip

    def submit(self, object_id: int, item: object, context: object = None) -> None:
        """Hand over an object; waits until a worker can take it, which slows the stream down.

        Raises:
            ProcessorError: no worker is left, or none took it within the object timeout.
        """
        packed = PackedObject(item)
        limit = self.settings.object_timeout + self.settings.start_timeout
        with self._cond:
            if not self._cond.wait_for(self._has_room, limit) and not self._broken:
                raise ProcessorError(
                    f"the queues of all workers were full for {limit} s; object {object_id} is not"
                    " processed"
                )
            if self._broken or self._stopping:
                raise ProcessorError(self._broken or "the workers are stopped")
            job = Job(next(self._sequence), object_id, item, context)
            self._order.append(job)
            self.counts.submitted += 1
            worker, slot = self._assign(job)
        self._send(worker, job, slot, packed)

    def _has_room(self) -> bool:
        # With order kept, results wait for an earlier one: only so many may.
        settings = self.settings
        if self._broken or self._stopping:
            return True
        window = 2 * settings.n_workers * settings.queue_depth
        return not self._backlog and len(self._order) < window and self._idlest() is not None

    def _idlest(self) -> UserMpWorker | None:
        able = [worker for worker in self._workers if worker.free and not worker.death]
        # One that still starts comes last.
        return min(able, key=lambda worker: (not worker.ready, len(worker.jobs)), default=None)

    def _assign(self, job: Job) -> tuple[UserMpWorker, Slot]:
        worker = self._idlest()
        if worker is None:
            raise ProcessorError("no worker has room")
        slot = job.slot = worker.free.pop()
        if not worker.jobs and worker.ready:
            worker.busy_since = time.monotonic()
        worker.jobs.append(job)
        return worker, slot

    def _send(self, worker: UserMpWorker, job: Job, slot: Slot, packed: PackedObject) -> None:
        try:
            worker.send_job(job, slot, packed, max(packed.size + 4096, self._spare))
        except ProcessorError as error:
            with self._cond:
                if job in worker.jobs:
                    worker.jobs.remove(job)
                    worker.free.append(slot)
                    self._finish(job, error=("no memory", str(error)))
                self._cond.notify_all()

    def stop(self, timeout: float) -> list[Job]:
        """Let the workers finish what they have, for at most `timeout` s, and end them.

        Returns:
            jobs that were not finished; they were not delivered.
        """
        with self._cond:
            self._cond.wait_for(lambda: not self._order or self._broken, timeout)
            self._stopping = True
            self._cond.notify_all()
        # It stops the workers, within a limit, and ends after the last.
        self._thread.join(2 * _STOP_GRACE)
        for worker in self._workers:
            worker.kill()
        with self._cond:
            jobs = list(self._order)
            self._order.clear()
            self._backlog.clear()
        if not self._thread.is_alive():
            # Those that had to wait for one that is left.
            for job in jobs:
                if job.over:
                    self._deliver(job)
        return [job for job in jobs if not job.over]

    # -- commands --------------------------------------------------------------------------------

    def configure(self, change: object, timeout: float = 10.0) -> None:
        """Configure all workers, behind the objects they have.

        Raises:
            ProcessorError: one refuses it, or does not answer in time.
        """
        replies: list[str] = []
        with self._cond:
            self._replies = replies
            workers = self._workers
        # Not under the lock: the pool's thread must read while we write.
        asked = sum(worker.send("configure", change) for worker in workers)
        with self._cond:
            answered = self._cond.wait_for(
                lambda: len(replies) >= min(asked, len(self._workers)), timeout
            )
            self._replies = None
        errors = sorted({reply for reply in replies if reply})
        if errors:
            raise ProcessorError(f"workers refuse the configuration: {'; '.join(errors)}")
        # Also what was not answered: workers that are started later begin with it.
        self._changes.append(change)
        if not answered:
            raise ProcessorError(
                f"only {len(replies)} of {asked} workers confirmed the configuration within"
                f" {timeout} s; the others will apply it after their queued objects"
            )

    def reset_stats(self) -> None:
        """Reset the statistics, here and in the workers."""
        with self._cond:
            self.counts = PoolCounts(alive=len(self._workers))
            self._past_stats = []
            for worker in self._workers:
                worker.stats = {}
                worker.send("reset")

    @property
    def waiting(self) -> int:
        """Objects without a result."""
        return len(self.unfinished())

    def unfinished(self) -> list[int]:
        """Ids of objects without a result."""
        return [job.object_id for job in list(self._order) if not job.over]

    def worker_stats(self) -> dict[str, object]:
        """Numbers of all workers, also of those that died, added up; else the newest value."""
        total: dict[str, Any] = {}
        with self._cond:
            for stats in [*self._past_stats, *(worker.stats for worker in self._workers)]:
                for name, value in stats.items():
                    adds = isinstance(value, (int, float)) and not isinstance(value, bool)
                    total[name] = total.get(name, 0) + value if adds else value
        return total

    # -- the pool's thread -----------------------------------------------------------------------

    def _run(self) -> None:
        asked = False
        while not self._places.ended:
            if self._stopping and not asked:
                asked = True
                self._places.stop(STOP, _STOP_GRACE)
            if self._places.poll(_TICK):
                self._note_changes()
            self._dispatch_backlog()
            self._kill_hanging()
            self._release()

    def _note_changes(self) -> None:
        """Count the workers; when none will work again, all that waits has failed."""
        with self._cond:
            self.counts.alive = len(self._workers)
            if not self._stopping and self._places.ended:
                last = max(self._places.deaths, key=lambda one: one.time).how
                self._broken = self._broken or f"no worker is left; the last died ({last})"
                while self._backlog:
                    self._finish(self._backlog.popleft(), error=("no worker is left", self._broken))
            self._cond.notify_all()

    def _receive(self, worker: UserMpWorker, message: tuple[Any, ...]) -> None:
        what, *args = message
        with self._cond:
            self._heard(worker, what, *args)
            self._cond.notify_all()
        if what in ("done", "failed"):
            self._release()

    def _heard(self, worker: UserMpWorker, what: str, value: Any, more: Any = None) -> None:
        if what in ("done", "failed"):
            self._result(worker, what, value, more)
        elif what == "stats":
            worker.stats = value
        elif what == "stats failed":
            self._log.error("worker %d: getStats failed: %s", worker.worker_id, value)
        elif what == "ready":
            worker.ready = True
            worker.busy_since = time.monotonic()
        elif what == "broken":
            worker.death = f"the processor does not start in worker {worker.worker_id}: {value}"
            if not self._restarts.total:
                self._broken = worker.death
        elif what == "configured" and self._replies is not None:
            self._replies.append(value)
        elif what == "stopped":
            worker.stopped = True
            if value:
                self._log.error("worker %d: stop failed: %s", worker.worker_id, value)

    def _result(self, worker: UserMpWorker, what: str, sequence: int, value: Any) -> None:
        job = next((job for job in worker.jobs if job.sequence == sequence), None)
        if job is None or job.slot is None or job.slot.memory is None:
            return
        slot, memory = job.slot, job.slot.memory
        worker.jobs.remove(job)
        worker.busy_since = time.monotonic()
        if what == "failed":
            kind, message, trace = value
            self._log.debug("object %d failed in a worker: %s", job.object_id, trace)
            self._finish(job, error=(f"process: {kind}", message))
        else:
            layout, parts = value
            if parts is None:
                parts = [bytes(part) for part in parts_in(memory, layout, job.size)]
            else:
                self._spare = max(self._spare, room(layout))
            try:
                self._finish(job, result=unpack(parts, job.context))
            except Exception as error:
                self._finish(job, error=(f"result: {type(error).__name__}", str(error)))
        worker.free.append(slot)

    def _finish(self, job: Job, result: object = None, error: tuple[str, str] = ("", "")) -> None:
        job.result, job.error, job.item, job.over = result, error, None, True
        if error[0]:
            self.counts.failed += 1
        else:
            self.counts.finished += 1

    def _release(self) -> None:
        """Deliver what is finished and whose turn it is."""
        while True:
            with self._cond:
                if self.settings.keep_order:
                    job = self._order[0] if self._order and self._order[0].over else None
                else:
                    job = next((job for job in self._order if job.over), None)
                if job is None:
                    return
            self._deliver(job)
            with self._cond:
                self._order.remove(job)
                self._cond.notify_all()

    def _dispatch_backlog(self) -> None:
        """Give what a dead worker left to others."""
        while True:
            with self._cond:
                if not self._backlog or self._stopping or self._idlest() is None:
                    return
                job = self._backlog.popleft()
                worker, slot = self._assign(job)
            self._send(worker, job, slot, PackedObject(job.item))

    def _kill_hanging(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            limit = self.settings.object_timeout if worker.ready else self.settings.start_timeout
            if (worker.jobs or not worker.ready) and now - worker.busy_since > limit:
                what = "end of an object" if worker.ready else "start"
                worker.death = f"no {what} within {limit:g} s"
                worker.kill()

    def _bury(self, worker: UserMpWorker) -> None:
        """Clean up after a worker's process; its jobs go to others."""
        with self._cond:
            self._past_stats.append(worker.stats)
            if not worker.stopped and not self._stopping:
                self.counts.died += 1
                self._take_back(worker)
            self._cond.notify_all()

    def _take_back(self, worker: UserMpWorker) -> None:
        jobs = list(worker.jobs)
        if jobs and jobs[0].sent and worker.ready:
            how = worker.death or exit_words(worker.process.exitcode)
            self._finish(jobs.pop(0), error=("worker died", f"worker {worker.worker_id}: {how}"))
        for job in jobs:
            job.slot, job.sent = None, False
        self._backlog.extendleft(reversed(jobs))
