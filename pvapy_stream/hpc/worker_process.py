"""What runs in a worker process of `UserMpWorkerPool`: the user's class, fed by the parent."""

from __future__ import annotations

import logging
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from pvapy_stream.errors import ProcessorError
from pvapy_stream.hpc.worker_memory import PackedObject, attach, parts_in, room, unpack
from pvapy_stream.launch.entry import STOP, enter
from pvapy_stream.logs import configure_logging
from pvapy_stream.plugins import load_processor_class, made
from pvapy_stream.settings import LoggingSettings
from pvapy_stream.signals import accept

STATS_PERIOD = 0.25  # s
_ORPHAN_GRACE = 5.0  # s; for an object that is in work when the parent is gone


class UserMpDataProcessor:
    """A user's class that runs in worker processes; all methods are optional but `process`.

    Each worker makes one of its own and calls its methods in one thread. What `process` returns
    goes back to the consumer, which publishes it: a frame, several, or None.

    One more is made in the consumer's process, and only asked for `getStatsPvaTypes`: keep what is
    heavy for `start`.

    Attributes:
        logger: logger with the name of the class.
        processorId: number of the worker, from 1.
    """

    def __init__(self, configDict: dict[str, object] | None = None) -> None:
        self.logger = logging.getLogger(type(self).__name__)
        self.processorId = 1

    def start(self) -> None:
        """Called once in each worker, before the first object."""

    def configure(self, configDict: Any) -> None:
        """Called in each worker with the arguments of a `configure` command."""

    def process(self, mpqObject: Any) -> Any:
        """Called with each object: a `Frame` for an image, else a dictionary of its fields.

        Its arrays are only yours until this returns: copy what you keep. An exception counts the
        object as failed; the stream goes on.
        """
        return mpqObject

    def stop(self) -> None:
        """Called once in each worker, after the last object."""

    def resetStats(self) -> None:
        """Called in each worker at a `reset_stats` command."""

    def getStats(self) -> Mapping[str, object]:
        """The worker's statistics; numbers of all workers are added up."""
        return {}

    def getStatsPvaTypes(self) -> dict[str, object]:
        """PVA type of each of the statistics."""
        return {}


@dataclass(frozen=True, slots=True)
class ProcessorSource:
    """Where a process that shares no memory with us finds the user's class."""

    class_name: str
    file: str = ""

    @classmethod
    def of(cls, found: type) -> ProcessorSource:
        """The source of a class: its module, or the file of a module that cannot be imported.

        Raises:
            ProcessorError: it is in neither.
        """
        module = sys.modules.get(found.__module__)
        file = getattr(module, "__file__", None) or ""
        spec = getattr(module, "__spec__", None)
        by_file = found.__module__ == "__main__" or "pvapy_stream_user_" in found.__module__
        if "." in found.__qualname__ or (by_file and not file) or (not by_file and not spec):
            raise ProcessorError(
                f"worker class {found.__qualname__} cannot be loaded by another process; put it at"
                " the top level of a file or module"
            )
        if by_file:
            return cls(found.__qualname__, os.path.abspath(file))
        return cls(f"{found.__module__}.{found.__qualname__}")

    def load(self) -> type:
        """The class.

        Raises:
            ProcessorError: it cannot be loaded.
        """
        return load_processor_class(self.class_name, self.file or None)


def run_worker(
    connection: Connection,
    source: ProcessorSource,
    config: dict[str, object],
    changes: Sequence[object],
    worker_id: int,
    log: LoggingSettings,
) -> None:
    """Body of a worker process.

    Args:
        connection: to the parent; ends the worker when the parent is gone.
        source: the user's class.
        config: for its constructor.
        changes: arguments of `configure` commands so far.
        worker_id: number of the worker, from 1.
        log: where messages go.
    """
    # Ctrl-C reaches the whole process group, and a service manager asks all of its processes; the
    # parent alone decides. No SIG_IGN for the second: what the user starts would inherit it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None)
    accept()
    enter(_ORPHAN_GRACE)
    try:
        configure_logging(log)
        processor = made(source.load(), config)
        processor.processorId = worker_id
        processor.start()
        for change in changes:
            processor.configure(change)
        connection.send(("ready", None))
    except Exception as error:
        connection.send(("broken", f"{type(error).__name__}: {error}"))
        return
    try:
        _Worker(connection, processor).run()
    except (EOFError, OSError):
        # The parent has ended: there is no one to report to.
        return


class _Worker:
    """Handles messages until the one to stop."""

    def __init__(self, connection: Connection, processor: Any) -> None:
        self._connection = connection
        self._processor = processor
        self._memory: dict[int, mmap.mmap] = {}
        self._stats_due = 0.0
        self._stats_old = False

    def run(self) -> None:
        connection = self._connection
        while True:
            if self._stats_old and not connection.poll(STATS_PERIOD):
                self._send_stats()
                continue
            what, *args = connection.recv()
            if what == "object":
                self._process(*args)
            elif what == "memory":
                number, size = args
                self._memory[number] = attach(connection, size)
            elif what == "configure":
                connection.send(("configured", self._try(self._processor.configure, *args)))
            elif what == "reset":
                self._try(self._processor.resetStats)
                self._send_stats()
            elif what == STOP:
                error = self._try(self._processor.stop)
                self._send_stats()
                connection.send(("stopped", error))
                return

    def _process(self, sequence: int, number: int, layout: tuple[int, ...]) -> None:
        memory = self._memory[number]
        try:
            # True replaces the object in the parent process from which a frame is made.
            result = PackedObject(self._processor.process(unpack(parts_in(memory, layout), True)))
        except Exception as error:
            trace = "".join(traceback.format_exception(error))
            failure = type(error).__name__, str(error), trace
            self._connection.send(("failed", sequence, failure))
        else:
            # Behind the object it was made from, of which it may be a part.
            start = room(layout)
            parts = None
            if start + result.size <= len(memory):
                result.write(memory, start)
            else:
                parts = [bytes(part) for part in result.parts]
            self._connection.send(("done", sequence, (result.layout, parts)))
        self._stats_old = True
        if time.monotonic() >= self._stats_due:
            self._send_stats()

    def _send_stats(self) -> None:
        self._stats_old = False
        self._stats_due = time.monotonic() + STATS_PERIOD
        try:
            stats = self._processor.getStats() or {}
        except Exception as error:
            self._connection.send(("stats failed", f"{type(error).__name__}: {error}"))
        else:
            self._connection.send(("stats", stats))

    def _try(self, function: Callable[..., object], *args: object) -> str:
        """Call the user's code; what went wrong, or ""."""
        try:
            function(*args)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""
