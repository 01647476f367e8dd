"""What stages say of themselves on their status channels."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from pvapy_stream.errors import PvapyStreamError
from pvapy_stream.monitor.channel_names import ChannelFinder
from pvapy_stream.monitor.statuses import Tone, tone_of
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.status.fields import read
from pvapy_stream.status.snapshot import Snapshot
from pvapy_stream.transport.pva import MonitorReceiver

ABSENT = "absent"
GONE = "gone"

_TICK = 0.5  # s
_GOING = 1.0  # s
_FIND_AGAIN = 10.0  # s
_FIND_SOON, _FIRST_LOOKS = 2.0, 3  # s, and how often
_LATENCIES = ("p50", "p90", "p99", "max")
_MIN_SPAN = 0.2  # s; counts closer in time give no rate

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StageView:
    """A stage as its status channel shows it.

    Attributes:
        channel: its status channel.
        state: absent (never seen), gone, or what the stage says.
        kind: one of `snapshot.KINDS`, or "" when it is not known.
        id: number of the stage.
        inputs: channels it receives from, or addresses of streams.
        outputs: those it publishes on.
        control: channel that takes its commands; "" for none.
        restarts: how often it was started again after it had died.
        counts: those of `statuses.COUNTS`, and overruns; of all incarnations that were looked at.
        rates: the same but the queue, 1/s, between its last two statuses.
        latency: p50, p90, p99 and max of the time from detector to processed, s; may be empty.
        last_id: last object id.
        silence: s since the number of processed objects last changed.
        age: s since its last status.
        message: its last error.
        user: statistics of the processor.
    """

    channel: str
    state: str
    kind: str = ""
    id: int = 0
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    control: str = ""
    restarts: int = 0
    counts: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    latency: Mapping[str, float] = field(default_factory=dict)
    last_id: int = 0
    silence: float = 0.0
    age: float = 0.0
    message: str = ""
    user: Mapping[str, object] = field(default_factory=dict)

    @property
    def connected(self) -> bool:
        """Whether the status channel is there."""
        return self.state not in (ABSENT, GONE)

    @property
    def tone(self) -> Tone:
        """What its state means, in a word that all programs share."""
        return tone_of(self.state)

    @property
    def ended(self) -> bool:
        """Whether it said that it has ended, well or not."""
        return self.connected and _is_end(self.state)

    @property
    def label(self) -> str:
        """A short name."""
        return f"{self.kind} {self.id}" if self.kind else self.channel

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        words = {"label": self.label, "connected": self.connected, "tone": self.tone}
        return {**asdict(self), **words}


def _is_end(state: str) -> bool:
    return tone_of(state) in ("bad", "over")


def labels(views: Sequence[StageView]) -> list[str]:
    """A short name for each stage; from the channels where two of a kind would have the same."""
    names = Counter((view.kind, view.label) for view in views)
    alike = {kind for (kind, _), count in names.items() if count > 1}
    return [
        view.channel.replace(":status", "") if view.kind in alike else view.label for view in views
    ]


def last_in_chain(views: Sequence[StageView]) -> list[StageView]:
    """Stages whose output no other of them takes: what they do is what comes out of the chain."""
    taken = {name for view in views for name in view.inputs}
    return [view for view in views if not taken.intersection(view.outputs)]


def lost_once(views: Sequence[StageView]) -> float:
    """How many objects were missed, each loss once, though all later stages miss it too.

    Of each chain, the stages at equal distance from its source are added up, and the largest of
    these sums is taken: what is lost early is missing at all later ones.
    """
    total = 0.0
    for chain in _chains(views):
        sums: dict[int, float] = {}
        for view in chain:
            depth = _depth(view, chain, frozenset())
            sums[depth] = sums.get(depth, 0.0) + view.counts.get("missed", 0)
        total += max(sums.values())
    return total


def _chains(views: Sequence[StageView]) -> list[list[StageView]]:
    """Stages that channels connect, together."""
    chains: list[tuple[set[str], list[StageView]]] = []
    for view in views:
        names, members = {*view.inputs, *view.outputs}, [view]
        for one in [one for one in chains if one[0] & names]:
            chains.remove(one)
            names |= one[0]
            members = one[1] + members
        chains.append((names, members))
    return [members for _, members in chains]


def _depth(view: StageView, chain: Sequence[StageView], seen: frozenset[str]) -> int:
    """How many stages there are before one."""
    if view.channel in seen:
        return 0
    before = [one for one in chain if set(one.outputs) & set(view.inputs)]
    return max((1 + _depth(one, chain, seen | {view.channel}) for one in before), default=0)


class RateMeter:
    """Rates of growing counts."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._counts: dict[str, float] = {}
        self.rates: dict[str, float] = {}

    def update(self, counts: Mapping[str, float], at: float) -> dict[str, float]:
        """Take counts at a time, s; the rates since the time before, 1/s.

        A count that went down began anew: its rate is 0.
        """
        span = at - self._at if self._at is not None else 0.0
        if self._at is None or span < 0:
            self.rates = dict.fromkeys(counts, 0.0)
        elif span < _MIN_SPAN:
            return self.rates
        else:
            self.rates = {
                name: max(0.0, value - self._counts.get(name, value)) / span
                for name, value in counts.items()
            }
        self._at, self._counts = at, dict(counts)
        return self.rates


