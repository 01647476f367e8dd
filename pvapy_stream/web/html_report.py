"""The report: one page that opens without a network, written anew each interval."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pvapy_stream.errors import MonitorError, PvapyStreamError, SettingsError
from pvapy_stream.monitor.base import Clock, Monitor, SamplingMonitor
from pvapy_stream.monitor.channel_names import ChannelFinder
from pvapy_stream.monitor.image_monitor import ImageMonitor, ImageSettings
from pvapy_stream.monitor.series_reader import SeriesReader
from pvapy_stream.monitor.series_store import SeriesStore
from pvapy_stream.monitor.stages import StageWatch
from pvapy_stream.monitor.streams_monitor import StreamsMonitor, StreamsSettings
from pvapy_stream.monitor.system_monitor import SystemMonitor, SystemSettings
from pvapy_stream.settings import ReportSettings
from pvapy_stream.web.content import gather, read_audits
from pvapy_stream.web.render import Renderer

_FIRST_LOOK = 5.0  # s
_FOR_RATES = 2.5  # s
_PUBLISH_TIMEOUT = 120.0  # s
_AUDIT_PATIENCE = 120.0  # s; from the end of the stages until their run is audited
_SERIES_PATIENCE = 10.0  # s; a monitor may be starting

_log = logging.getLogger(__name__)


def _opened(file: str, patience: float) -> SeriesReader:
    """The series of a monitor, which may be on the point of making its file."""
    end = time.monotonic() + patience
    while True:
        try:
            return SeriesReader(file)
        except MonitorError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.1)


class ReportMonitor(Monitor):
    """Looks at stages, images and this machine, and writes a page of it and of given series.

    Args:
        settings: what was asked for.
        clock: where time comes from.

    Raises:
        PvapyStreamError: a template, command, file or channel that cannot be used.
    """

    def __init__(self, settings: ReportSettings, clock: Clock | None = None) -> None:
        super().__init__(
            working_dir=Path(settings.output).parent,
            sampling_interval=settings.interval,
            monitor_time=settings.monitor_time,
            clock=clock,
        )
        self.settings = settings
        self._output = Path(settings.output)
        self._audit = Path(settings.audit) if settings.audit else None
        # The audit of a run that had ended before is of another.
        self._began = 0.0 if settings.once else time.time()
        self._ended_at = 0.0
        self._renderer = Renderer(settings.template)
        self._publisher = (
            ReportPublisher(settings.publish, self._output) if settings.publish else None
        )
        patience = 0.0 if settings.once else _SERIES_PATIENCE
        self._readers = [_opened(file, patience) for file in settings.series]
        self._watch = StageWatch(ChannelFinder(settings))
        self._has_stages = bool(settings.status_channels or settings.workflow)
        self._own = ExitStack()
        self._monitors: list[SamplingMonitor] = []

    def init_loop(self) -> None:
        folder = self._own.enter_context(tempfile.TemporaryDirectory(prefix="pvapy-stream-"))
        store = SeriesStore(Path(folder) / "series.sqlite")
        self._own.callback(store.close)
        self._monitors = self._make_monitors(store)
        self._readers.append(SeriesReader(store.path))
        self._watch.start()
        self._own.callback(self._watch.stop)
        if self._has_stages and self._watch.wait_for_all(_FIRST_LOOK) and self.settings.once:
            # For rates; a page that is written again gets them with the next version.
            self._watch.wait_for_all(_FOR_RATES, statuses=3)

    def _make_monitors(self, store: SeriesStore) -> list[SamplingMonitor]:
        settings, made = self.settings, list[SamplingMonitor]()
        common: dict[str, Any] = {"sampling_interval": settings.interval}
        if self._has_stages:
            # The watch knows the channels.
            streams = StreamsSettings.of(status_channels="-", **common)
            made.append(StreamsMonitor(streams, store, clock=self.clock, watch=self._watch))
        if settings.image_channels:
            images = ImageSettings.of(image_channels=settings.image_channels, **common)
            made.append(ImageMonitor(images, store, clock=self.clock))
        if self._has_stages:
            made.append(SystemMonitor(SystemSettings.of(**common), store, clock=self.clock))
        return made

    def step(self) -> bool:
        for monitor in self._monitors:
            monitor.step()
        views = self._watch.views()
        ended = bool(views) and all(view.ended for view in views)
        try:
            self.write("FINISHED" if ended else "RUNNING")
        except PvapyStreamError as error:
            self.note_problem(str(error))
        return (ended and not self._awaits_audit()) or self.settings.once

    def _awaits_audit(self) -> bool:
        """Whether the stages have ended and their audit is yet to come."""
        if self._audit is None or read_audits(self._audit, self._began):
            return False
        self._ended_at = self._ended_at or time.monotonic()
        return time.monotonic() - self._ended_at < _AUDIT_PATIENCE

    def end_loop(self) -> None:
        try:
            if not self.settings.once:
                self.write("FINISHED")
        except PvapyStreamError as error:
            self.note_problem(str(error))
        finally:
            if self._publisher:
                self._publisher.close()
            for reader in self._readers:
                reader.close()
            self._own.close()

    def problem(self) -> str:
        """Why the run must not count as a success, or ""."""
        if self.n_failures:
            return f"{self.n_failures} failures, the last: {self.last_failure}"
        if self._publisher and self._publisher.last_error:
            return f"the report could not be published: {self._publisher.last_error}"
        return ""

    def write(self, state: str) -> None:
        """Write the page; a reader never sees half of it.

        Raises:
            MonitorError: the template fails, or the page cannot be written; the old one stays.
        """
        settings = self.settings
        own = self._readers[-1]
        content = gather(self._watch.views(), self._readers, 3600 * settings.span, own)
        if not self._has_stages:
            # The monitors whose series are shown report whether there is more to come.
            running = any(one["state"] == "RUNNING" for one in content["monitors"])
            state = "RUNNING" if running else "FINISHED"
        if self._audit is not None:
            content["audits"] = read_audits(self._audit, self._began)
        content |= {
            "state": state,
            "title": settings.title,
            "refresh": 0 if settings.once else max(1, round(settings.interval)),
        }
        write_whole(self._output, self._renderer.render(content))
        if self._publisher:
            self._publisher.publish()


def write_whole(file: Path, text: str) -> None:
    """Replace a file in one step.

    Raises:
        MonitorError: it cannot be written; the file is as it was.
    """
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise MonitorError(
            f"cannot write the report {file}: {error.strerror}; the previous version is unchanged"
        ) from error


class ReportPublisher:
    """Runs a command after each version, in a thread; a version that comes too soon is left out.

    Raises:
        SettingsError: the command cannot be understood.
    """

    def __init__(self, command: str, output: Path) -> None:
        path = output.absolute()
        names = {"REPORT_FOLDER": str(path.parent), "REPORT_PATH": str(path)}
        try:
            self._words = [word % names for word in shlex.split(command)]
        except (ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"--publish: {command!r} is invalid ({error}); use %(REPORT_FOLDER)s and"
                " %(REPORT_PATH)s, and write %% for a %"
            ) from error
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._is_running = False
        self._is_newer = False
        self.last_error = ""  # of the last version

    def publish(self) -> None:
        """Begin to run the command, unless it is still running: then it is run again after that."""
        with self._lock:
            self._is_newer = True
            if self._is_running:
                return
            self._is_running = True
        self._thread = threading.Thread(target=self._run, name="publish", daemon=True)
        self._thread.start()

    def _take(self) -> bool:
        """Whether there is a version that the command has not been run for."""
        with self._lock:
            self._is_running, self._is_newer = self._is_newer, False
            return self._is_running

    def _run(self) -> None:
        disturbed = False
        while self._take():
            error = self._command()
            # The page was replaced while the command read it: it may find the new one whole.
            disturbed = bool(error) and self._is_newer and not disturbed
            if disturbed:
                continue
            if error and error != self.last_error:
                _log.error("the report could not be published: %s", error)
            self.last_error = error

    def _command(self) -> str:
        """Run the command; why it failed, or ""."""
        try:
            subprocess.run(
                self._words,
                check=True,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=_PUBLISH_TIMEOUT,
            )
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or b""
            return f"{error} {said.decode(errors='replace').strip()[-200:]}".strip()
        return ""

    def close(self) -> None:
        """Wait until the last version is out."""
        if self._thread is not None:
            # The command may run for the version before, and then once more.
            self._thread.join(2 * _PUBLISH_TIMEOUT + 1)
