"""``MetadataAssociator``: values of metadata channels as attributes of frames, matched by time."""

from __future__ import annotations

import re
import threading
import time
from typing import Any, cast

import numpy as np
import pvaccess as pva
from pydantic import Field, model_validator

from pvapy_stream.errors import ObjectError, SettingsError
from pvapy_stream.frame import Frame
from pvapy_stream.processors.association import LACKS, Associator, Match, Mode, Rule, TimeSeries
from pvapy_stream.processors.processor_options import OptionProcessor, Options
from pvapy_stream.pva.ntndarray import to_frame

__all__ = ["MetadataAssociator"]

_NANO = 1_000_000_000
_TICK = 0.02  # s; how late a frame may be whose time to wait is over


class ChannelOptions(Options):
    """Options of one channel."""

    mode: Mode | None = None
    tolerance: float | None = Field(None, ge=0)
    offset: float | None = None
    constant: bool = False
    attribute: str = ""


class MetadataAssociatorOptions(Options):
    """Options of `MetadataAssociator`."""

    mode: Mode = "nearest"
    tolerance: float | None = Field(None, ge=0)
    offset: float = 0
    hold_time: float = Field(0.2, ge=0, le=60)
    hold_frames: int = Field(100, ge=0)
    max_samples: int = Field(10_000, ge=4)
    residuals: bool = True
    channels: dict[str, ChannelOptions] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _finite(self) -> MetadataAssociatorOptions:
        numbers = [self.tolerance, self.offset]
        for channel in self.channels.values():
            numbers += [channel.tolerance, channel.offset]
        if not all(np.isfinite(number) for number in numbers if number is not None):
            raise ValueError("tolerance and offset must be finite numbers of seconds")
        return self

    def rule(self, name: str) -> Rule:
        """The rule by which values of a channel are selected."""
        own = self.channels.get(name) or ChannelOptions.of()
        tolerance = self.tolerance if own.tolerance is None else own.tolerance
        offset = self.offset if own.offset is None else own.offset
        return Rule(
            own.mode or self.mode,
            None if tolerance is None else round(tolerance * _NANO),
            round(offset * _NANO),
            own.constant,
        )


