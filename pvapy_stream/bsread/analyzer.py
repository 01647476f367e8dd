"""What is odd in a stream: ids, order, timing, missing values, changes of its channels."""

from __future__ import annotations

import threading
from array import array
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from pvapy_stream.bsread.codec import ChannelHeader
from pvapy_stream.bsread.stored import Stored

_RECENT = 1000  # steps of pulse ids by which the usual one is known
_LEARN = 10
_LATE = 5.0  # times the usual interval
_EXAMPLES = 20
_MOST_CHANNELS = 10_000


@dataclass(slots=True)
class _Kind:
    """One kind of anomaly."""

    count: int = 0
    examples: deque[str] = field(default_factory=lambda: deque(maxlen=_EXAMPLES))

    def note(self, text: str, times: int = 1) -> None:
        self.count += times
        self.examples.append(text)


KINDS = (
    "missing pulses",
    "pulses out of order",
    "pulses twice",
    "source restarts",
    "times going back",
    "long pauses",
    "channel changes",
    "malformed messages",
)


class StreamAnalyzer:
    """Looks at each message of a stream, in one thread; `report` and `lines` are for any.

    Args:
        late_pulses: a pulse further back than that is a restart of the source.
    """

    def __init__(self, late_pulses: int) -> None:
        self._late_pulses = late_pulses
        self._lock = threading.Lock()
        self._kinds = {name: _Kind() for name in KINDS}
        self._missing: Counter[str] = Counter()
        self._messages = 0
        self._last: int | None = None
        self._last_time = 0
        self._last_arrival = 0.0
        self._interval = 0.0
        self._steps: Counter[int] = Counter()
        self._recent: deque[int] = deque()
        self._recent_ids: deque[int] = deque(maxlen=_RECENT)
        self._headers: tuple[ChannelHeader, ...] | None = None
        self._lengths = b""
        self._absent: tuple[ChannelHeader, ...] = ()

    def malformed(self, error: str) -> None:
        """Take note of a message that could not be read."""
        with self._lock:
            self._kinds["malformed messages"].note(error)

    def observe(self, message: Stored, headers: tuple[ChannelHeader, ...], now: float) -> None:
        """Take note of a message; `now`: s, when it came."""
        with self._lock:
            self._messages += 1
            self._look_at_id(message.pulse_id)
            self._look_at_times(message, now)
            self._look_at_channels(message, headers)

    def _look_at_id(self, pulse: int) -> None:
        last = self._last
        if last is None:
            self._last = pulse
        elif pulse > last:
            self._look_at_step(pulse, last)
            self._last = pulse
        elif pulse < last - self._late_pulses:
            self._kinds["source restarts"].note(f"{pulse} after {last}")
            self._recent_ids.clear()
            self._last = pulse
        elif pulse in self._recent_ids:
            self._kinds["pulses twice"].note(str(pulse))
        else:
            self._kinds["pulses out of order"].note(f"{pulse} after {last}")
        self._recent_ids.append(pulse)

    def _look_at_step(self, pulse: int, last: int) -> None:
        step = pulse - last
        usual = self._usual_step()
        if usual and step > usual:
            gone = max(1, step // usual - 1)
            self._kinds["missing pulses"].note(f"{gone} between {last} and {pulse}", gone)
        self._recent.append(step)
        self._steps[step] += 1
        if len(self._recent) > _RECENT:
            oldest = self._recent.popleft()
            self._steps[oldest] -= 1
            if not self._steps[oldest]:
                del self._steps[oldest]

    def _usual_step(self) -> int:
        if len(self._recent) < _LEARN:
            return 0
        return max(self._steps, key=self._steps.__getitem__)

    def _look_at_times(self, message: Stored, now: float) -> None:
        pulse = message.pulse_id
        if message.timestamp_ns < self._last_time:
            back = (self._last_time - message.timestamp_ns) / 1e9
            self._kinds["times going back"].note(f"{back:.6f} s at pulse {pulse}")
        self._last_time = message.timestamp_ns
        if self._last_arrival:
            interval = now - self._last_arrival
            if self._messages > _LEARN and interval > max(_LATE * self._interval, 0.1):
                self._kinds["long pauses"].note(f"{interval:.3f} s before pulse {pulse}")
            else:
                weight = 1 / min(self._messages, 100)
                self._interval += weight * (interval - self._interval)
        self._last_arrival = now

    def _look_at_channels(self, message: Stored, headers: tuple[ChannelHeader, ...]) -> None:
        changed = headers is not self._headers
        if changed:
            if self._headers is not None:
                self._kinds["channel changes"].note(
                    f"at pulse {message.pulse_id}: {_difference(self._headers, headers)}"
                )
            self._headers = headers
        # Messages whose parts are as long lack the same values.
        if changed or message.lengths is not self._lengths:
            self._lengths = message.lengths
            sizes = array("I", message.lengths)
            self._absent = tuple(
                header
                for header, size, stamp in zip(headers, sizes[::2], sizes[1::2], strict=True)
                if not size and not stamp
            )
        for header in self._absent:
            modulo = max(1, header.modulo)
            due = (message.pulse_id - header.offset) % modulo == 0
            if due and (header.name in self._missing or len(self._missing) < _MOST_CHANNELS):
                self._missing[header.name] += 1

    def report(self) -> dict[str, Any]:
        """What was found: counts, the latest examples, channels without the values they are due."""
        with self._lock:
            return {
                "messages": self._messages,
                "usual_step": self._usual_step(),
                "usual_interval": self._interval,
                "anomalies": {
                    name: {"count": kind.count, "latest": list(kind.examples)}
                    for name, kind in self._kinds.items()
                },
                "missing_values": dict(self._missing.most_common(_EXAMPLES)),
            }

    def lines(self) -> list[str]:
        """The report for people."""
        report = self.report()
        found = [
            f"{name}: {kind['count']}; the last: {kind['latest'][-1]}"
            for name, kind in report["anomalies"].items()
            if kind["count"]
        ]
        found += [
            f"channel {name}: {count} values missing"
            for name, count in report["missing_values"].items()
        ]
        head = f"{report['messages']} messages, usually {report['usual_step'] or 1} pulse ids apart"
        head += f", every {report['usual_interval'] * 1000:.1f} ms"
        return [head, *(found or ["no anomalies"])]


def _difference(old: tuple[ChannelHeader, ...], new: tuple[ChannelHeader, ...]) -> str:
    before = {header.name: header for header in old}
    after = {header.name: header for header in new}
    added = [name for name in after if name not in before]
    removed = [name for name in before if name not in after]
    changed = [name for name in after if name in before and after[name] != before[name]]
    parts = [
        f"{what} {', '.join(names[:3])}{' …' if len(names) > 3 else ''}"
        for what, names in (("added", added), ("removed", removed), ("changed", changed))
        if names
    ]
    return "; ".join(parts) or "another order"
