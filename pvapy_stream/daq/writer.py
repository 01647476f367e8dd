"""`Writer`: requested acquisitions of one stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.bsread.file import SwissfelFile
from pvapy_stream.daq.acquisition import Acquisition
from pvapy_stream.daq.acquisition_state import AcquisitionLimits
from pvapy_stream.daq.destination import Destination, discards
from pvapy_stream.daq.feed_worker import Worker
from pvapy_stream.daq.feeds import (
    BUFFER,
    BufferFeed,
    StreamFeed,
    check_stream,
)
from pvapy_stream.daq.items import Feed
from pvapy_stream.daq.nexus_file import NexusMessages
from pvapy_stream.daq.pulse_ledgers import KIND, STAGE_ID, channel_of
from pvapy_stream.daq.ring import RingLimits
from pvapy_stream.daq.states import Phase
from pvapy_stream.errors import ConflictError, RangeError
from pvapy_stream.settings import WriterSettings
from pvapy_stream.transport.registry import image_stream

if TYPE_CHECKING:
    from pvapy_stream.daq.past import ImagePast

REQUIRED = ("general/created", "general/user", "general/process", "general/instrument")

_GENERAL = "general/"
_KEPT = 1000  # acquisitions that are remembered
_INFORMED = 0.7  # s; how long a start waits for the present position of the stream
_CLOSED = 30.0  # s an end waits for files to be closed


class AcquisitionWriter:
    """Takes requests from any thread.

    Args:
        settings: the stream, the file, and how often.

    Raises:
        SettingsError: the stream's address is none.
    """

    def __init__(self, settings: WriterSettings) -> None:
        check_stream(settings.stream)
        self.settings = settings
        self.parameters: dict[str, object] = {}
        self._began = time.time()
        # Set when the program is to end.
        self.ended = threading.Event()
        self._lock = threading.RLock()
        self._limits = AcquisitionLimits(settings.silence_limit, settings.start_limit)
        self._count = 0
        self._acquisitions: dict[int, Acquisition] = {}
        self._shared: Worker | None = None
        self._workers: list[Worker] = []
        self._destination = Destination(settings)
        self._past = _past(settings)
        self.current = self._new()

    def _new(self) -> Acquisition:
        self._count += 1
        make_file = NexusMessages if self.settings.layout == "nexus" else SwissfelFile
        made = Acquisition(self._count, self.settings.stream, make_file, self._limits)
        self._acquisitions[made.number] = made
        if len(self._acquisitions) > _KEPT:
            del self._acquisitions[next(iter(self._acquisitions))]
        return made

    @property
    def acquisitions(self) -> list[Acquisition]:
        """All that are remembered, the newest last."""
        with self._lock:
            return list(self._acquisitions.values())

    def find(self, number: int | None) -> Acquisition:
        """An acquisition by its number; None for the newest.

        Raises:
            KeyError: there is none.
        """
        with self._lock:
            return self.current if number is None else self._acquisitions[number]

    def set_parameters(self, parameters: Mapping[str, object]) -> None:
        """Take the texts for /general of the running acquisitions, and of those to come.

        Raises:
            RangeError: one is missing, or is no text or number.
            ConflictError: the only acquisition is over.
        """
        missing = [name for name in REQUIRED if name not in parameters]
        if missing:
            raise RangeError(f"parameters {', '.join(missing)} are missing; give all four")
        general = _general(parameters)
        with self._lock:
            if self.current.phase.over and not self.settings.service:
                raise ConflictError("the acquisition is over; start another writer")
            self.parameters = dict(parameters)
            for acquisition in self._acquisitions.values():
                acquisition.set_general(general)

    def start(
        self,
        pulse_id: int | None,
        output_file: str | None = None,
        stop_pulse_id: int | None = None,
        force: bool = False,
        oldest: bool = False,
    ) -> Acquisition:
        """Start an acquisition, and wait a short time for the position of the stream.

        Args:
            pulse_id: the first of the range, which may have passed; None: now.
            output_file: another than that of the settings, below its folder.
            stop_pulse_id: the last of the range, if it is known.
            force: whether a file that exists may be replaced, where --force was given.
            oldest: instead of now, begin with the oldest pulse there is.

        Raises:
            ConflictError: another one runs, or the file exists.
            RangeError: the range is impossible.
            FileError: the file cannot be written.
            TransportError: the stream cannot be asked.
        """
        with self._lock:
            path = self._destination.path(output_file)
            overwrite = self._destination.may_replace(output_file, force)
            acquisition = self._next(path)
            self._check_own(path)
            acquisition.start(
                pulse_id,
                path,
                _general(self.parameters),
                overwrite=overwrite,
                stop=stop_pulse_id,
                oldest=oldest,
            )
            self.current = acquisition
            self._follow(acquisition, 0 if oldest else pulse_id)
        acquisition.informed.wait(_INFORMED)
        return acquisition

    def _next(self, path: Path) -> Acquisition:
        """The acquisition that is to be started."""
        if self.ended.is_set():
            raise ConflictError("the writer is ending; start another")
        if self.current.phase is Phase.WAITING:
            return self.current
        running = [one for one in self._acquisitions.values() if not one.phase.over]
        if not self.settings.service:
            raise ConflictError(
                f"the acquisition is {self.current.phase.value}; this writer runs only one: start"
                " another, or this one with --service"
            )
        if len(running) >= self.settings.parallel:
            raise ConflictError(
                f"{len(running)} acquisitions are running, the maximum is"
                f" {self.settings.parallel}; stop one, or raise --parallel"
            )
        if any(one.path == path for one in running):
            raise ConflictError(f"{path} is being written; give another name")
        return self._new()

    def _check_own(self, path: Path) -> None:
        """Refuse to replace files that this writer has written, whatever is requested."""
        for one in self._acquisitions.values():
            if one.path == path and not discards(path) and path.exists():
                raise ConflictError(
                    f"{path} was written by acquisition {one.number} of this writer; give another"
                    " name"
                )

    def _follow(self, acquisition: Acquisition, first: int | None) -> None:
        """Pass the stream's messages to an acquisition."""
        self._workers = [worker for worker in self._workers if worker.alive]
        if self._shared is not None and self._shared.join(acquisition):
            return
        try:
            feed = self._feed(acquisition, first)
        except Exception as error:
            acquisition.fail(str(error))
            raise
        worker = Worker(feed, acquisition)
        self._workers.append(worker)
        own = self._past is not None or self.settings.stream.startswith(BUFFER)
        self._shared = None if own else worker

    def _feed(self, acquisition: Acquisition, first: int | None) -> Feed:
        address = self.settings.stream
        if self._past is not None:
            # Imported late: bsread streams need no EPICS.
            from pvapy_stream.daq.past import PastFeed

            return PastFeed(address, self._past, first, acquisition.stop_pulse_id)
        if address.startswith(BUFFER):
            return BufferFeed(address, first, acquisition.stop_pulse_id)
        if image_stream(address):
            from pvapy_stream.daq.frame_source import FrameFeed

            return FrameFeed(address, self.settings.id_field)
        return StreamFeed(address, self.settings.mode)

    def ledgers(self) -> list[Ledger]:
        """Its account, a ledger for each acquisition and epoch of ids; none before the first start.

        Each names the file of its acquisition, which decides what is saved when this program was
        killed. Those of an acquisition that is over are closed.
        """
        # The file distinguishes it from other writers of the same stream.
        settings = self.settings
        found: list[Ledger] = []
        for acquisition in self.acquisitions:
            first = Ledger(KIND, STAGE_ID, channel_of(settings.stream), settings.output_file)
            first.incarnation, first.started = settings.incarnation, self._began
            first.closed = acquisition.over.is_set()
            path = acquisition.path
            first.file = "" if path is None or discards(path) else str(path)
            account = [first]
            acquisition.enter(account)
            if first.asked is None:
                continue
            first.anonymous = acquisition.progress().malformed
            found += account
        return found

    def end(self, acquisitions: list[Acquisition]) -> None:
        """Finish acquisitions with the messages so far, and wait until their files are closed."""
        deadline = time.monotonic() + _CLOSED
        for one in acquisitions:
            one.end()
        for one in acquisitions:
            one.over.wait(max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Finish all, and close the stream."""
        self.ended.set()
        self.end(self.acquisitions)
        for worker in self._workers:
            worker.wait()
        if self._past is not None:
            self._past.stop()


def _past(settings: WriterSettings) -> ImagePast | None:
    """What keeps images; None when none are to be kept."""
    if not (settings.keep_memory or settings.keep_seconds):
        return None
    from pvapy_stream.daq.past import ImagePast

    limits = RingLimits(0, round(settings.keep_memory * 2**20), settings.keep_seconds)
    return ImagePast(settings.stream, settings.id_field, limits)


def _general(parameters: Mapping[str, object]) -> dict[str, str]:
    """Texts for /general."""
    found: dict[str, str] = {}
    for name, value in parameters.items():
        if not name.startswith(_GENERAL):
            continue
        key = name.removeprefix(_GENERAL)
        if not key or "/" in key or "\0" in f"{key}{value}" or len(f"{key}{value}") > 32_000:
            raise RangeError(f"parameter {name!r} cannot be written; use a short name and text")
        if not isinstance(value, (str, int, float)):
            raise RangeError(f"parameter {name!r} is {value!r}; it must be a text")
        found[key] = str(value)
    return found
