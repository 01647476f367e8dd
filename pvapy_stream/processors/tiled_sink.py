"""``TiledSink``: images and reduced values on a Tiled server, while the run goes on."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pvaccess as pva
from pydantic import Field, field_validator

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.errors import ProcessorError, PvapyStreamError, SettingsError
from pvapy_stream.files.run_name import run_id
from pvapy_stream.frame import Frame
from pvapy_stream.processors.processor_options import OptionProcessor, Options, own_keys
from pvapy_stream.processors.tiled_arrays import DENIED, REFUSED, Rows, TiledError, TiledRun

__all__ = ["TiledSink"]

KEY_VARIABLE = "TILED_API_KEY"
LEFT = "tiled: left at stop"

_ROOM_WAIT = 2.0  # s; below the time that a command waits for the stage
_PAUSE = 2.0  # s; longest time between two attempts
_NAME = re.compile(r"[\w.@:+-]+")
# What `configure` may change.
_CHANGEABLE = frozenset({"batchFrames", "batchTime", "batchMB", "retryTime"})


class TiledQueueError(ProcessorError):
    """The queue of frames for the server is full."""


class TiledSinkOptions(Options):
    """Options of `TiledSink`."""

    uri: str
    name: str = ""
    api_key_file: Path | None = None
    attributes: tuple[str, ...] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)
    batch_frames: int = Field(100, ge=1, le=100_000)
    batch_mb: float = Field(16, gt=0, le=1000, alias="batchMB")
    batch_time: float = Field(0.5, ge=0, le=60)
    queue_mb: float = Field(256, gt=0, alias="queueMB")
    request_timeout: float = Field(10, gt=0, le=600)
    retry_time: float = Field(30, ge=0)
    drain_timeout: float = Field(8, ge=0, le=9)

    @field_validator("uri", mode="after")
    @classmethod
    def _check_uri(cls, uri: str) -> str:
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be the address of a Tiled server, such as http://host:8000")
        return uri

    @field_validator("name", mode="after")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name and not _NAME.fullmatch(name):
            raise ValueError("may have letters, digits and any of _ . @ : + -")
        return name


class TiledSink(OptionProcessor[TiledSinkOptions]):
    """Writes images and values to a Tiled server, and passes the frames on.

    A frame counts as processed when the server has acknowledged it. A frame that it does not take
    within `retryTime` has failed; the stage continues.

    The run gets a container with the arrays image, id, time_ns, values (the sum of the pixels,
    then `attributes`; NaN for what is no number) and count. The first ``count[0]`` rows of the
    others are complete, and do not change any more. Images of another shape or pixel type are in
    image_2, id_2 and so on.

    Keys: uri, name (the time of the start; the container is NAME.PROCESSORID), apiKeyFile (else the
    key is in the environment variable TILED_API_KEY), attributes ([]), metadata ({}), batchFrames
    (100), batchMB (16), batchTime (0.5 s), queueMB (256), requestTimeout (10 s), retryTime (30 s),
    drainTimeout (8 s). A `configure` command may change batchFrames, batchMB, batchTime and
    retryTime.

    Raises:
        SettingsError: a wrong value, or there is no API key.
    """

    options_type = TiledSinkOptions
    # An id counts as processed when the server has it.
    confirms = True

    def __init__(self, configDict: dict[str, object] | None = None) -> None:
        parts = urlsplit(str((configDict or {}).get("uri", "")))
        if parts.username or parts.password or parts.query:
            # Here, as an error of an option repeats its value, and is logged.
            raise SettingsError(
                "uri: must not contain a key or password, which others could read in the list of"
                f" processes; set {KEY_VARIABLE}, or give apiKeyFile"
            )
        super().__init__(configDict)
        self._changed = threading.Condition()
        self._filling: Rows | None = None
        self._ready: deque[Rows] = deque()
        self._sending: Rows | None = None
        self._waiting_bytes = 0
        self._full = self._closing = self._abandoned = False
        self._run: TiledRun | None = None
        self._sender: threading.Thread | None = None
        # Why the server has been given up, and when it is tried again.
        self._down: TiledError | None = None
        self._next_attempt = 0.0

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the container. A server that does not answer is waited for later.

        Raises:
            MissingExtraError: Tiled is not installed.
            SettingsError: there is no API key.
            TiledError: the server denies access, or the name is taken.
        """
        number, run = self.processorId or 1, run_id()
        name = self.options.name or datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%f")
        own = {"run": run, "processorId": number}

        def same_run(metadata: Mapping[str, Any]) -> bool:
            found = metadata.get("pvapy_stream")
            return isinstance(found, Mapping) and {k: found.get(k) for k in own} == own

        about = {
            **self.options.metadata,
            "pvapy_stream": {**own, "inputChannel": self.inputChannel or ""},
            "columns": ["sum", *self.options.attributes],
        }
        made = TiledRun(
            self.options.uri, self._key, f"{name}.{number}", about, same_run,
            self.options.request_timeout,
        )  # fmt: skip
        self._key()
        try:
            made.open()
        except TiledError as error:
            if not error.temporary or error.kind == DENIED:
                made.close()
                raise
            self.logger.warning("%s; frames wait for it", error)
        self._run = made
        self._sender = threading.Thread(target=self._send, args=(made,), name="tiled", daemon=True)
        self._sender.start()

    def _key(self) -> str:
        """The API key.

        Raises:
            SettingsError: there is none.
        """
        file = self.options.api_key_file
        try:
            key = os.environ.get(KEY_VARIABLE, "") if file is None else file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"apiKeyFile {file} cannot be read: {error}") from error
        if not key:
            raise SettingsError(
                f"there is no API key of the Tiled server: set {KEY_VARIABLE}, or give apiKeyFile"
            )
        return key

    def configure(self, configDict: Any) -> None:
        """Take new sizes of batches and times; what is not named stays.

        Raises:
            SettingsError: a wrong value, or a key that is fixed at the start.
        """
        if fixed := sorted({*own_keys(configDict)} - _CHANGEABLE):
            raise SettingsError(
                f"{', '.join(fixed)} cannot be changed; configure changes"
                f" {', '.join(sorted(_CHANGEABLE))}"
            )
        super().configure(configDict)

    def stop(self) -> None:
        """Write what waits, within `drainTimeout`; what is left has failed."""
        if self._sender is None or self._run is None:
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._sender.join(self.options.drain_timeout)
        if not self._sender.is_alive():
            self._run.close()
            return
        with self._changed:
            self._abandoned = True
            left = [*self._all_rows()]
            self._ready.clear()
            self._filling = self._sending = None
            self._changed.notify_all()
        for rows in left:
            self._note(rows, LEFT, "the server did not take it within drainTimeout")

    # -- frames ----------------------------------------------------------------------------------

    def process_frame(self, frame: Frame) -> Frame:
        if not -(1 << 63) <= frame.id < 1 << 63:
            raise ProcessorError(f"the id {frame.id} does not fit into 64 bits")
        # Native byte order; a copy, as the memory belongs to the source.
        image = np.array(frame.image, frame.image.dtype.newbyteorder("="))
        values = [_number(frame.attributes.get(name)) for name in self.options.attributes]
        with self._changed:
            self._wait_for_room(image.nbytes)
            rows = self._rows_for(image)
            rows.ids.append(frame.id)
            rows.times.append(frame.time_ns)
            rows.images.append(image)
            rows.values.append(values)
            rows.nbytes += image.nbytes
            self._waiting_bytes += image.nbytes
            options = self.options
            if len(rows.ids) >= options.batch_frames or rows.nbytes >= options.batch_mb * 1e6:
                self._finish_rows()
            elif len(rows.ids) == 1:
                # The sender waits for the end of its time.
                self._changed.notify_all()
        return frame

    def _wait_for_room(self, size: int) -> None:
        """Wait until an image fits into the queue; not again before it has had room.

        Raises:
            TiledQueueError: it does not fit, for too long.
        """

        def room() -> bool:
            waiting = self._waiting_bytes
            return not waiting or waiting + size <= self.options.queue_mb * 1e6

        if not room() and (self._full or not self._changed.wait_for(room, _ROOM_WAIT)):
            self._full = True
            raise TiledQueueError(
                f"{self.options.queue_mb:g} MB wait for the Tiled server (queueMB), which is too"
                " slow or does not answer"
            )
        self._full = False

    def _rows_for(self, image: np.ndarray) -> Rows:
        rows = self._filling
        if rows is not None and (rows.shape, rows.dtype) != (image.shape, image.dtype):
            self._finish_rows()
            rows = None
        if rows is None:
            rows = self._filling = Rows(image.shape, image.dtype, time.monotonic())
        return rows

    def _finish_rows(self) -> None:
        if self._filling is not None:
            self._ready.append(self._filling)
            self._filling = None
            self._changed.notify_all()

    # -- the thread that sends -------------------------------------------------------------------

    def _send(self, run: TiledRun) -> None:
        while (rows := self._next_rows()) is not None:
            self._store(run, rows)

    def _next_rows(self) -> Rows | None:
        """Wait for rows that are complete, or whose time is over; None at the end."""
        with self._changed:
            while not self._abandoned:
                left = None
                if not self._ready and self._filling is not None:
                    left = self._filling.began + self.options.batch_time - time.monotonic()
                    if left <= 0 or self._closing:
                        self._finish_rows()
                if self._ready:
                    self._sending = self._ready.popleft()
                    return self._sending
                if self._closing:
                    return None
                self._changed.wait(left)
            return None

    def _store(self, run: TiledRun, rows: Rows) -> None:
        """Write rows, again if need be, and note what became of them."""
        began, pause = time.monotonic(), 0.1
        while not self._abandoned:
            if self._down is not None and time.monotonic() < self._next_attempt:
                self._settle(rows, self._down)
                return
            error = self._attempt(run, rows)
            if error is None:
                self._settle(rows, None)
                return
            passed = time.monotonic() - began
            if not error.temporary or self._down is not None or passed >= self.options.retry_time:
                run.give_up(rows)
                self._down = error if error.temporary else None
                self._next_attempt = time.monotonic() + _PAUSE
                self._settle(rows, error)
                return
            if pause == 0.1:
                self.logger.warning(
                    "%s; it is tried again for up to %g s", error, self.options.retry_time
                )
            self.counts["nRetries"] += 1
            with self._changed:
                self._changed.wait_for(lambda: self._abandoned, pause)
            pause = min(2 * pause, _PAUSE)

    def _attempt(self, run: TiledRun, rows: Rows) -> TiledError | None:
        try:
            run.write(rows)
        except TiledError as error:
            return error
        except Exception as error:
            # The thread must not end: frames would wait for ever.
            temporary = isinstance(error, PvapyStreamError)
            return TiledError(f"{type(error).__name__}: {error}", REFUSED, temporary)
        return None

    def _settle(self, rows: Rows, error: TiledError | None) -> None:
        with self._changed:
            if self._abandoned:
                # They have their fate already.
                return
            if error is None:
                for ids in _ascending(rows.ids):
                    self.late_failures.done(ids)
                self.counts["nStored"] += len(rows.ids)
                self.counts["nBatches"] += 1
                if self._down is not None:
                    self.logger.info("the Tiled server takes frames again")
                self._down = None
            else:
                self._note(rows, error.kind, error)
            self._sending = None
            self._waiting_bytes -= rows.nbytes
            self._changed.notify_all()

    def _note(self, rows: Rows, kind: str, message: object) -> None:
        for frame_id in rows.ids:
            self.late_failures.note(frame_id, kind, message)
        self.counts["nLost"] += len(rows.ids)

    # -- what it reports ------------------------------------------------------------------------

    def _all_rows(self) -> list[Rows]:
        found = (self._sending, *self._ready, self._filling)
        return [rows for rows in found if rows is not None]

    def unfinished(self) -> IdSet:
        """Ids of frames that the server has not acknowledged."""
        with self._changed:
            return IdSet(sorted({one for rows in self._all_rows() for one in rows.ids}))

    COUNTERS = ("nStored", "nBatches", "nRetries", "nLost")

    def getStats(self) -> dict[str, Any]:
        with self._changed:
            queued = sum(len(rows.ids) for rows in self._all_rows())
        path = self._run.path if self._run is not None else ""
        return {**self.counts, "nQueued": queued, "container": path}

    def getStatsPvaTypes(self) -> dict[str, object]:
        types = super().getStatsPvaTypes()
        return {**types, "nQueued": pva.ULONG, "container": pva.STRING}


def _number(value: object) -> float:
    """A value of an attribute; NaN for what is no number."""
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return float(value)
    return float("nan")


def _ascending(ids: list[int]) -> list[IdSet]:
    """Ids in their order, as sets within which they ascend: ids may start again."""
    found: list[IdSet] = []
    last: int | None = None
    for one in ids:
        if last is None or one <= last:
            found.append(IdSet())
        found[-1].add(one)
        last = one
    return found