class MetadataAssociator(OptionProcessor[MetadataAssociatorOptions]):
    """Publishes each frame with the values of the metadata channels at its time.

    The attribute NAME is the value, `NAME:residual_us` the time of the frame minus the time of the
    value (for an interpolated value, of the nearer one), in us. A channel that has updated only
    once is a constant: its value is used for all frames. Frames wait for values that may still
    arrive, in order, for at most holdTime; they wait only once for a channel without a second
    value. A frame without a value is published without the attribute, and counted.

    Keys: mode: "nearest", "previous" or "linear" (numbers, and arrays of numbers with equal shapes;
    other types: previous value), tolerance (s; default: any), offset (s, added to the times of
    values), holdTime (0.2 s), holdFrames (100), maxSamples (10000 per channel), residuals
    (true), and channels: for a channel by name mode, tolerance, offset, constant (true: the newest
    value at any time), attribute (its name in the frame).
    """

    options_type = MetadataAssociatorOptions
    publishes_later = True
    COUNTERS = ("nAssociated", "nIncomplete", "nWithoutTime", "nTypeChanges", "nUnusable")

    def __init__(self, configDict: dict[str, object] | None = None) -> None:
        self._associator: Associator[Frame] = Associator({})
        super().__init__(configDict)
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._told: set[str] = set()

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Prepare the metadata channels.

        Raises:
            SettingsError: channels are configured that are not among them, or there are none.
        """
        if not self.metadataQueueMap:
            raise SettingsError("there are no metadata channels; name them with -mc")
        self._check_channels()
        options = self.options
        self._associator = Associator(
            {name: options.rule(name) for name in self.metadataQueueMap},
            options.hold_time,
            options.hold_frames,
            options.max_samples,
            self.metadata_connected,
        )
        self._stopping.clear()
        self._thread = threading.Thread(target=self._release_in_time, daemon=True, name="metadata")
        self._thread.start()

    def _check_channels(self) -> None:
        known = list(self.metadataQueueMap)
        if unknown := [name for name in self.options.channels if name not in known]:
            raise SettingsError(
                f"channels: {', '.join(unknown)} is not among the metadata channels"
                f" {', '.join(known)}"
            )

    def configure(self, configDict: Any) -> None:
        with self._lock:
            before = self.options, self._given
            super().configure(configDict)
            try:
                self._check_channels()
            except SettingsError:
                self.options, self._given = before
                raise
            self._associator.hold_time = self.options.hold_time
            self._associator.hold_items = self.options.hold_frames
            for name, series in self._associator.series.items():
                series.rule = self.options.rule(name)

    def stop(self) -> None:
        """Publish waiting frames."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5)
        with self._lock:
            self._drain_queues()
            self._release(flush=True)

    # -- frames ----------------------------------------------------------------------------------

    def process(self, pvObject: Any) -> None:
        # A copy of the object costs microseconds: the pixels are shared until one is changed.
        frame = to_frame(pvObject.copy())
        with self._lock:
            self._drain_queues()
            time_ns = frame.time_ns
            if not time_ns:
                self.counts["nWithoutTime"] += 1
                self._report("frames", "frame %d has no time; it gets the current values", frame.id)
                time_ns = time.time_ns()
            self._associator.put(frame, time_ns, time.monotonic())
            self._release(current=frame)

    def _release_in_time(self) -> None:
        """Publish frames whose time to wait ends while none follows."""
        while not self._stopping.wait(_TICK):
            if len(self._associator):
                with self._lock:
                    self._drain_queues()
                    self._release()

    def _release(self, current: Frame | None = None, flush: bool = False) -> None:
        for frame, matches in self._associator.ready(time.monotonic(), flush):
            try:
                self._publish(self._with_values(frame, matches))
            except Exception as error:
                if frame is current:
                    raise
                self.late_failures.note(frame.id, f"publishing: {type(error).__name__}", error)

    def _with_values(self, frame: Frame, matches: dict[str, Match | None]) -> Frame:
        attributes = dict(frame.attributes)
        complete = True
        for name, match in matches.items():
            if match is None:
                complete = False
                self._tell_distance(name, frame)
                continue
            own = self.options.channels.get(name)
            attribute = (own and own.attribute) or name
            attributes[attribute] = match.value
            if self.options.residuals:
                attributes[f"{attribute}:residual_us"] = match.residual_ns / 1000
        self.counts["nAssociated" if complete else "nIncomplete"] += 1
        return frame.replace(attributes=attributes)

    def _tell_distance(self, name: str, frame: Frame) -> None:
        residual = self._associator.series[name].nearest_residual_ns(frame.time_ns)
        # That a channel has no value at all, the stage says.
        if residual is not None:
            self._report(
                f"far {name}",
                "metadata channel %s: the value nearest to frame %d is %.6f s away, beyond what"
                " mode and tolerance allow; do the clocks differ? see offset",
                name,
                frame.id,
                residual / _NANO,
            )

    def _report(self, key: str, message: str, *args: object) -> None:
        """Log once a run."""
        if key not in self._told:
            self._told.add(key)
            self.logger.warning(message, *args)

    # -- values ----------------------------------------------------------------------------------

    def _drain_queues(self) -> None:
        for name, queue in self.metadataQueueMap.items():
            series = self._associator.series.get(name)
            if series is None:
                continue
            # No more than there are now: a fast channel must not keep the frames waiting.
            for _ in range(len(queue)):
                self._take(name, series, queue.get(0))

    def _take(self, name: str, series: TimeSeries, obj: pva.PvObject) -> None:
        try:
            time_ns, value = sample(obj)
        except (ObjectError, pva.PvaException) as error:
            self.counts["nUnusable"] += 1
            self._report(f"unusable {name}", "metadata channel %s: %s", name, error)
            return
        if len(series) and _kind(series.newest) != _kind(value):
            self.counts["nTypeChanges"] += 1
            self._report(
                f"type {name}",
                "metadata channel %s changes its type from %s to %s; values are not interpolated"
                " across that",
                name,
                _kind(series.newest),
                _kind(value),
            )
        series.add(time_ns, value)

    # -- statistics ------------------------------------------------------------------------------

    def resetStats(self) -> None:
        super().resetStats()
        self._associator.reset_coverage()

    def metadata_coverage(self) -> dict[str, tuple[int, int]]:
        return {name: (c.found, c.without) for name, c in self._associator.coverage.items()}

    def getStats(self) -> dict[str, Any]:
        stats: dict[str, object] = {**self.counts, "nHeld": len(self._associator)}
        for name, field in self._fields().items():
            coverage = self._associator.coverage.get(name)
            if coverage is not None:
                stats[f"{field}_nAssociated"] = coverage.found
                stats[f"{field}_nWithout"] = coverage.without
                for lack, count in coverage.lacks.items():
                    stats[f"{field}_n{lack}"] = count
                stats[f"{field}_coverage"] = coverage.share
                stats[f"{field}_residual_us"] = coverage.last_residual_ns / 1000
        return stats

    def getStatsPvaTypes(self) -> dict[str, object]:
        types: dict[str, object] = {**super().getStatsPvaTypes(), "nHeld": pva.ULONG}
        for field in self._fields().values():
            types |= {
                f"{field}_nAssociated": pva.ULONG,
                f"{field}_nWithout": pva.ULONG,
                **{f"{field}_n{lack}": pva.ULONG for lack in LACKS},
                f"{field}_coverage": pva.DOUBLE,
                f"{field}_residual_us": pva.DOUBLE,
            }
        return types

    def _fields(self) -> dict[str, str]:
        """Names of channels, and their short forms in names of PV fields."""
        fields: dict[str, str] = {}
        for name in self.metadataQueueMap:
            field = re.sub(r"\W", "_", name, flags=re.ASCII)
            if not field[:1].isalpha():
                field = f"c{field}"
            while field in fields.values():
                field += "_"
            fields[name] = field
        return fields


