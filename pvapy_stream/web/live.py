"""What the live page shows: the stages now, their recent past, alarms, images."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections import deque
from typing import Any

import msgspec

from pvapy_stream.errors import MonitorError, TransportError
from pvapy_stream.monitor.alarms import AlarmEvent
from pvapy_stream.monitor.channel_names import ChannelFinder, unique, with_ids
from pvapy_stream.monitor.pictures import to_png
from pvapy_stream.monitor.stages import StageView, StageWatch, labels, last_in_chain, lost_once
from pvapy_stream.monitor.streams_monitor import StreamsMonitor, StreamsSettings
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.pva.newest import Newest
from pvapy_stream.settings import DashboardSettings

_EVENTS = 50
# Rates are judged over this time, s: an error now and then must not come and go as an alarm.
_JUDGE_PERIOD = 5.0
_IMAGE_TIMEOUT = 2.0  # s
_IMAGE_KEPT = 0.5  # s; how long a picture serves all who ask
_IMAGES_KEPT = 32
_SIDE = 640  # pixels

_log = logging.getLogger(__name__)


class LiveBoard:
    """Looks at the stages every refresh and keeps the answer, ready to be sent to any number.

    Attributes:
        version: grows with each look.
        state: the answer, JSON.

    Args:
        settings: what was asked for.

    Raises:
        PvapyStreamError: a pattern or a workflow file that cannot be used.
    """

    def __init__(self, settings: DashboardSettings) -> None:
        self._settings = settings
        self._watch = StageWatch(ChannelFinder(settings))
        rules = StreamsSettings.of(status_channels="-", series="", alarms=settings.alarms)
        self._judge = StreamsMonitor(rules, watch=self._watch)
        self._judge_due = 0.0
        self._events: deque[dict[str, object]] = deque(maxlen=_EVENTS)
        kept = max(2, round(60 * settings.history / settings.refresh))
        self._times: deque[float] = deque(maxlen=kept)
        self._series: dict[str, dict[str, deque[float | None]]] = {}
        self._kept = kept
        self._active: dict[tuple[str, str], dict[str, object]] = {}
        self._pictures: dict[tuple[str, str, bool], tuple[float, bytes]] = {}
        self._channels: dict[str, Newest] = {}
        self._picture_lock = threading.Lock()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-board", daemon=True)
        self.views: dict[str, StageView] = {}
        self.version = 0
        self.state = b"{}"

    def start(self) -> None:
        """Begin to look."""
        self._watch.start()
        self._look()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._watch.stop()

    @property
    def stopped(self) -> bool:
        """Whether there will be no more news."""
        return self._stop.is_set()

    def _run(self) -> None:
        refresh = self._settings.refresh
        due = time.monotonic() + refresh
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + refresh, time.monotonic())
            try:
                self._look()
            except Exception:
                _log.exception("the state of the stages could not be read")

    def _look(self) -> None:
        now = time.time()
        views = self._watch.views()
        if time.monotonic() >= self._judge_due:
            self._judge_due = time.monotonic() + _JUDGE_PERIOD
            for event in self._judge.judge(self._judge.sample()):
                self._note(event, now)
        with self._lock:
            self.views = {view.channel: view for view in views}
            self._remember(views, now)
        plain = {
            "time": now,
            "stages": [
                {**view.to_dict(), "label": label, "control": self.control_channel(view)}
                for view, label in zip(views, labels(views), strict=True)
            ],
            "out": [view.channel for view in last_in_chain(views)],
            "missed": lost_once(views),
            "active": list(self._active.values()),
            "events": list(self._events),
            "images": self.image_channels(),
        }
        self.state = msgspec.json.encode(plain, enc_hook=str)
        self.version += 1

    def _note(self, event: AlarmEvent, now: float) -> None:
        plain = {
            "time": now, "subject": event.subject, "change": event.change,
            "message": event.message,
        }  # fmt: skip
        key = event.subject, str(event.rule)
        if event.change == "leave":
            self._active.pop(key, None)
        elif event.change == "enter":
            self._active[key] = plain
        self._events.appendleft(plain)

    def _remember(self, views: list[StageView], now: float) -> None:
        before = len(self._times)
        self._times.append(now)
        for view in views:
            series = self._series.get(view.channel)
            if series is None:
                series = self._series[view.channel] = {
                    name: deque([None] * before, self._kept) for name in _SERIES
                }
            for name, value in _points(view).items():
                series[name].append(value)

    def history(self) -> bytes:
        """The recent past, JSON."""
        with self._lock:
            kept = {"times": self._times, "stages": self._series, "keep": self._kept}
            return msgspec.json.encode(kept, enc_hook=list)

    def control_channel(self, view: StageView) -> str:
        """Where a stage takes commands; "" for nowhere, or if none are taken."""
        if self._settings.read_only:
            return ""
        if view.control:
            return view.control
        settings = self._settings
        given = list(
            itertools.chain.from_iterable(
                with_ids(name, settings.ids, settings.id_format_spec)
                for name in settings.control_channels
            )
        )
        order = list(self.views)
        place = order.index(view.channel) if view.channel in order else len(given)
        return given[place] if place < len(given) else ""

    def image_channels(self) -> list[str]:
        """Channels whose image may be asked for."""
        given = self._settings.image_channels
        views = self.views.values()
        return list(given) or unique(
            name
            for view in views
            for name in (*view.inputs, *view.outputs)
            # An address of a stream is no channel.
            if "://" not in name
        )

    def picture(self, channel: str, colormap: str, log: bool) -> bytes:
        """PNG of the latest image of a channel.

        Raises:
            MonitorError: the channel does not answer.
            PvapyStreamError: it has no image, or there is no such colour map.
        """
        key = channel, colormap, log
        # One at a time: who comes second gets what the first has made.
        with self._picture_lock:
            made, png = self._pictures.get(key, (-math.inf, b""))
            if time.monotonic() - made > _IMAGE_KEPT:
                png = to_png(self._image(channel), side=_SIDE, colormap=colormap, log=log)
                if len(self._pictures) >= _IMAGES_KEPT:
                    self._pictures.clear()
                self._pictures[key] = time.monotonic(), png
        return png

    def _image(self, channel: str) -> Any:
        newest = self._channels.get(channel)
        if newest is None:
            newest = self._channels[channel] = Newest(channel)
        try:
            return frame_of(newest.get(_IMAGE_TIMEOUT)).image
        except TransportError as error:
            raise MonitorError(f"channel {channel} does not answer: {error}") from error


_SERIES = ("rate", "queued", "latency")


def _points(view: StageView) -> dict[str, float | None]:
    return {
        "rate": round(view.rates.get("processed", 0.0), 2),
        "queued": view.counts.get("queued", 0),
        "latency": view.latency.get("p90"),
    }
