"""CPU per frame of a consumer process."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.run import OURS, PROCESSORS, PVAPY, Consumer, Source, alternate, rounds
from benchmarks.table import Row

_SECONDS = 3.0
_PATIENCE = 3.0  # s; a consumer that is further behind at the end of a burst has lost the rest
_KEEPS_UP = 0.25  # s

TRANSPOSE = {side: ("-pf", file, "-pc", "Transpose") for side, file in PROCESSORS.items()}
PASS_THROUGH = {OURS: (), PVAPY: ("-pc", "pvapy.hpc.userDataProcessor.UserDataProcessor")}


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of a burst of frames.

    Attributes:
        cpu: CPU time per frame of the consumer, us.
        lost: frames that were not processed.
        behind: how long after the last was published the last was processed, s.
        rate: of the source, frames/s.
    """

    cpu: float
    lost: int
    behind: float
    rate: float

    @property
    def kept_up(self) -> bool:
        """Whether nothing was lost and no queue grew."""
        # Less than none: one that takes initial updates for frames.
        return self.lost <= 0 and self.behind < _KEEPS_UP


def burst(
    side: str,
    source: Source,
    args: tuple[object, ...],
    rate: float,
    seconds: float = _SECONDS,
    program: type[Consumer] = Consumer,
    held_back: int = 0,
) -> Burst:
    """Run a consumer for one burst of frames; `held_back`: how many it may keep for its end."""
    n = max(2, int(rate * seconds))
    with program(side, source.channel, *args) as consumer:
        consumer.ready()
        before = consumer.cpu()
        sent = source.burst(rate, n)
        start = time.monotonic()
        while (behind := time.monotonic() - start) < _PATIENCE:
            if (consumer.last_id() or 0) >= sent["last"] - held_back:
                break
            time.sleep(0.02)
        cpu = consumer.cpu() - before
        processed = consumer.finish()
    return Burst(cpu / max(1, processed) * 1e6, n - processed, behind, sent["rate"])


class _LossError(Exception):
    """A consumer did not process every frame."""


def _cpu(
    size: int, args: dict[str, tuple[object, ...]], rate: float, n: int
) -> tuple[dict[str, float], float]:
    """CPU per frame of both, us, and the rate at which both were lossless."""
    with Source(size) as source:

        def measure(side: str) -> float:
            found = burst(side, source, args[side], rate)
            if found.lost:
                raise _LossError(f"{side} lost {found.lost} frames at {rate:g} frames/s")
            return found.cpu

        problem = ""
        while rate > 20:
            try:
                return alternate(n, measure), rate
            except _LossError as error:
                problem = str(error)
                print(f"consumer, {size}x{size}: {problem}; again at a lower rate", flush=True)
                rate = round(rate * 0.6)
    raise RuntimeError(problem)


def run(quick: bool) -> list[Row]:
    """Microseconds of CPU per frame."""
    rows = []
    for what, size, args, rate, limit in (
        ("pass-through", 128, PASS_THROUGH, 2000, 0.8),
        ("transpose", 128, TRANSPOSE, 2000, 0.5),
        ("transpose", 512, TRANSPOSE, 800, 0.5),
    ):
        cpu, rate = _cpu(size, args, rate, rounds(quick))
        met = cpu[OURS] <= limit * cpu[PVAPY]
        # Half the CPU time per frame, or twice the lossless rate, which has rows of its own.
        either = what == "transpose"
        target = f"ratio <= {limit}" + (" or rate x 2" if either else "")
        name = f"consumer, {what} {size}x{size} at {rate:g} frames/s: CPU per frame"
        verdict = met or (None if either else False)
        rows.append(Row(name, "us", cpu[OURS], cpu[PVAPY], target, verdict))
    return rows
