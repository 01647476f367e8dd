"""The plugin: records that clients put to, and the captures that they control."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pvapy_stream.areadetector.capture import Capture
from pvapy_stream.areadetector.follower import PluginReceiving
from pvapy_stream.areadetector.memory import Memory
from pvapy_stream.areadetector.plugin_records import CODECS, FIELDS, TEMPORARY, Value
from pvapy_stream.areadetector.record_values import PluginDisplay
from pvapy_stream.areadetector.records import MAJOR, MINOR, NO_ALARM, Record, Records
from pvapy_stream.areadetector.target import Target
from pvapy_stream.errors import FileError, ObjectError, PvapyStreamError
from pvapy_stream.files.disk import check_no_part
from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.pva.net.server import Server
from pvapy_stream.pva.net.server_channel import Put
from pvapy_stream.pva.wire.status import OK, Status
from pvapy_stream.settings import AdWriterSettings
from pvapy_stream.signals import Stop
from pvapy_stream.streams.receiving import Unusable
from pvapy_stream.streams.stream_settings import SubscriptionSettings

_TICK = 0.2  # s; between two looks at counts
_FLUSH_EVERY = 0.03  # s; at least, when nothing waits
_OPENS = 30.0  # s; a receiver has started within this
_ENDS = 10.0  # s; and ends within this

_log = logging.getLogger(__name__)


class Plugin:
    """Serves the records, and writes captures.

    Args:
        settings: what was asked for.
        server: takes the channels.
        version: of this package.
        may_put: whether a client may put, by its user name and address.
        say: gets a line for each capture that is over.

    Attributes:
        records: what clients see.
        problems: what went wrong, a line for each capture.
    """

    def __init__(
        self,
        settings: AdWriterSettings,
        server: Server,
        version: str,
        may_put: Callable[[str, str], bool],
        say: Callable[[str], None],
    ) -> None:
        self.problems: list[str] = []
        self._settings = settings
        self._say = say
        self._puts: queue.SimpleQueue[tuple[Record, Put]] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._target = Target(Path(settings.folder))
        self._memory = Memory(self._target.root, settings.prefix)
        self._follower = PluginReceiving(
            SubscriptionSettings.of(
                channel=settings.input_channel,
                mode=settings.input_mode,
                queue_size=settings.queue_size,
                timeout=None,
            )
        )
        self._opening: Frame | None = None  # shows how images are
        self._capture: Capture | None = None
        self._waiting: list[Put] = []  # for the end of the capture
        self._path_problem = ""
        self._n_captures = 0
        self._flushed_at = self._looked_at = 0.0
        self._dropped = self._counted = self._n_items = 0
        self.records = Records(settings.prefix, FIELDS, server, self._on_put, may_put)
        self._display = PluginDisplay(self.records)
        self._actions: dict[str, Callable[[Any], None]] = {
            "FilePath": self._set_path,
            "CreateDirectory": lambda value: self._set("CreateDirectory", value),
            "FlushNow": lambda value: self._flush_all() if value else None,
        }
        self._begin(version)

    def _set(self, name: str, value: Value, severity: int = NO_ALARM, message: str = "") -> None:
        self.records.set(name, value, severity, message)

    def _begin(self, version: str) -> None:
        self._set("DriverVersion_RBV", version)
        self._set("PortName_RBV", self._settings.prefix.strip(":"))
        self._set("NDArrayPort", self._settings.input_channel)
        self._set("QueueSize", self._settings.queue_size)
        self._set("QueueFree", self._settings.queue_size)
        self._set("Compression", {v: k for k, v in CODECS.items()}[self._settings.compression])
        self._set_path(str(self._target.root))
        if lost := self._memory.unfinished():
            # Whoever waited for that capture must not take this for its good end.
            self._set("FullFileName_RBV", str(lost))
            self._display.problem(
                f"the writer was ended while it wrote {lost}; complete the file with: pvapy-stream"
                f" verify --repair {lost}{TEMPORARY}"
            )

    # -- the server's thread ---------------------------------------------------------------------

    def _on_put(self, record: Record, put: Put) -> None:
        self._puts.put((record, put))
        self._wake.set()

    # -- the thread of `run` ---------------------------------------------------------------------

    def run(self, stop: Stop) -> None:
        """Serve until `stop` is set; then finish the capture with what was received.

        Raises:
            TransportError: the channel cannot be received.
        """
        self._follower.start()
        try:
            self._follower.opened.result(_OPENS)
            while not stop.is_set():
                self._work()
                failure = self._follower.failure
                if failure is not None and self._follower.failed:
                    raise failure
                self._rest()
        finally:
            self._finish(drain=not stop.hurry.is_set())
            self._follower.end_soon()
            self._follower.ended.result(_ENDS)
            self._follower.join()

    def _work(self) -> None:
        while True:
            self._take_puts()
            self._look()
            if not self._take_image():
                break
        capture = self._capture
        if capture is not None and capture.unflushed:
            self._flush_if_due(capture)

    def _rest(self) -> None:
        """Wait for an image or a put."""
        pending = self._capture is not None and self._capture.unflushed
        self._wake.clear()
        if not self._puts.empty() or not self._follower.queue.add_waiter(self._wake.set):
            return
        self._wake.wait(_FLUSH_EVERY if pending else _TICK)
        self._follower.queue.remove_waiter(self._wake.set)

    def _take_puts(self) -> None:
        while not self._puts.empty():
            record, put = self._puts.get()
            if not put.claim():
                continue
            try:
                done = self._apply(record.field.name, record.read(put), put.waits)
            except PvapyStreamError as error:
                _log.warning("a put is refused: %s", error)
                record.alarm(str(error))
                put.finish(Status.error(str(error)))
            except Exception as error:
                # Nothing that a client puts may end the program.
                _log.exception("a put to %s", record.channel.name)
                put.finish(Status.error(f"{type(error).__name__}: {error}"))
            else:
                if done:
                    put.finish(OK)
                else:
                    self._waiting.append(put)

    def _apply(self, name: str, value: Any, waits: bool) -> bool:
        """Do what a put says; False if it is over with the capture only."""
        if name == "Capture":
            if not value:
                self._finish()
                return True
            if self._capture is None:
                self._start()
            return not waits or self._capture is None
        if (action := self._actions.get(name)) is not None:
            action(value)
        else:
            if isinstance(value, int) and value < 0:
                raise ObjectError(f"{self._settings.prefix}{name} cannot be negative")
            self._set(name, value)
        return True

    # -- files -----------------------------------------------------------------------------------

    def _set_path(self, text: str) -> None:
        try:
            path, good = self._target.path(text, self.records["CreateDirectory"])
        except FileError as error:
            # What is written after this must not go to the folder before.
            self._path_problem = str(error)
            self._set("FilePathExists_RBV", 0, MAJOR, str(error))
            raise
        self._path_problem = "" if good else f"{path} does not exist, or cannot be written to"
        self._set("FilePath", path)
        self._set("FilePathExists_RBV", int(good), NO_ALARM if good else MAJOR, self._path_problem)

    def _start(self) -> None:
        """Begin a capture.

        Raises:
            PvapyStreamError: there is no file for it.
        """
        records, settings = self.records, self._settings
        # What came before is not part of it. Clients trigger when they see that it has begun.
        for _ in range(len(self._follower.queue)):
            self._take_image()
        self._take_shown()
        self._set("NumCaptured_RBV", 0)
        self._counted = 0
        try:
            if self._path_problem:
                raise FileError(self._path_problem)
            path = self._target.file(
                records["FileTemplate"], records["FilePath"], records["FileName"],
                records["FileNumber"],
            )  # fmt: skip
            if os.path.lexists(path):
                raise FileError(f"{path} exists, and is not replaced; give another name")
            check_no_part(path)
            if not path.parent.is_dir():
                raise FileError(f"the folder {path.parent} does not exist; set FilePath to it")
            self._memory.begin(path)
            self._capture = capture = Capture(
                path,
                self._target.root,
                compression=CODECS[records["Compression"]],
                channel=settings.input_channel,
                live=not records["TempSuffix"],
                gaps=settings.allow_gaps,
                changed=self._count,
            )
            if not records["LazyOpen"]:
                self._open(capture)
        except PvapyStreamError as error:
            self._give_up()
            self._display.problem(str(error))
            raise
        if records["AutoIncrement"]:
            self._set("FileNumber", records["FileNumber"] + 1)
        self._set("FullFileName_RBV", str(path))
        self._set("WriteMessage", "")
        self._set("WriteStatus", 0)
        self._dropped = self._follower.queue.dropped
        self._n_captures += 1
        self._set("Capture", 1, MINOR, "capturing")

    def _open(self, capture: Capture) -> None:
        if self._opening is None:
            raise FileError(
                f"no image of {self._settings.input_channel} has shown their shape yet; start the"
                " source, or set LazyOpen"
            )
        capture.begin(self._opening)

    def _give_up(self) -> None:
        """End a capture that has not begun."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.close()
        self._memory.end()

    def _finish(self, drain: bool = True) -> None:
        """End the capture, if there is one, with what was received until now."""
        if drain:
            for _ in range(len(self._follower.queue)):
                if self._capture is None:
                    break
                self._take_image()
        if self._capture is not None:
            self._end()

    def _end(self) -> None:
        capture, self._capture = self._capture, None
        assert capture is not None  # noqa: S101 - callers look
        self._look_at_drops(capture)
        capture.close()
        self._memory.end()
        self._display.end(capture)
        line = f"capture {self._n_captures}: {capture.saved} images, {capture.path}"
        if capture.problem:
            self.problems.append(f"{line}: {capture.problem}")
        else:
            self._say(line)
        self._set("Capture", 0)
        status = Status.error(capture.problem) if capture.problem else OK
        waiting, self._waiting = self._waiting, []
        for put in waiting:
            put.finish(status)

    # -- images ----------------------------------------------------------------------------------

    def _take_image(self) -> bool:
        """Take an image from the queue; False if none waits."""
        item = self._follower.queue.take()
        if item is None:
            return False
        self._n_items += 1
        if not self.records["EnableCallbacks"]:
            return True
        self._counted += 1
        try:
            if isinstance(item, Unusable):
                raise ObjectError(str(item.error))
            frame = frame_of(item)
        except PvapyStreamError as error:
            if self._capture is not None:
                self._capture.fail(f"an object is lost: {error}")
            return True
        self._opening = frame
        capture = self._capture
        if capture is None:
            return True
        capture.take(frame)
        every = self.records["NumFramesFlush"]
        if every and capture.unflushed >= every:
            capture.flush()
        limit = self.records["NumCapture"]
        if capture.over or (limit and capture.taken >= limit):
            self._end()
        return True

    def _take_shown(self) -> None:
        follower = self._follower
        shown, follower.shown = follower.shown, None
        # An image that was taken since then shows it better.
        if shown is not None and self._n_items + follower.queue.dropped <= follower.shown_after:
            try:
                self._opening = frame_of(shown)
            except PvapyStreamError:
                return

    def _flush_all(self) -> None:
        """Flush what was received until now."""
        for _ in range(len(self._follower.queue)):
            self._take_image()
        if self._capture is not None:
            self._capture.flush()

    def _flush_if_due(self, capture: Capture) -> None:
        now = time.monotonic()
        if now - self._flushed_at >= _FLUSH_EVERY:
            capture.flush()
            self._flushed_at = time.monotonic()
            if capture.over:
                self._end()

    # -- what is shown ---------------------------------------------------------------------------

    def _count(self) -> None:
        """The capture has changed; called from any thread."""
        if (capture := self._capture) is not None:
            self._display.capture(capture)

    def _look_at_drops(self, capture: Capture) -> None:
        dropped = self._follower.queue.dropped
        if dropped != self._dropped:
            gone, self._dropped = dropped - self._dropped, dropped
            capture.fail(f"{gone} images were dropped, since {self._settings.queue_size} waited")

    def _look(self) -> None:
        """Show counts and the form of images, some times a second."""
        now = time.monotonic()
        since = now - self._looked_at
        if since < _TICK:
            return
        self._looked_at = now
        self._take_shown()
        follower, capture = self._follower, self._capture
        if capture is not None:
            self._look_at_drops(capture)
            self._display.capture(capture)
        waiting = len(follower.queue)
        self._set("QueueUse", waiting)
        self._set("QueueFree", max(0, self._settings.queue_size - waiting))
        self._set("DroppedArrays_RBV", follower.queue.dropped + follower.arrivals.missed)
        counted, self._counted = self._counted, 0
        if counted:
            self._set("ArrayCounter", self.records["ArrayCounter"] + counted)
        self._set("ArrayRate_RBV", round(counted / since, 1))
        if self._opening is not None:
            self._display.image(self._opening)
