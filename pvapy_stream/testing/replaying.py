"""Recordings in tests: the fixture `replay`. The only module that imports pytest."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pvapy_stream.errors import SettingsError, TransportError
from pvapy_stream.files.recorded import RecordedStream
from pvapy_stream.pva.objects import opening_object
from pvapy_stream.settings import ReplaySettings
from pvapy_stream.sim.faults import Faults
from pvapy_stream.sim.pacing import Pacer
from pvapy_stream.sim.replay_server import ReplayServer, due_objects, object_of
from pvapy_stream.testing import ProcessorRun, Result

_LAST = 10.0  # s; for the end of a source that is stopped


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """The result of a processor that got a recording.

    Attributes:
        result: what the processor did, see `pvapy_stream.testing.Result`.
        faults: ids of objects that something was done to on purpose, by kind.
        problem: why not all of the recording was replayed; "" if it was.
    """

    result: Result
    faults: Mapping[str, list[int]]
    problem: str


class ReplaySource:
    """A recording that is published in this process, in a thread of its own.

    Attributes:
        server: what publishes it: `server.ledger` has the ids.
    """

    def __init__(self, settings: ReplaySettings) -> None:
        self.server = ReplayServer(settings)
        self._stop = threading.Event()
        self._code: int | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._code = self.server.run(self._stop)
        except Exception as error:
            self._error = error

    def wait(self, timeout: float = 60.0) -> int:
        """Wait until all is published; the exit code, as that of ``pvapy-stream replay``.

        Raises:
            TransportError: it has not ended within `timeout` s, or cannot publish.
            PvapyStreamError: the recording cannot be read.
        """
        self._thread.join(timeout)
        if self._error is not None:
            raise self._error
        if self._code is None:
            raise TransportError(f"the replay has not ended within {timeout:g} s")
        return self._code

    @property
    def faults(self) -> dict[str, list[int]]:
        """Ids of objects that something was done to on purpose, by kind."""
        return _plain(self.server.faults)

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(_LAST)


class Replay:
    """Replays recordings of ``pvapy-stream record`` in tests; what the fixture `replay` gives.

    Options of both methods are those of ``pvapy-stream replay``, with `_` for `-`: `speed`, `loop`,
    `seed`, `oid_field`, and the rates `drop`, `delay`, `duplicate`, `reorder`, `corrupt` and
    `reconnect`. ::

        pytest_plugins = ["pvapy_stream.testing"]

        def test_yesterdays_bad_night(replay):
            night = replay.run("night.h5", MyProcessor, drop=0.01, corrupt=0.01, seed=7)
            assert not night.result.ledger.without_fate()
            assert set(night.faults["corrupt"]) == set(night.result.processor.refused)
    """

    def __init__(self) -> None:
        self._sources: list[ReplaySource] = []

    def run(
        self,
        path: str | Path,
        processor: Any,
        *,
        processor_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ReplayResult:
        """Give a recording to a processor as a consumer does, without a network.

        It warns if not all of the recording can be read.

        Args:
            path: the recording.
            processor: a processor class or a processor.
            processor_options: further arguments of `pvapy_stream.testing.ProcessorRun`.
            options: see above; `speed` is "max" unless it is given.

        Raises:
            FileError: the recording cannot be read.
            SettingsError: an option is wrong.
        """
        settings = ReplaySettings.of(file=str(path), **{"speed": "max", **options})
        if not settings.loop:
            raise SettingsError("loop=0 never ends; give the number of passes")
        field = settings.oid_field
        run = ProcessorRun(processor, id_field=field, **(processor_options or {}))
        faults, pacer = Faults(settings.rates, settings.seed), Pacer(0, threading.Event())
        opening: Any = None
        with RecordedStream(Path(path)) as stream:
            for one in faults.apply(due_objects(stream, settings.scale, settings.loop)):
                faults.note(one)
                if one.dropped:
                    continue
                obj = object_of(one, field)
                if opening is None:
                    opening = opening_object(obj, obj, field)
                pacer.wait_until(one.at, 0.0)
                if one.delayed:
                    time.sleep(settings.delay_time)
                if one.reconnects:
                    # What a stage gets from a source that comes back.
                    run.feed(opening.copy())
                run.feed(obj)
            problem = stream.problem
            if stream.unreadable:
                problem = f"{problem}; objects cannot be read: ids {stream.unreadable}".strip("; ")
        if problem:
            warnings.warn(f"{path}: {problem}", stacklevel=2)
        return ReplayResult(run.finish(), _plain(faults), problem)

    def source(
        self, path: str | Path, channel: str, mode: str = "memory", **options: Any
    ) -> ReplaySource:
        """Publish a recording on a channel, for stages that run in this process or in others.

        It begins when one client is there (`wait_for_clients`), and is ended with the test.

        Args:
            path: the recording.
            channel: name of the channel.
            mode: output mode: ``memory`` for this process, ``pvas``, ``shm`` …
            options: see above.

        Raises:
            FileError: the recording cannot be read.
            SettingsError: an option is wrong.
        """
        quiet = {"wait_for_clients": 1, "shutdown_delay": 0, "report_period": 0}
        settings = ReplaySettings.of(
            file=str(path), channel_name=channel, output_mode=mode, **{**quiet, **options}
        )
        made = ReplaySource(settings)
        self._sources.append(made)
        return made

    def close(self) -> None:
        """End all sources."""
        for one in self._sources:
            one.stop()


@pytest.fixture
def replay() -> Iterator[Replay]:
    """Replays recordings to processors, and on channels."""
    made = Replay()
    yield made
    made.close()


def _plain(faults: Faults) -> dict[str, list[int]]:
    return {kind: list(ids) for kind, ids in faults.done.items()}
