"""The highest rate at which a consumer transposes every frame."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.consumer import TRANSPOSE, Burst, burst
from benchmarks.run import OURS, PVAPY, Source
from benchmarks.table import Row

_STEP = 1.35
_SECONDS = 2.5

# Runs a burst at a rate (frames/s) for a time (s).
Trial = Callable[[float, float], Burst]


def run(quick: bool) -> list[Row]:
    """Frames/s, by a ladder and then halving: sides take turns at each rung."""
    rows: list[Row] = []
    for size in (128, 512):
        with Source(size) as source:
            trials = {side: partial(burst, side, source, TRANSPOSE[side]) for side in (OURS, PVAPY)}
            rows.append(highest(f"consumer, transpose {size}x{size}", trials, quick))
    return rows


def highest(what: str, trials: dict[str, Trial], quick: bool) -> Row:
    """The highest rate of each side at which nothing was lost."""
    searches = [_Search(trial, 1 if quick else 3) for trial in trials.values()]
    while not all(search.done for search in searches):
        for search in searches:
            if not search.done:
                search.step()
    best = {side: search.best for side, search in zip(trials, searches, strict=True)}
    return Row(
        f"{what}: highest lossless rate",
        "frames/s",
        best[OURS],
        best[PVAPY],
        "ratio >= 2",
        best[OURS] >= 2 * best[PVAPY],
    )


class _Search:
    """Goes up by a factor until frames are lost, then halves the interval a few times."""

    def __init__(self, trial: Trial, halvings: int) -> None:
        self._trial = trial
        self._halvings = halvings
        self._rate = 0.0
        self._failed = 0.0
        self.best = 0.0

    def step(self) -> None:
        """Try one rate."""
        if not self._rate:
            # Begin below what the CPU time per frame allows on one core.
            found = self._trial(500, 2.0)
            self._rate = max(500.0, 0.6e6 / found.cpu)
            self.best = found.rate if found.kept_up else 0.0
            return
        found = self._trial(self._rate, _SECONDS)
        # A source that cannot go faster ends the search too: the figure is then a lower bound.
        if found.kept_up and found.rate > 0.97 * self._rate:
            self.best = max(self.best, found.rate)
        else:
            if found.kept_up:
                print(f"rates: the source itself stops at {found.rate:.0f} frames/s", flush=True)
                self.best = max(self.best, found.rate)
            self._failed = self._rate
        if not self._failed:
            self._rate *= _STEP
        else:
            self._halvings -= 1
            self._rate = (self.best + self._failed) / 2

    @property
    def done(self) -> bool:
        """Whether the interval is small enough."""
        return self._halvings < 0 or (self._failed > 0 and self._failed < 1.03 * self.best)
