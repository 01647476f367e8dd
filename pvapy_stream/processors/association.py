"""Values of slow channels found for the times of a stream. Pure: no EPICS, no threads, no clock."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, get_args

import numpy as np

T = TypeVar("T")

Mode = Literal["nearest", "previous", "linear"]

# Frames of n consumers may come a little out of order: what is older than this is forgotten.
_HISTORY_NS = 10_000_000_000


@dataclass(frozen=True, slots=True)
class Rule:
    """How a value is found.

    Attributes:
        mode: nearest in time, the previous one, or interpolated between two.
        tolerance_ns: how far a value may be from the time asked for, ns; None for any.
        offset_ns: added to the times of values, ns; mends a clock that is behind.
        constant: the newest value serves at any time.
    """

    mode: Mode = "nearest"
    tolerance_ns: int | None = None
    offset_ns: int = 0
    constant: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """A value, and how much later the time asked for is than the value's, ns."""

    value: Any
    residual_ns: int


class TimeSeries:
    """The last values of one channel, by their time.

    As long as only one has ever come, the channel counts as a constant: the value serves at any
    time.
    """

    __slots__ = ("_max_samples", "_quiet", "_times", "_values", "n_updates", "rule")

    def __init__(self, rule: Rule | None = None, max_samples: int = 10_000) -> None:
        self.rule = rule or Rule()
        self.n_updates = 0
        self._times: list[int] = []
        self._values: list[object] = []
        self._max_samples = max_samples
        self._quiet = False

    def __len__(self) -> int:
        return len(self._times)

    @property
    def newest(self) -> Any:
        """The value with the latest time, None when there is none."""
        return self._values[-1] if self._values else None

    def add(self, time_ns: int, value: Any) -> None:
        """Take a value; one of the same time takes the place of the one before."""
        times, values = self._times, self._values
        at = len(times) if not times or time_ns > times[-1] else bisect_left(times, time_ns)
        if at < len(times) and times[at] == time_ns:
            values[at] = value
            return
        times.insert(at, time_ns)
        values.insert(at, value)
        self.n_updates += 1
        self._quiet = False
        if len(times) > self._max_samples:
            # Not one by one: each removal at the front moves all.
            surplus = len(times) - self._max_samples * 3 // 4
            del times[:surplus], values[:surplus]

    @property
    def is_constant(self) -> bool:
        """Whether the one value there is serves at any time."""
        return self.rule.constant or self.n_updates == 1

    def decided(self, time_ns: int) -> bool:
        """Whether values that come later, in order, cannot change what is found for a time."""
        if self._quiet or (self.rule.constant and self._times):
            return True
        return bool(self._times) and self._times[-1] >= time_ns - self.rule.offset_ns

    def stop_waiting(self) -> None:
        """It was waited for in vain: a channel without changes is not waited for again.

        That ends with its next value.
        """
        if self.n_updates <= 1:
            self._quiet = True

    def at(self, time_ns: int) -> Match | None:
        """What is found for a time, among the values there are."""
        times, values, rule = self._times, self._values, self.rule
        if not times:
            return None
        time_ns -= rule.offset_ns
        if self.is_constant:
            return Match(values[-1], time_ns - times[-1])
        after = bisect_right(times, time_ns)
        index = after - 1
        mode = rule.mode
        if mode == "linear":
            # What cannot be interpolated holds until it changes.
            mode = "nearest"
            if 0 <= index and after < len(times) and times[index] != time_ns:
                pair = _pair(values[index], values[after])
                if pair is None:
                    mode = "previous"
                elif self._near(time_ns - times[index]) and self._near(time_ns - times[after]):
                    return _between(pair, times[index], times[after], time_ns)
        later = after < len(times) and mode != "previous"
        if later and (index < 0 or times[after] - time_ns < time_ns - times[index]):
            index = after
        if index < 0:
            return None
        residual = time_ns - times[index]
        return Match(values[index], residual) if self._near(residual) else None

    def nearest_residual_ns(self, time_ns: int) -> int | None:
        """How much later a time is than that of the nearest value, whatever the tolerance."""
        times = self._times
        time_ns -= self.rule.offset_ns
        after = bisect_right(times, time_ns)
        residuals = [time_ns - times[i] for i in (after - 1, after) if 0 <= i < len(times)]
        return min(residuals, key=abs, default=None)

    def forget_before(self, time_ns: int) -> None:
        """Drop values that no time from this one on can need."""
        first = bisect_right(self._times, time_ns - self.rule.offset_ns) - 1
        # Rarely, and many at once.
        if first > 256:
            del self._times[:first], self._values[:first]

    def _near(self, residual: int) -> bool:
        tolerance = self.rule.tolerance_ns
        return tolerance is None or abs(residual) <= tolerance


