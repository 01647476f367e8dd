"""Records the objects of a stream as they came, with their arrival times."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pvaccess as pva
from pydantic import Field

from pvapy_stream.accounting.bags import ascending
from pvapy_stream.errors import FileError, SettingsError
from pvapy_stream.files.recording import RecordingFile
from pvapy_stream.files.run_name import run_id
from pvapy_stream.hpc.processor import UserDataProcessor
from pvapy_stream.processors.processor_options import Options, make_options, own_keys
from pvapy_stream.pva.lazy import StreamObject, pv_object
from pvapy_stream.pva.objects import IdReader, id_reader
from pvapy_stream.pva.serial import ObjectWriter
from pvapy_stream.signals import stop_running

__all__ = ["StreamRecorder"]

LIMIT = "limit of the recording"  # policy that rejects what comes after it
FAILED = "recording"

_MEGABYTE = 1_000_000
_MOST_WAITING = 256 * 2**20  # bytes
_TICK = 0.1  # s; how soon waiting bytes, and a time that is over, are noticed


class _Options(Options):
    output_file: str = Field(min_length=1)
    overwrite: bool = False
    n_objects: int = Field(0, ge=0)
    duration: float = Field(0, ge=0)
    max_size: float = Field(0, ge=0)
    input_mode_name: str = ""


class _Arrived(NamedTuple):
    """An object that waits to be written."""

    time_ns: int
    id: int
    data: bytes


class StreamRecorder(UserDataProcessor):
    """Records each object as it came, and passes it on.

    Keys of the configuration: `outputFile`; `overwrite` [false]; `nObjects`, `duration` (s) and
    `maxSize` (MB) end the recording [0: no limit], and then the program, if it has no output.

    The arrival time is taken when `process` is called, so use it without a receiver queue. A thread
    of its own writes.

    Raises:
        SettingsError: a wrong value.
    """

    # An object counts as processed when it has been flushed, see `late_failures.done`.
    confirms = True
    no_batches = "the recorder takes the time at which each object arrives"

    def __init__(self, configDict: Mapping[str, object] | None = None) -> None:
        super().__init__(configDict)
        try:
            self._options = make_options(_Options, own_keys(configDict or {}))
        except SettingsError as error:
            raise SettingsError(f"StreamRecorder: {error}") from error
        self._writer = ObjectWriter()
        self._read_id: IdReader | None = None
        self._file: RecordingFile | None = None
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._ready = threading.Condition()
        self._waiting: deque[_Arrived] = deque()
        self._n_waiting = 0  # bytes
        self._unconfirmed: deque[int] = deque()
        self._ending = False
        self._over = False
        self._problem = ""
        self._first_ns = 0
        self._n_taken = self._n_bytes = self._n_delayed = self._n_confirmed = 0
        # A step of the time of day must not change an interval.
        self._offset = time.time_ns() - time.perf_counter_ns()

    @property
    def output_files(self) -> str:
        """Name of its file."""
        return self._options.output_file.replace("{", "{{").replace("}", "}}")

    def start(self) -> None:
        """Make the file.

        Raises:
            FileError: it exists, or cannot be made.
        """
        options = self._options
        about = {
            "input_channel": self.inputChannel or "",
            "mode": options.input_mode_name,
            "stage": f"consumer {self.processorId}",
            "run": run_id(),
        }
        self._file = RecordingFile(Path(options.output_file), about, options.overwrite)
        self._thread.start()

    def process(self, pvObject: StreamObject) -> None:
        """Take an object.

        Raises:
            FileError: it cannot be written any more.
            ObjectError: it cannot be converted to bytes.
        """
        now = time.perf_counter_ns() + self._offset
        obj = pv_object(pvObject)
        if self._read_id is None:
            self._read_id = id_reader(self.objectIdField or "uniqueId", obj)
        value = self._read_id(obj)
        if self._problem:
            raise FileError(self._problem)
        data = b"" if self._over else b"".join(self._writer.parts(obj))
        if self._is_over(now, len(data)):
            self.late_failures.reject(value, LIMIT)
        else:
            self._put(_Arrived(now, value, data))
        self.updateOutputChannel(pvObject)

    def _is_over(self, now: int, size: int) -> bool:
        """Whether a limit is reached before an object of this size that came now."""
        options = self._options
        self._first_ns = self._first_ns or now
        if not self._over and (
            (options.duration and now - self._first_ns > options.duration * 1e9)
            or (options.max_size and self._n_bytes + size > options.max_size * _MEGABYTE)
        ):
            self._end()
        return self._over

    def _end(self) -> None:
        self._over = True
        if not self.outputChannel:
            stop_running()

    def _put(self, one: _Arrived) -> None:
        with self._ready:
            if self._n_waiting and self._n_waiting + len(one.data) > _MOST_WAITING:
                self._n_delayed += 1
                self._ready.wait_for(self._has_room)
            if self._problem:
                raise FileError(self._problem)
            self._waiting.append(one)
            self._n_waiting += len(one.data)
            self._n_taken += 1
            self._n_bytes += len(one.data)
        if self._n_taken == self._options.n_objects:
            self._end()

    def _has_room(self) -> bool:
        return self._n_waiting < _MOST_WAITING / 2 or bool(self._problem)

    # -- the thread that writes ------------------------------------------------------------------

    def _run(self) -> None:
        file = self._file
        assert file is not None  # noqa: S101 - started after that
        while not self._ending or self._waiting:
            with self._ready:
                self._ready.wait_for(lambda: self._waiting or self._ending, _TICK)
                one = self._waiting.popleft() if self._waiting else None
            try:
                self._write(file, one)
            except FileError as error:
                self._fail(file, error)
                return
            self._confirm(file.n_written)
            if self._first_ns and not self._over:
                self._is_over(time.perf_counter_ns() + self._offset, 0)

    def _write(self, file: RecordingFile, one: _Arrived | None) -> None:
        if one is None:
            file.keep_up()
            return
        self._unconfirmed.append(one.id)
        file.add(one.time_ns, one.id, [one.data])
        with self._ready:
            self._n_waiting -= len(one.data)
            if self._n_waiting < _MOST_WAITING / 2:
                self._ready.notify()

    def _confirm(self, n_written: int) -> None:
        """Tell which objects are on disk."""
        ids = [self._unconfirmed.popleft() for _ in range(n_written - self._n_confirmed)]
        self._n_confirmed = n_written
        for some in ascending(ids):
            self.late_failures.done(some)

    def _fail(self, file: RecordingFile, error: FileError) -> None:
        """The file cannot be written: what is not in it has failed, and so will what comes."""
        self._problem = str(error)
        self.logger.error("the recording ends early: %s", error)
        self._close(file)
        if not self.outputChannel:
            stop_running()

    def _close(self, file: RecordingFile) -> None:
        problem = self._problem
        try:
            file.close(problem, limited=self._over)
        except FileError as error:
            problem = self._problem = str(error)
            self.logger.error("%s", error)
        self._confirm(file.n_written)
        with self._ready:
            lost = [*self._unconfirmed, *(one.id for one in self._waiting)]
            self._waiting.clear()
            self._unconfirmed.clear()
            self._ready.notify()
        for value in lost:
            self.late_failures.note(value, FAILED, problem)

    # -- the end ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """Write what waits, and close the file.

        Raises:
            FileError: that is not possible; what is in the file can be read.
        """
        file = self._file
        if file is None:
            return
        with self._ready:
            self._ending = True
            self._ready.notify()
        self._thread.join()
        if not self._problem:
            self._close(file)
        if self._problem:
            raise FileError(self._problem)
        if self._n_delayed:
            self.logger.warning(
                "%s: %d objects waited for the disk; the arrival times of those after them may be"
                " late",
                file.path,
                self._n_delayed,
            )

    def getStats(self) -> Mapping[str, object]:
        return {
            "nRecorded": self._n_confirmed,
            "nBytesRecorded": self._n_bytes,
            "nDelayed": self._n_delayed,
            "lastFilePath": "" if self._file is None else str(self._file.path),
        }

    def getStatsPvaTypes(self) -> Mapping[str, object]:
        return {
            "nRecorded": pva.ULONG,
            "nBytesRecorded": pva.ULONG,
            "nDelayed": pva.ULONG,
            "lastFilePath": pva.STRING,
        }
