"""Sorted ranges of ids as arrays, patterns of them, and their forms in memory and in files."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Half-open ranges: (n, 2) array of start and end. Sorted and disjoint where not said otherwise.
Ranges = NDArray[np.int64]

KEPT = 16  # runs; patterns with fewer are stored as plain intervals
NONE: Ranges = np.empty((0, 2), np.int64)


class Comb(NamedTuple):
    """``times`` runs of ``width`` ids, one every ``period`` ids, from ``first`` on."""

    first: int
    width: int
    period: int
    times: int

    @property
    def end(self) -> int:
        """One more than the last id."""
        return self.first + self.period * (self.times - 1) + self.width

    @property
    def n_ids(self) -> int:
        """How many ids it has."""
        return self.width * self.times


class PackedIntervals:
    """Sorted, disjoint intervals, 8 bytes each where their span allows it."""

    __slots__ = ("end", "first", "n_ids", "offsets", "widths")

    def __init__(self, ranges: Ranges) -> None:
        starts, widths = ranges[:, 0], ranges[:, 1] - ranges[:, 0]
        self.first, self.end = int(starts[0]), int(ranges[-1, 1])
        kind = np.uint32 if self.end - self.first < 2**32 else np.int64
        self.offsets = (starts - self.first).astype(kind)
        self.widths = widths.astype(kind)
        self.n_ids = int(widths.sum())

    def ranges(self, first: int | None = None, last: int | None = None) -> Ranges:
        """Its intervals, or those of them that have ids from first to last."""
        low, high = 0, len(self.offsets)
        if first is not None:
            low = max(0, int(np.searchsorted(self.offsets, first - self.first, side="right")) - 1)
        if last is not None:
            high = int(np.searchsorted(self.offsets, last - self.first, side="right"))
        starts = self.offsets[low:high].astype(np.int64) + self.first
        return np.stack([starts, starts + self.widths[low:high].astype(np.int64)], axis=1)

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int):
            return False
        offset = value - self.first
        at = int(np.searchsorted(self.offsets, offset, side="right")) - 1
        return at >= 0 and offset < int(self.offsets[at]) + int(self.widths[at])


def holds(comb: Comb, value: int) -> bool:
    """Whether an id is in a pattern."""
    distance = value - comb.first
    return 0 <= distance < comb.end - comb.first and distance % comb.period < comb.width


def cut(comb: Comb, first: int, last: int) -> Comb:
    """The runs of a pattern that overlap [first, last]; the outer ones may extend beyond it."""
    low = max(0, (first - comb.first - comb.width) // comb.period + 1)
    high = min(comb.times, max(0, (last - comb.first) // comb.period + 1))
    return Comb(comb.first + low * comb.period, comb.width, comb.period, max(0, high - low))


def pattern(comb: Comb, low: int, high: int) -> Iterator[Comb]:
    """The runs of a pattern from index low to before high, if there are any."""
    if low < high:
        yield Comb(comb.first + low * comb.period, comb.width, comb.period, high - low)


def comb_ranges(comb: Comb) -> Ranges:
    """The runs of a pattern."""
    if comb.times <= 0:
        return NONE
    if comb.width >= comb.period:
        return np.array([[comb.first, comb.end]], np.int64)
    starts = comb.first + comb.period * np.arange(comb.times, dtype=np.int64)
    return np.stack([starts, starts + comb.width], axis=1)


def compress(ranges: Ranges, keep: int = KEPT) -> Iterator[Comb | Ranges]:
    """Sorted ranges as patterns of at least `keep` runs and the ranges between them, in order."""
    n = len(ranges)
    if n < max(keep, 2):
        if n:
            yield ranges
        return
    starts, widths = ranges[:, 0], ranges[:, 1] - ranges[:, 0]
    steps = np.diff(starts)
    # Whether range k+1 follows range k as that one followed the one before.
    equal = widths[1:] == widths[:-1]
    follows = equal[1:] & equal[:-1] & (steps[1:] == steps[:-1])
    edges = np.flatnonzero(np.diff(np.concatenate([[False], follows, [False]]).astype(np.int8)))
    # Most regular stretches in irregular ids are short: discard them first.
    stretches = np.reshape(edges, (-1, 2))
    stretches = stretches[stretches[:, 1] - stretches[:, 0] + 2 >= keep]
    done = 0
    for first, last in stretches.tolist():
        begin, end = max(done, first), last + 2
        if end - begin < keep:
            continue
        if begin > done:
            yield ranges[done:begin]
        yield Comb(int(starts[begin]), int(widths[begin]), int(steps[begin]), end - begin)
        done = end
    if done < n:
        yield ranges[done:]


def packed_text(ranges: Ranges) -> str:
    """Ranges as a text: first id, bytes of a number, and widths and gaps in turn, compressed."""
    steps = np.diff(np.ravel(ranges))
    size = next(n for n in (1, 2, 4, 8) if int(steps.max()) < 2 ** (8 * n))
    packed = base64.b85encode(zlib.compress(steps.astype(f"<u{size}").tobytes(), 1))
    return f"{int(ranges[0, 0])}:{size}:{packed.decode('ascii')}"


def ranges_of_text(text: str) -> Ranges:
    """The ranges that `packed_text` wrote.

    Raises:
        ValueError: the text is damaged.
    """
    try:
        first, size, packed = text.split(":", 2)
        steps = np.frombuffer(zlib.decompress(base64.b85decode(packed)), f"<u{int(size)}")
    except (ValueError, TypeError, zlib.error) as error:
        raise ValueError(f"packed ids cannot be read: {error}") from error
    if len(steps) % 2 == 0 or not steps.all():
        raise ValueError("packed ids are damaged")
    points = np.concatenate([[int(first)], int(first) + np.cumsum(steps, dtype=np.int64)])
    return np.reshape(points, (-1, 2))


def union(ranges: Ranges) -> Ranges:
    """Sorted, disjoint ranges of any ranges."""
    if len(ranges) == 0:
        return NONE
    if np.any(ranges[1:, 0] < ranges[:-1, 0]):
        ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    reach = np.maximum.accumulate(ranges[:, 1])
    # A new range starts where all ranges before it have ended.
    new = np.concatenate([[True], ranges[1:, 0] > reach[:-1]])
    if new.all():
        return ranges
    firsts = np.flatnonzero(new)
    lasts = np.concatenate([firsts[1:] - 1, [len(ranges) - 1]])
    return np.stack([ranges[firsts, 0], reach[lasts]], axis=1)


def difference(ranges: Ranges, holes: Ranges) -> Ranges:
    """Ids of disjoint sorted `ranges` that are not in disjoint sorted `holes`."""
    if len(ranges) == 0 or len(holes) == 0:
        return ranges
    points = np.concatenate([ranges[:, 0], ranges[:, 1], holes[:, 0], holes[:, 1]])
    n, m = len(ranges), len(holes)
    inside = np.concatenate([np.ones(n), -np.ones(n), np.zeros(2 * m)])
    covered = np.concatenate([np.zeros(2 * n), np.ones(m), -np.ones(m)])
    order = np.argsort(points, kind="stable")
    points, inside, covered = points[order], np.cumsum(inside[order]), np.cumsum(covered[order])
    keep = (inside[:-1] > 0) & (covered[:-1] == 0) & (points[1:] > points[:-1])
    return union(np.stack([points[:-1][keep], points[1:][keep]], axis=1))