def _between(pair: tuple[np.ndarray, np.ndarray], t0: int, t1: int, time_ns: int) -> Match:
    """Interpolated between two values."""
    a, b = pair
    mixed = a + (b - a) * ((time_ns - t0) / (t1 - t0))
    residual = time_ns - t0 if time_ns - t0 <= t1 - time_ns else time_ns - t1
    return Match(mixed if mixed.ndim else float(mixed), residual)


def _pair(first: object, second: object) -> tuple[np.ndarray, np.ndarray] | None:
    """Two numbers, or two arrays of numbers of one shape; None for anything else."""
    a, b = _array(first), _array(second)
    return None if a is None or b is None or a.shape != b.shape else (a, b)


def _array(value: object) -> np.ndarray | None:
    """A number, or an array of numbers, as float64; None for anything else."""
    if isinstance(value, (bool, str, bytes)) or value is None:
        return None
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind in "iuf" else None


Lack = Literal["NoValue", "TooOld", "TooNew", "Disconnected"]
LACKS: tuple[Lack, ...] = get_args(Lack)


@dataclass(slots=True)
class Coverage:
    """For how many times a value was found, and for how many not.

    Attributes:
        found: times with a value.
        lacks: times without one, by reason: the series had no value yet; the nearest one was too
            old, or too new, for mode and tolerance; it was too old and its channel not there.
        last_residual_ns: how much later the last time with a value was than the value, ns.
    """

    found: int = 0
    lacks: dict[Lack, int] = field(default_factory=lambda: dict.fromkeys(LACKS, 0))
    last_residual_ns: int = 0

    @property
    def without(self) -> int:
        """Times without a value."""
        return sum(self.lacks.values())

    @property
    def share(self) -> float:
        """Found, of all; 0 when there was none."""
        total = self.found + self.without
        return self.found / total if total else 0.0


@dataclass(slots=True)
class _Held(Generic[T]):
    item: T
    time_ns: int
    deadline: float


class Associator(Generic[T]):
    """Finds a value of each series for each item; keeps items back until the values can be there.

    Items come out in the order in which they went in.

    Args:
        rules: how values are found, by name.
        hold_time: how long an item waits for values at most, in the unit of `now` (s).
        hold_items: how many items wait at most.
        max_samples: how many values of each series are kept.
        connected: whether new values of a series can come.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        hold_time: float = 0.2,
        hold_items: int = 100,
        max_samples: int = 10_000,
        connected: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._connected = connected
        self.series = {name: TimeSeries(rule, max_samples) for name, rule in rules.items()}
        self.coverage = {name: Coverage() for name in rules}
        self.hold_time = hold_time
        self.hold_items = hold_items
        self._held: deque[_Held[T]] = deque()

    def __len__(self) -> int:
        return len(self._held)

    def add(self, name: str, time_ns: int, value: Any) -> None:
        """Take a value."""
        self.series[name].add(time_ns, value)

    def put(self, item: T, time_ns: int, now: float) -> None:
        """Take an item."""
        self._held.append(_Held(item, time_ns, now + self.hold_time))

    def ready(self, now: float, flush: bool = False) -> Iterator[tuple[T, dict[str, Match | None]]]:
        """Items that need not wait any more, each with its values; all of them with `flush`."""
        while self._held:
            head = self._held[0]
            undecided = [s for s in self.series.values() if not s.decided(head.time_ns)]
            if undecided:
                in_time = now < head.deadline
                if in_time and len(self._held) <= self.hold_items and not flush:
                    return
                if not in_time:
                    for series in undecided:
                        series.stop_waiting()
            self._held.popleft()
            yield head.item, self.match(head.time_ns)

    def match(self, time_ns: int) -> dict[str, Match | None]:
        """A value of each series for a time, as far as there is one."""
        matches: dict[str, Match | None] = {}
        for name, series in self.series.items():
            match = matches[name] = series.at(time_ns)
            coverage = self.coverage[name]
            if match is None:
                coverage.lacks[self._lack(name, time_ns)] += 1
            else:
                coverage.found += 1
                coverage.last_residual_ns = match.residual_ns
            series.forget_before(time_ns - _HISTORY_NS)
        return matches

    def _lack(self, name: str, time_ns: int) -> Lack:
        """Why a series has no value for a time."""
        residual = self.series[name].nearest_residual_ns(time_ns)
        if residual is None:
            return "NoValue"
        if residual < 0:
            return "TooNew"
        return "TooOld" if self._connected(name) else "Disconnected"

    def reset_coverage(self) -> None:
        """Begin to count anew."""
        self.coverage = {name: Coverage() for name in self.series}
