"""Multisets of ids: an id that was sent twice must arrive twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.intervals import NONE, Ranges


def layers(sets: Iterable[IdSet]) -> list[IdSet]:
    """Ids that are in at least one of the sets, in at least two of them, and so on."""
    points, counts = _multiplicities([list(sets)])
    depth = int(counts[0].max(initial=0))
    return [_where(points, counts[0] > level) for level in range(depth)]


def ascending(ids: Iterable[int]) -> list[IdSet]:
    """Split ids into sets; a new set begins at an id that is not larger than the one before."""
    found: list[IdSet] = []
    last: int | None = None
    for value in ids:
        if last is None or value <= last:
            found.append(IdSet())
        found[-1].add(value)
        last = value
    return found


def excess(these: Sequence[IdSet], those: Sequence[IdSet]) -> IdSet:
    """Ids that are in more sets of `these` than of `those`."""
    points, counts = _multiplicities([these, those])
    return _where(points, counts[0] > counts[1])


def _multiplicities(
    families: Sequence[Sequence[IdSet]],
) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Ids at which multiplicities change, and for each family the multiplicity from there on."""
    found = [[ids.ranges() for ids in family if ids] for family in families]
    ranges = [np.concatenate(family) if family else NONE for family in found]
    points = np.unique(np.concatenate([one.ravel() for one in ranges]))
    return points, [_counts(points, one) for one in ranges]


def _counts(points: NDArray[np.int64], ranges: Ranges) -> NDArray[np.int64]:
    changes = np.zeros(len(points) + 1, np.int64)
    np.add.at(changes, np.searchsorted(points, ranges[:, 0]), 1)
    np.add.at(changes, np.searchsorted(points, ranges[:, 1]), -1)
    return np.cumsum(changes[:-1])


def _where(points: NDArray[np.int64], keep: NDArray[np.bool_]) -> IdSet:
    at = np.flatnonzero(keep)
    return IdSet.of_ranges(np.stack([points[at], points[at + 1]], axis=1)) if len(at) else IdSet()
