"""Statistics of images on channels."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from pvapy_stream.base_settings import opt
from pvapy_stream.errors import (
    MissingExtraError,
    MonitorError,
    PvapyStreamError,
    TransportError,
)
from pvapy_stream.frame import Frame
from pvapy_stream.monitor.base import Clock, Sample, SamplingMonitor
from pvapy_stream.monitor.kinds import MonitorKind
from pvapy_stream.monitor.outbox import Notifier
from pvapy_stream.monitor.pictures import to_png
from pvapy_stream.monitor.series_store import SeriesStore
from pvapy_stream.pva.lazy import StreamObject, frame_of
from pvapy_stream.pva.newest import Newest
from pvapy_stream.settings import MonitorSettings
from pvapy_stream.settings.text_types import Names
from pvapy_stream.transport.pva import MonitorReceiver

_GET_TIMEOUT = 3.0  # s
_KEPT = 1000  # statistics that wait for the next sample

_log = logging.getLogger(__name__)


class ImageSettings(MonitorSettings):
    """Statistics of images on channels."""

    QUANTITIES: ClassVar[Mapping[str, str]] = {
        "min": "",
        "max": "",
        "mean": "",
        "std": "",
        "saturated": "pixels",
        "age": "s",
    }

    image_channels: Annotated[
        Names, opt("-ic --image-channel", "Images", metavar="NAME", many=True)
    ] = Field(min_length=1, description="channels with images")
    every: Annotated[int, opt("--every", "Images", metavar="N")] = Field(
        0,
        ge=0,
        description=(
            "analyse every Nth image, which requires receiving all; 0: the newest one, once a"
            " sampling interval"
        ),
    )
    saturation: Annotated[float | None, opt("--saturation", "Images", metavar="N")] = Field(
        None, description="value from which a pixel is saturated; default: the largest of the type"
    )
    sampling_interval: Annotated[
        float, opt("-si --sampling-interval", "Monitor", "s", metavar="T")
    ] = Field(5, gt=0, description="time between samples")


def statistics(image: np.ndarray, saturation: float | None = None) -> dict[str, float]:
    """Least, largest and mean value, spread, and number of saturated pixels; of finite pixels.

    Args:
        image: array of any shape.
        saturation: from this value on a pixel is saturated; the type's largest when None, and
            none are for floats.
    """
    good = image if image.dtype.kind in "iub" else image[np.isfinite(image)]
    if not good.size:
        return {**dict.fromkeys(("min", "max", "mean", "std"), math.nan), "saturated": 0.0}
    if saturation is None and image.dtype.kind in "iu":
        saturation = float(np.iinfo(image.dtype).max)
    return {
        "min": float(good.min()),
        "max": float(good.max()),
        "mean": float(good.mean(dtype=np.float64)),
        "std": float(good.std(dtype=np.float64)),
        "saturated": 0.0 if saturation is None else float(np.count_nonzero(good >= saturation)),
    }


class ImageMonitor(SamplingMonitor):
    """Looks at the newest image once an interval, or at every Nth."""

    kind = "image"

    def __init__(
        self,
        settings: ImageSettings,
        store: SeriesStore | None = None,
        notifiers: Iterable[Notifier] = (),
        clock: Clock | None = None,
    ) -> None:
        super().__init__(settings, store, notifiers, clock)
        self._saturation = settings.saturation
        self._channels = [
            _Every(self, name, settings.every) if settings.every else _Newest(self, name)
            for name in settings.image_channels
        ]
        self._draws = store is not None

    def end_loop(self) -> None:
        for channel in self._channels:
            channel.stop()
        super().end_loop()

    def sample(self) -> list[Sample]:
        samples: list[Sample] = []
        for channel in self._channels:
            try:
                samples += channel.sample()
            except PvapyStreamError as error:
                self.note_problem(str(error))
        return samples

    def of_frame(self, channel: str, frame: Frame) -> list[Sample]:
        """Samples of one frame."""
        now = self.clock.wall()
        taken = frame.time_ns / 1e9 or now
        values = {**statistics(frame.image, self._saturation), "age": now - taken}
        units = ImageSettings.QUANTITIES
        return [Sample(channel, name, value, units[name], now) for name, value in values.items()]

    def draw(self, channel: str, frame: Frame) -> None:
        """Keep a picture of a frame for reports."""
        if self.store is None or not self._draws:
            return
        try:
            png = to_png(frame.image, log=True)
        except MissingExtraError as error:
            self._draws = False
            _log.info("images cannot be stored: %s", error)
            return
        size = "x".join(map(str, frame.image.shape))
        caption = f"id {frame.id}, {size} {frame.dtype}"
        self.store.add_image(self.name, channel, png, caption, self.clock.wall())


class _Newest:
    """Asks for the newest image when a sample is due."""

    def __init__(self, monitor: ImageMonitor, name: str) -> None:
        self._monitor = monitor
        self._name = name
        self._newest = Newest(name)

    def sample(self) -> list[Sample]:
        try:
            obj = self._newest.get(_GET_TIMEOUT)
        except TransportError as error:
            raise MonitorError(
                f"channel {self._name} does not answer ({error}); check its name and"
                " EPICS_PVA_ADDR_LIST"
            ) from error
        frame = frame_of(obj)
        if not frame.has_image:
            return []
        self._monitor.draw(self._name, frame)
        return self._monitor.of_frame(self._name, frame)

    def stop(self) -> None:
        self._newest.close()


class _Every:
    """Receives all images and looks at every Nth."""

    def __init__(self, monitor: ImageMonitor, name: str, every: int) -> None:
        self._monitor = monitor
        self._name = name
        self._every = every
        self._n = 0
        self._waiting: list[Sample] = []
        self._picture: Frame | None = None
        self._problem = ""
        self._lock = threading.Lock()
        self._receiver = MonitorReceiver(name)
        self._receiver.start(self._take)

    def _take(self, obj: StreamObject) -> None:
        self._n += 1
        if self._n % self._every:
            return
        try:
            frame = frame_of(obj)
            if not frame.has_image:
                return
            found = self._monitor.of_frame(self._name, frame)
            picture = Frame.of(frame.id, np.array(frame.image))
        except PvapyStreamError as error:
            self._problem = str(error)
            return
        with self._lock:
            if len(self._waiting) < _KEPT:
                self._waiting += found
            self._picture = picture

    def sample(self) -> list[Sample]:
        self._receiver.keep_up()
        with self._lock:
            waiting, self._waiting = self._waiting, []
            picture, self._picture = self._picture, None
            problem, self._problem = self._problem, ""
        if problem:
            self._monitor.note_problem(f"channel {self._name}: {problem}")
        elif not self._receiver.connected:
            raise MonitorError(f"channel {self._name} is not connected; waiting for it")
        if picture is not None:
            self._monitor.draw(self._name, picture)
        return waiting

    def stop(self) -> None:
        self._receiver.stop()


MONITOR = MonitorKind(
    "image", ImageSettings, ImageMonitor, "statistics of images on channels", rank=40
)
