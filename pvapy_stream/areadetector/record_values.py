"""What the records show of captures and images."""

from __future__ import annotations

import threading

from pvapy_stream.areadetector.capture import Capture
from pvapy_stream.areadetector.image_layout import ImageForm
from pvapy_stream.areadetector.records import MAJOR, Records
from pvapy_stream.frame import Frame


class PluginDisplay:
    """Shows captures, from any thread, and images, from one.

    Args:
        records: where they are shown.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._form: ImageForm | None = None
        self._lock = threading.Lock()

    def capture(self, capture: Capture) -> None:
        """Show what a capture has."""
        records = self._records
        # One after the other: an older count must not follow a newer one.
        with self._lock:
            if capture.problem:
                self.problem(capture.problem)
            # Before the count: what is counted can be read.
            records.set("SWMRActive_RBV", int(capture.has_file))
            records.set("SWMRCbCounter_RBV", capture.n_flushes)
            records.set("NumCaptured_RBV", capture.count)

    def problem(self, problem: str) -> None:
        """Show that something is lost."""
        self._records.set("WriteMessage", problem, MAJOR, problem)
        self._records.set("WriteStatus", 1, MAJOR, problem)

    def end(self, capture: Capture) -> None:
        """Show a capture that is over."""
        records = self._records
        self.capture(capture)
        records.set("SWMRActive_RBV", 0)
        records.set("RunTime", capture.runtime)
        if capture.runtime:
            records.set("IOSpeed", capture.n_bytes * 8e-6 / capture.runtime)
        if not capture.has_file:
            records.set("FullFileName_RBV", "")

    def image(self, frame: Frame) -> None:
        """Show how images are, by the newest."""
        records = self._records
        form = ImageForm.of(frame)
        if form != self._form:
            self._form = form
            for name, value in form.values().items():
                records.set(name, value)
            records.set("NDAttributesFile", form.attributes)
        records.set("UniqueId_RBV", frame.id)
        records.set("TimeStamp_RBV", frame.time_ns / 1e9)
