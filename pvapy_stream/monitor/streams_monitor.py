"""Rates, losses, queues and latency of stages, from their status channels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from pvapy_stream.base_settings import opt
from pvapy_stream.monitor.base import Clock, Sample, SamplingMonitor
from pvapy_stream.monitor.channel_names import ChannelFinder
from pvapy_stream.monitor.kinds import MonitorKind
from pvapy_stream.monitor.outbox import Notifier
from pvapy_stream.monitor.series_store import SeriesStore
from pvapy_stream.monitor.stages import RateMeter, StageView, StageWatch
from pvapy_stream.settings import ChannelsSettings, MonitorSettings
from pvapy_stream.settings.monitor_settings import STREAM_ALARMS
from pvapy_stream.settings.rules import AlarmRules

_FIRST_LOOK = 5.0  # s; how long the first sample waits for the stages

_RATES = {
    "received": "received_rate", "processed": "processed_rate", "published": "published_rate",
    "missed": "missed_rate", "rejected": "rejected_rate", "errors": "error_rate",
}  # fmt: skip
_TOTALS = ("missed", "rejected", "errors", "overruns", "queued")


class StreamsSettings(MonitorSettings, ChannelsSettings):
    """Rates, losses, queues and latency of stages."""

    QUANTITIES: ClassVar[Mapping[str, str]] = {
        "connected": "", "failed": "", "received_rate": "Hz", "processed_rate": "Hz",
        "published_rate": "Hz", "missed": "", "missed_rate": "Hz", "rejected": "",
        "rejected_rate": "Hz", "errors": "", "error_rate": "Hz", "overruns": "", "queued": "",
        "latency_p50": "s", "latency_p90": "s", "latency_p99": "s", "silence": "s",
    }  # fmt: skip

    sampling_interval: Annotated[
        float, opt("-si --sampling-interval", "Monitor", "s", metavar="T")
    ] = Field(5, gt=0, description="time between samples")
    alarms: Annotated[AlarmRules, opt("-a --alarm", "Monitor", metavar="RULE", many=True)] = Field(
        STREAM_ALARMS,
        description=(
            "when to raise an alarm: 'QUANTITY[@CHANNEL] < VALUE [clear VALUE] [for TIME] [hold"
            " TIME] [every TIME]'; '': never"
        ),
    )  # fmt: skip


class StreamsMonitor(SamplingMonitor):
    """Follows stages. Rates are over the time between two samples, so that no loss is overlooked.

    Args:
        watch: who follows the channels; made when not given.
    """

    kind = "streams"

    def __init__(
        self,
        settings: StreamsSettings,
        store: SeriesStore | None = None,
        notifiers: Iterable[Notifier] = (),
        clock: Clock | None = None,
        watch: StageWatch | None = None,
    ) -> None:
        super().__init__(settings, store, notifiers, clock)
        self._own_watch = watch is None
        self.watch = watch or StageWatch(ChannelFinder(settings))
        self._meters: dict[str, RateMeter] = {}

    def init_loop(self) -> None:
        if self._own_watch:
            self.watch.start()
        self.watch.wait_for_all(_FIRST_LOOK)
        super().init_loop()

    def end_loop(self) -> None:
        if self._own_watch:
            self.watch.stop()
        super().end_loop()

    def sample(self) -> list[Sample]:
        now = self.clock.now()
        return [sample for view in self.watch.views() for sample in self._of(view, now)]

    def _of(self, view: StageView, now: float) -> list[Sample]:
        ended_well = view.tone == "over"
        values: dict[str, tuple[float, str]] = {
            # A stage that was stopped on purpose is no trouble.
            "connected": (float(view.connected or ended_well), ""),
            "failed": (float(view.connected and view.tone == "bad"), ""),
        }
        if view.counts:
            meter = self._meters.setdefault(view.channel, RateMeter())
            rates = meter.update(view.counts, now)
            values |= {ours: (rates[name], "Hz") for name, ours in _RATES.items()}
            values |= {name: (float(view.counts[name]), "") for name in _TOTALS}
            silence = 0.0 if ended_well else view.silence
            values["silence"] = silence, "s"
            for name in ("p50", "p90", "p99"):
                values[f"latency_{name}"] = view.latency.get(name, math.nan), "s"
        return [Sample(view.channel, name, value, unit) for name, (value, unit) in values.items()]


MONITOR = MonitorKind(
    "streams",
    StreamsSettings,
    StreamsMonitor,
    "rates, losses, queues and latency of stages",
    rank=30,
)
