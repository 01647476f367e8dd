"""An acquisition that the writer's settings ask for, instead of REST."""

from __future__ import annotations

import contextlib
import time

from pvapy_stream.daq.states import Phase
from pvapy_stream.daq.writer import AcquisitionWriter
from pvapy_stream.errors import ConflictError


class Plan:
    """Begins what the settings ask for, if they do, and ends it after its time.

    Args:
        writer: which writes it.
    """

    def __init__(self, writer: AcquisitionWriter) -> None:
        self._writer = writer
        self._end_at: float | None = None
        self._seconds = writer.settings.seconds

    def begin(self) -> None:
        """Begin.

        Raises:
            PvapyStreamError: the file or the stream cannot be opened.
        """
        settings = self._writer.settings
        if settings.start is None:
            return
        pulse_id = settings.start if isinstance(settings.start, int) else None
        self._writer.start(
            pulse_id, stop_pulse_id=settings.stop_pulse_id, oldest=settings.start == "first"
        )

    def look(self) -> None:
        """End it when its time is over; call about ten times a second."""
        if not self._seconds or self._writer.current.phase is not Phase.WRITING:
            return
        now = time.monotonic()
        if self._end_at is None:
            self._end_at = now + self._seconds
        elif now >= self._end_at:
            self._seconds = 0.0
            # Somebody else may just have ended it.
            with contextlib.suppress(ConflictError):
                self._writer.current.stop(None)
