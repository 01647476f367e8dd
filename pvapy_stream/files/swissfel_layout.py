"""Groups of a file in the SwissFEL layout, and its completion; see `bsread.file`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pvapy_stream.accounting.idset import IdSet

if TYPE_CHECKING:
    import h5py

DATA = "data"
PRESENT = "is_data_present"
TIMES = "timestamp"

GENERAL = "general"
CHANNELS = "data"
ACQUISITION = "acquisition"
LOST = f"{ACQUISITION}/lost"

# Pulse ids are last: readers count the rows by them.
PULSES = ("timestamp", "flags", "pulse_id")
COUNTED = f"{ACQUISITION}/pulse_id"

DUPLICATE, OUT_OF_ORDER, OUTSIDE = 1, 2, 4

OPEN, CLOSED, RECOVERED = "open", "closed", "recovered"

_GENERAL = ("created", "user", "process", "instrument")
_NOT_GIVEN = "not given"
_ROWS = 1024
_PROGRAM = "pvapy_stream"


def make_tree(file: h5py.File, general: Mapping[str, str], about: Mapping[str, str | int]) -> None:
    """Make the groups of a new file."""
    file.create_group(CHANNELS)
    write_general(file, {**dict.fromkeys(_GENERAL, _NOT_GIVEN), **general})
    group = file.create_group(ACQUISITION)
    for name, dtype in zip(PULSES, (np.int64, np.uint8, np.int64), strict=True):
        make_dataset(group, name, dtype, (), _ROWS)
    group["timestamp"].attrs["units"] = "ns"
    group["flags"].attrs["meaning"] = "1 duplicate, 2 out of order, 4 outside the range asked for"
    group.attrs["state"] = OPEN
    group.attrs["program"] = f"{_PROGRAM} {metadata.version(_PROGRAM)}"
    group.attrs["start_time"] = _now()
    _note(group, about)


def write_general(file: h5py.File, general: Mapping[str, str]) -> None:
    """Write texts into /general, in place of those that are there."""
    group = file.require_group(GENERAL)
    for name, text in general.items():
        if name in group:
            del group[name]
        # A text without bytes would have no length, which HDF5 does not know.
        group[name] = np.bytes_(text.encode() or _NOT_GIVEN.encode())


def complete(
    file: h5py.File,
    lost: IdSet,
    about: Mapping[str, str | int],
    state: str,
    last: int | None = None,
) -> int:
    """Complete a file that is no longer written; its number of rows.

    Args:
        file: opened for writing, not in SWMR mode.
        lost: pulse ids that are not in it.
        about: attributes of the acquisition, by name.
        state: `CLOSED` or `RECOVERED`.
        last: rows with higher pulse ids at the end are cut off.
    """
    group = file[ACQUISITION]
    n = file[COUNTED].shape[0] if last is None else _cut(group, last)
    for name in PULSES:
        _fit(group[name], n)
    for channel in file[CHANNELS].values():
        for name in channel:
            base, older, _ = name.partition("(")
            if base not in (DATA, PRESENT, TIMES):
                continue
            # An older column keeps its length.
            _fit(channel[name], min(n, channel[name].shape[0]) if older else n)
    ranges = lost.ranges()
    file[LOST] = np.stack([ranges[:, 0], ranges[:, 1] - 1], axis=1)
    group.attrs["end_time"] = _now()
    _note(group, about)
    # Last: a file with this state is complete.
    group.attrs["state"] = state
    return n


def _cut(group: h5py.Group, last: int) -> int:
    """Number of rows up to the last id that is not larger; larger ids among them are flagged."""
    ids = group["pulse_id"][()]
    within = np.flatnonzero(ids <= last)
    n = int(within[-1]) + 1 if within.size else 0
    beyond = np.flatnonzero(ids[:n] > last)
    if beyond.size:
        group["flags"][beyond] |= OUTSIDE
    return n


def damaged_channels(file: h5py.File) -> list[str]:
    """Read all values; one sentence for each dataset that is incomplete or cannot be read."""
    n_rows = file[COUNTED].shape[0]
    closed = file[ACQUISITION].attrs["state"] != OPEN
    found = []
    for key, channel in file[CHANNELS].items():
        for name, dataset in channel.items():
            where = f"/{CHANNELS}/{key}/{name}"
            # A writer may have written more rows of large values, and fewer of absent ones.
            if closed and "(" not in name and dataset.shape[0] != n_rows:
                found.append(f"{where} has {dataset.shape[0]} rows, where there are {n_rows}")
            if name != "pulse_id" and (row := _unreadable_row(dataset)) is not None:
                found.append(f"{where} cannot be read from row {row} on")
    return found


def _unreadable_row(dataset: h5py.Dataset) -> int | None:
    rows = dataset.chunks[0] if dataset.chunks else _ROWS
    for start in range(0, dataset.shape[0], rows):
        try:
            dataset[start : start + rows]
        except (OSError, RuntimeError, ValueError):
            return start
    return None


def gaps(pulse_ids: NDArray[np.int64]) -> IdSet:
    """Missing ids of a stream whose pulse ids have a constant distance."""
    ids = np.unique(pulse_ids)
    steps = np.diff(ids)
    if not steps.size:
        return IdSet()
    step = int(steps.min())
    missing = IdSet()
    for k in np.flatnonzero(steps > step).tolist():
        missing.add_range(int(ids[k]) + step, int(ids[k + 1]) - step)
    return missing


def _fit(dataset: h5py.Dataset, n_rows: int) -> None:
    if dataset.shape[0] != n_rows:
        dataset.resize(n_rows, 0)


def _note(group: h5py.Group, about: Mapping[str, str | int]) -> None:
    for name, value in about.items():
        group.attrs[name] = value


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def make_dataset(
    group: h5py.Group,
    name: str,
    dtype: object,
    shape: tuple[int, ...],
    rows: int,
    **options: object,
) -> h5py.Dataset:
    """Make a dataset with no rows, which can grow."""
    return group.create_dataset(
        name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(rows, *shape), **options
    )
