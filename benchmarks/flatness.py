"""CPU time per frame as consumers of a set, or channels of a process, become more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.plots import Curve, Plot
from benchmarks.run import Collector, Consumer, Source
from benchmarks.table import Row
from benchmarks.watched import Stage, connected

_SIZE = 128
_CONSUMERS = (1, 2, 4, 8)
_CHANNELS = (1, 2, 4, 8, 16)
_TOLERANCE = 0.15
_SET_RATE = 1000.0  # frames/s, to each consumer
_CHANNEL_RATE = 250.0  # frames/s, of each channel


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time per frame that was delivered, us: of who received it, and of the source."""

    receiving: float
    sending: float


# From how many there are, a mode and seconds.
Measure = Callable[[int, str, float], Cost]


def run(quick: bool) -> list[Row | Plot]:
    """Microseconds of all receivers, over the frames that all of them got."""
    seconds = 2.0 if quick else 6.0
    found: list[Row | Plot] = []
    for name, title, numbers, measure in (
        ("consumers", "consumers in a set", _CONSUMERS, _consumers),
        ("channels", "channels of a collector", _CHANNELS, _channels),
    ):
        curves = []
        for mode in ("pva", "shm"):
            costs = [measure(number, mode, seconds) for number in numbers]
            receiving = [cost.receiving for cost in costs]
            curves.append(Curve(f"{mode}, receiving", numbers, receiving))
            curves.append(Curve(f"{mode}, source", numbers, [cost.sending for cost in costs]))
            found.append(_row(title, mode, numbers, receiving))
        what = f"CPU time per delivered frame, {_SIZE}x{_SIZE}"
        found.append(Plot(f"flatness-{name}", what, title, "us", curves, logarithmic="x"))
    return found


def _row(title: str, mode: str, numbers: Sequence[int], costs: Sequence[float]) -> Row:
    growth = max(costs) / costs[0]
    return Row(
        f"{numbers[0]} to {numbers[-1]} {title}, {mode}: largest CPU per frame over that of one",
        "times",
        growth,
        None,
        f"<= {1 + _TOLERANCE}",
        growth <= 1 + _TOLERANCE,
    )


def _consumers(number: int, mode: str, seconds: float) -> Cost:
    """Consumers of one set; each gets every frame."""
    with Source(_SIZE, mode=mode) as source, ExitStack() as stack:
        stages = [
            stack.enter_context(Stage(Consumer, source.channel, mode, "-dg", "g", "-ds", "s"))
            for _ in range(number)
        ]
        return _cost(source, stages, _SET_RATE, int(seconds * _SET_RATE))


def _channels(number: int, mode: str, seconds: float) -> Cost:
    """Channels of one collector."""
    rate = number * _CHANNEL_RATE
    ids = ",".join(str(k) for k in range(1, number + 1))
    with (
        Source(_SIZE, number, mode) as source,
        Stage(Collector, source.channel, mode, "-pid", ids) as collector,
    ):
        return _cost(source, [collector], rate, int(seconds * rate), number)


def _cost(source: Source, stages: Sequence[Stage], rate: float, n: int, held: int = 0) -> Cost:
    """What a burst of `n` frames takes; `held`: how many a stage may keep for its end."""
    connected(stages)
    programs = [stage.program for stage in stages]
    before, sent_before = sum(one.cpu() for one in programs), source.cpu()
    source.burst(rate, n)
    for stage in stages:
        stage.wait_processed(n - held)
    received = sum(one.cpu() for one in programs) - before
    sent = source.cpu() - sent_before
    got = [stage.finish()[0] for stage in stages]
    if any(one < n for one in got):
        raise RuntimeError(f"frames were lost: {got} of {n}")
    delivered = n * len(stages)
    return Cost(received / delivered * 1e6, sent / delivered * 1e6)
