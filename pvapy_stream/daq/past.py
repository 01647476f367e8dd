"""Images of a channel that are kept in memory, so that an acquisition may begin in the past."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from pvapy_stream.bsread.image_messages import ImageMessage
from pvapy_stream.daq.cursor import Gone, RangeCursor
from pvapy_stream.daq.frame_source import ImageFollower
from pvapy_stream.daq.ring import Ring, RingLimits
from pvapy_stream.pva.lazy import StreamObject

_OVERHEAD = 2000  # bytes that Python and the ring take for an image beside its own


class KeptImage(NamedTuple):
    """An image in the ring; one without a time has that of its arrival."""

    pulse_id: int
    timestamp_ns: int
    cost: int
    message: ImageMessage


class ImagePast(ImageFollower):
    """Keeps the newest images of a channel, from now on until `stop`.

    Args:
        stream: ``MODE://CHANNEL``.
        id_field: field that becomes the pulse id.
        limits: how much is kept.

    Attributes:
        ring: the images; to be read with `changed` held, which is notified when one comes.
        heard: when the last one came, s on a clock that does not go back.
    """

    def __init__(self, stream: str, id_field: str, limits: RingLimits) -> None:
        super().__init__(stream, id_field)
        self.ring = Ring[KeptImage](limits)
        self.changed = threading.Condition()
        self.heard = float("-inf")
        self.start()

    def _take(self, obj: StreamObject, pulse_id: int) -> bool:
        message = self.message(obj, pulse_id)
        kept = KeptImage(
            pulse_id, message.timestamp_ns or time.time_ns(), message.nbytes + _OVERHEAD, message
        )
        with self.changed:
            self.heard = time.monotonic()
            self.ring.append(kept, self.heard)
            self.changed.notify_all()
        return True


class PastFeed:
    """A range of the images that are kept, and of those to come: a `Feed`.

    Args:
        address: of the stream.
        past: keeps its images.
        start: first pulse id; None: the next that comes.
        stop: the last one; None when it is not known yet.
    """

    def __init__(self, address: str, past: ImagePast, start: int | None, stop: int | None) -> None:
        self.address = address
        self._past = past
        self._errors_before = past.errors
        with past.changed:
            self._cursor = RangeCursor(past.ring, "pulse_id", start, stop)

    @property
    def n_errors(self) -> int:
        return self._past.errors - self._errors_before

    @property
    def last_error(self) -> str:
        return self._past.last_error

    @property
    def newest(self) -> int | None:
        return self._past.ring.pulses.newest

    @property
    def finished(self) -> bool:
        return self._cursor.finished

    @property
    def silent(self) -> float:
        return time.monotonic() - self._past.heard

    def read(self, timeout: float) -> ImageMessage | None:
        with self._past.changed:
            message = self._next()
            if message is None and not self.finished:
                self._past.changed.wait(timeout)
                message = self._next()
        return message

    def _next(self) -> ImageMessage | None:
        # What is gone is found missing by the acquisition.
        while isinstance(item := self._cursor.take(time.monotonic()), Gone):
            pass
        return None if item is None else item.message

    def stop_at(self, pulse_id: int) -> None:
        with self._past.changed:
            self._cursor.set_stop(pulse_id)

    def close(self) -> None:
        """Nothing: the images are kept for others."""