def sample(obj: pva.PvObject) -> tuple[int, object]:
    """Time, ns since 1970, and value of a metadata object; the current time if it has none.

    Raises:
        ObjectError: it has no value.
    """
    if not obj.hasField("value"):
        raise ObjectError(f"objects have no field 'value', only {', '.join(obj.keys())}")
    value = obj["value"]
    if isinstance(value, tuple):
        # A union: what it holds, under the name of its type.
        value = next(iter(cast("dict[str, Any]", value[0]).values()), None) if value else None
    if isinstance(value, dict):
        value = _enum(cast("dict[str, Any]", value))
    time_ns = 0
    if obj.hasField("timeStamp.secondsPastEpoch"):
        time_ns = obj.getLong("timeStamp.secondsPastEpoch") * _NANO
        time_ns += obj.getInt("timeStamp.nanoseconds")
    return time_ns or time.time_ns(), value


def _enum(value: dict[str, Any]) -> Any:
    """The chosen name of an enumeration."""
    choices, index = value.get("choices"), value.get("index")
    if choices is None or not isinstance(index, int):
        raise ObjectError(f"the value is a structure of {', '.join(value)}, not a scalar or array")
    return choices[index] if 0 <= index < len(choices) else str(index)


def _kind(value: object) -> str:
    """What must stay the same from value to value."""
    array = np.asarray(value)
    names = {"i": "number", "u": "number", "f": "number", "b": "bool", "U": "text"}
    return f"{names.get(array.dtype.kind, 'object')}{' array' if array.ndim else ''}"
