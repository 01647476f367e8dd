"""User multi-processing: a slow processor in several processes inside one consumer.

::

    class FindPeaks(UserMpDataProcessor):       # runs in the workers
        def process(self, frame):
            peaks = find(frame.image)
            return frame.replace(attributes={**frame.attributes, "nPeaks": len(peaks)})

Run it with ``--processor-class pvapy_stream.processors.UserMpWorkerPool --processor-args
'{"workerFile": "peaks.py", "workerClass": "FindPeaks", "nWorkers": 4}'``, or derive from
`UserMpWorkerPool` in the same file, with ``workerClass = FindPeaks``, to define what workers get
and how their results are published.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, cast

import pvaccess as pva

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.errors import ProcessorError, SettingsError
from pvapy_stream.frame import Frame
from pvapy_stream.hpc.processor import UserDataProcessor
from pvapy_stream.hpc.worker import Job, UserMpWorker, WorkerPoolOptions
from pvapy_stream.hpc.worker_pool import WorkerPool
from pvapy_stream.hpc.worker_process import ProcessorSource, UserMpDataProcessor
from pvapy_stream.plugins import load_processor_class, made
from pvapy_stream.pva.ntndarray import ObjectBuilder, to_frame
from pvapy_stream.pva.objects import IdReader, id_reader

__all__ = ["UserMpDataProcessor", "UserMpWorker", "UserMpWorkerPool", "WorkerPool"]

_IMAGE_FIELDS = ("value", "dimension", "uniqueId")
_LEFT = "left when the time to drain was over"


class UserMpWorkerPool(UserDataProcessor):
    """Processes objects with a user's class in several processes, and publishes the results.

    `process` returns when a worker's queue has space, so its time is that of the slowest part of
    the pool, and the receiver queue fills when the workers are too slow. An object that fails
    later, in a worker or because its worker died, is counted, logged and reported at stop.

    Keys: workerClass, workerFile (class and file of a `UserMpDataProcessor`), nWorkers (2),
    queueDepth (2 objects a worker), keepOrder (true), maxRestarts (5 dead workers replaced),
    objectTimeout (60 s; a worker that takes longer is killed), startTimeout (60 s), drainTimeout
    (10 s). The worker class gets all keys, and `configure` too.

    Attributes:
        workerClass: the worker class, for classes that derive from this one.
    """

    publishes_later = True
    no_batches = "its workers take one object at a time; remove --batch-size"
    workerClass: ClassVar[type | None] = None  # noqa: N815 - as the key

    def __init__(self, configDict: dict[str, object] | None = None) -> None:
        super().__init__(configDict)
        self._config = dict(configDict or {})
        self.options = WorkerPoolOptions.of(**self._config)
        found = self._worker_class()
        self._source = ProcessorSource.of(found)
        # Tells wrong arguments before a process is started, and the types of the statistics.
        self._model = made(found, self._config)
        self._pool: WorkerPool | None = None
        self._read_id: IdReader | None = None
        self._builder: ObjectBuilder | None = None

    def _worker_class(self) -> type:
        if self.options.worker_class:
            return load_processor_class(self.options.worker_class, self.options.worker_file or None)
        if self.workerClass is None:
            raise SettingsError(
                "workerClass is required: the class to run in the workers, as module.Class or with"
                " workerFile"
            )
        return self.workerClass

    # -- what a class that derives from this one may change --------------------------------------

    def toWorker(self, pvObject: pva.PvObject) -> object:  # noqa: N802 - a method of the interface
        """The argument of the worker's `process`: a `Frame` for an image, else a dictionary.

        Anything that can be pickled may be returned; its numpy arrays go through shared memory.
        """
        if all(pvObject.hasField(name) for name in _IMAGE_FIELDS):
            return to_frame(pvObject)
        return pvObject.toDict()

    def publishResult(self, result: object, pvObject: object) -> None:  # noqa: N802
        """Called with the result of the worker's `process`; publishes a frame, several, or nothing.

        Runs in a thread of the pool, one result at a time. `pvObject` is the object that was
        received.

        Raises:
            ProcessorError: the result is something else.
        """
        if result is None or not self.outputChannel or not self.dataPublisher:
            return
        frames = [result] if isinstance(result, Frame) else result
        if not isinstance(frames, Iterable) or not all(isinstance(f, Frame) for f in frames):
            raise ProcessorError(
                f"the worker returned {type(result).__name__}, not a Frame, several or None;"
                " override publishResult to publish it"
            )
        if self._builder is None:
            self._builder = ObjectBuilder()
        for frame in cast("Iterable[Frame]", frames):
            self.updateOutputChannel(self._builder.build(frame))

    # -- the processor interface -----------------------------------------------------------------

    def start(self) -> None:
        """Start the workers and wait for them.

        Raises:
            ProcessorError: one does not start.
        """
        pool = WorkerPool(self._source, self._config, self._deliver, self.options)
        pool.start()
        self._pool = pool

    def process(self, pvObject: pva.PvObject) -> Any:
        if self._pool is None:
            raise ProcessorError("the workers are not started")
        # Shares the pixels; the binding may reuse the object itself when this returns.
        kept = pvObject.copy()
        if self._read_id is None:
            self._read_id = id_reader(self.objectIdField or "uniqueId", kept)
        self._pool.submit(self._read_id(kept), self.toWorker(kept), kept)
        return pvObject

    def configure(self, configDict: object) -> None:
        """Configure the workers; the pool's own options are fixed at the start.

        Raises:
            ProcessorError: a worker refuses it.
        """
        if isinstance(configDict, dict):
            values = cast("dict[str, object]", configDict)
            own = [field.alias for field in WorkerPoolOptions.model_fields.values()]
            if fixed := [key for key in values if key in own]:
                raise SettingsError(f"{', '.join(fixed)} cannot be changed while the workers run")
        if self._pool is not None:
            self._pool.configure(configDict)

    def stop(self) -> None:
        """Finish the objects that the workers have, within drainTimeout, and end them."""
        if self._pool is not None:
            for job in self._pool.stop(self.options.drain_timeout):
                self._pool.counts.failed += 1
                self.late_failures.note(job.object_id, _LEFT, "see drainTimeout")

    def unfinished(self) -> IdSet:
        """Ids of objects that no worker has finished."""
        pool = self._pool
        return IdSet() if pool is None else IdSet(sorted(pool.unfinished()))

    def resetStats(self) -> None:
        if self._pool is not None:
            self._pool.reset_stats()

    def getStats(self) -> dict[str, object]:
        pool = self._pool
        if pool is None:
            return {}
        counts = pool.counts
        return {
            "nSubmitted": counts.submitted,
            "nFinished": counts.finished,
            "nFailed": counts.failed,
            "nWaiting": pool.waiting,
            "nWorkers": counts.alive,
            "nWorkersDied": counts.died,
            **pool.worker_stats(),
        }

    def getStatsPvaTypes(self) -> dict[str, object]:
        own = ("nSubmitted", "nFinished", "nFailed", "nWaiting", "nWorkers", "nWorkersDied")
        types = getattr(self._model, "getStatsPvaTypes", dict)() or {}
        return {**dict.fromkeys(own, pva.ULONG), **types}

    def getOutputPvObjectType(self, pvObject: pva.PvObject) -> Any:
        self._builder = ObjectBuilder(pvObject)
        return self._builder.prototype

    def _deliver(self, job: Job) -> None:
        kind, message = job.error
        if kind:
            self.late_failures.note(job.object_id, kind, message)
            return
        try:
            self.publishResult(job.result, job.context)
        except Exception as error:
            if self._pool is not None:
                self._pool.counts.failed += 1
                self._pool.counts.finished -= 1
            self.late_failures.note(job.object_id, f"publishing: {type(error).__name__}", error)