class _Stage:
    """Follows one status channel."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.receiver = MonitorReceiver(channel)
        self._status: Snapshot | None = None
        self._counts: dict[str, float] = {}
        # Of incarnations before the present one.
        self._past: dict[str, float] = {}
        self._meter = RateMeter()
        self.n_statuses = 0
        self._came_at = self._changed_at = time.monotonic()
        self._lock = threading.Lock()

    def start(self) -> None:
        self.receiver.start(self._take)

    def _take(self, obj: StreamObject) -> None:
        status = read(obj.toDict())
        counts = status.counts()
        now = time.monotonic()
        with self._lock:
            if self._status is not None and status.restarts > self._status.restarts:
                self._past = {**self._counts, "queued": 0}
            counts = {name: value + self._past.get(name, 0) for name, value in counts.items()}
            if counts["processed"] != self._counts.get("processed") or not self._status:
                self._changed_at = now
            # The stage's own clock: its statuses may be late on their way.
            self._meter.update(counts, status.object_time or time.time())
            self._status, self._counts, self._came_at = status, counts, now
            self.n_statuses += 1

    @property
    def is_going(self) -> bool:
        """Whether the stage has ended and its channel is still there."""
        status = self._status
        return self.receiver.connected and status is not None and _is_end(status.state)

    def view(self) -> StageView:
        now = time.monotonic()
        with self._lock:
            status, counts, rates = self._status, self._counts, dict(self._meter.rates)
            age, silence = now - self._came_at, now - self._changed_at
        if status is None:
            return StageView(self.channel, ABSENT, age=age, silence=silence)
        state, latency = status.state, status.latency_stats
        ended = _is_end(state)
        if not self.receiver.connected and not ended:
            state, ended = GONE, True
        if ended:
            rates = dict.fromkeys(rates, 0.0)
        return StageView(
            self.channel,
            state,
            status.kind,
            status.id,
            status.inputs,
            status.outputs,
            status.control_channel,
            status.restarts,
            counts,
            rates,
            {name: getattr(latency, name) for name in _LATENCIES} if latency.n else {},
            status.object_id,
            silence,
            age,
            status.message,
            status.user_stats,
        )


class StageWatch:
    """Follows the status channels of stages, of those too that start later.

    Args:
        finder: finds the channels.
    """

    def __init__(self, finder: ChannelFinder) -> None:
        self._finder = finder
        self._stages: dict[str, _Stage] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._looked = threading.Event()

    def start(self) -> None:
        """Begin to follow."""
        self._add(self._finder.fixed)
        self._thread = threading.Thread(target=self._run, name="stage-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
        # The servers of stages that have ended go in a moment. The binding reports it from a
        # thread of its own, and if Python is at its end just then, the process is aborted.
        deadline = time.monotonic() + _GOING
        while any(stage.is_going for stage in self._stages.values()):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        for stage in list(self._stages.values()):
            stage.receiver.stop()

    def views(self) -> list[StageView]:
        """All stages there are, or should be."""
        return [stage.view() for stage in list(self._stages.values())]

    def wait_for_all(self, timeout: float, statuses: int = 1) -> bool:
        """Wait until every stage has shown so many statuses; False when not in `timeout` s.

        A rate needs two of them.
        """
        deadline = time.monotonic() + timeout
        self._looked.wait(timeout)
        while not all(stage.n_statuses >= statuses for stage in list(self._stages.values())):
            if time.monotonic() > deadline or self._stop.wait(0.05):
                return False
        return True

    def _add(self, channels: list[str]) -> None:
        for channel in channels:
            if channel not in self._stages:
                stage = _Stage(channel)
                stage.start()
                self._stages[channel] = stage

    def _run(self) -> None:
        next_look, n_looks = 0.0, 0
        reported = False
        while not self._stop.is_set():
            if time.monotonic() >= next_look:
                try:
                    self._add(self._finder.find())
                except PvapyStreamError as error:
                    if not reported:
                        reported = True
                        _log.error("%s; it is retried every %g s", error, _FIND_AGAIN)
                self._looked.set()
                n_looks += 1
                # On a busy network not all answer the first time.
                pause = _FIND_AGAIN if n_looks > _FIRST_LOOKS else min(_FIND_AGAIN, _FIND_SOON)
                next_look = time.monotonic() + (pause if self._finder.patterns else math.inf)
            for stage in list(self._stages.values()):
                stage.receiver.keep_up()
            self._stop.wait(_TICK)
