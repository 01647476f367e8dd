"""A master file: one NeXus file with the images of several as links, in the order of their ids."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.errors import FileError
from pvapy_stream.files.columns import gather
from pvapy_stream.files.disk import check_new, file_error, identity, take_name
from pvapy_stream.files.instrument import common, read_series, write_series
from pvapy_stream.files.names import part_of
from pvapy_stream.files.nexus_layout import (
    ATTRIBUTES,
    CHECKSUMS,
    IDS,
    IMAGES,
    TIMES,
    collection,
    describe,
    make_tree,
    opened,
)
from pvapy_stream.files.reading import open_data
from pvapy_stream.files.record import LossRecord
from pvapy_stream.files.taken import run_of


class _Source(Struct, frozen=True):
    """One of the files: opened, with its ids so far."""

    path: Path
    file: h5py.File
    ids: NDArray[np.int64]


def make_master(
    files: Sequence[str | Path], target: str | Path, *, overwrite: bool = False, run: str = ""
) -> int:
    """Make a master of existing files; it contains no pixels, but a virtual dataset of theirs.

    Files that are still being written (`.part`) are taken as they are now: make the master again
    when they are closed.

    Args:
        files: of images of one shape and type; any number, in any order.
        target: the master; it refers to the files by paths relative to its own.
        overwrite: whether a file that exists may be replaced.
        run: name of the run, see `run_id`; files that it wrote are not replaced.

    Returns:
        number of images.

    Raises:
        FileError: a file cannot be read or written, or the images are of different kinds.
    """
    target = Path(target)
    if not files:
        raise FileError(f"cannot make {target}: no files are given")
    check_new(target, overwrite)
    replaces = identity(target)
    if replaces is not None and run and run_of(target) == run:
        raise FileError(f"{target} is a file of this run; give the master another name")
    part = part_of(target)
    with ExitStack() as stack:
        sources: list[_Source] = []
        for path in map(Path, files):
            file = stack.enter_context(open_data(path))
            sources.append(_Source(path, file, file[IDS][()]))
        _check_alike(sources)
        order = np.argsort(np.concatenate([one.ids for one in sources]), kind="stable")
        try:
            with opened(part, "x") as master:
                _fill(master, sources, order, target)
            take_name(part, target, replaces)
        except FileExistsError as error:
            raise file_error("write", target, error) from error
        except (OSError, RuntimeError, ValueError) as error:
            part.unlink(missing_ok=True)
            raise file_error("write", target, error) from error
        except FileError:
            part.unlink(missing_ok=True)
            raise
    return len(order)


def _check_alike(sources: Sequence[_Source]) -> None:
    first = sources[0]
    for one in sources:
        images, model = one.file[IMAGES], first.file[IMAGES]
        if images.is_virtual:
            raise FileError(f"{one.path} is a master itself; give the files it shows")
        if images.shape[1:] != model.shape[1:] or images.dtype != model.dtype:
            raise FileError(
                f"{one.path} has images of {images.shape[1:]} {images.dtype}, {first.path} of"
                f" {model.shape[1:]} {model.dtype}: make a master of each kind"
            )


def _fill(
    master: h5py.File, sources: Sequence[_Source], order: NDArray[np.int64], target: Path
) -> None:
    data = make_tree(master, {}, sources[0].file[IMAGES].shape[1:])
    entry = master["entry"]
    series = common(read_series(one.file["entry"]) for one in sources)
    if series is not None:
        write_series(entry, series)
    _make_images(data, sources, order, target)

    def joined(name: str) -> NDArray[np.generic]:
        # As many as there are ids: in a growing file, other datasets may be longer by now.
        parts = [one.file[name][: len(one.ids)] for one in sources]
        return np.concatenate(parts)[order]

    data["id"], data["time"], entry["checksum"] = joined(IDS), joined(TIMES), joined(CHECKSUMS)
    describe(data["time"], entry["checksum"])
    lengths = [len(one.ids) for one in sources]
    attributes = collection(entry, "attributes")
    gather([one.file[ATTRIBUTES] for one in sources], lengths, order, attributes)
    record: LossRecord | None = None
    for one in sources:
        other = LossRecord.read(one.file["entry"])
        if other is None:
            other = LossRecord("being written")
        if record is None:
            record = other
        else:
            record.merge(other)
    if record is not None:
        record.write(entry)


def _make_images(
    data: h5py.Group, sources: Sequence[_Source], order: NDArray[np.int64], target: Path
) -> None:
    """Make the virtual dataset; the images of one file often form one regular pattern."""
    model = sources[0].file[IMAGES]
    image = model.shape[1:]
    rest = (0,) * len(image)
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    begin = 0
    for one in sources:
        places = place[begin : begin + len(one.ids)]
        begin += len(one.ids)
        name = os.path.relpath(one.path.resolve(), target.resolve().parent).encode()
        row = 0
        # Rows are not in the order of ids where a source started its ids again.
        for run in np.split(places, np.flatnonzero(np.diff(places) < 0) + 1):
            for comb in IdSet(run.tolist()).combs():
                shown = h5py.h5s.create_simple((len(order), *image))
                shown.select_hyperslab(
                    (comb.first, *rest),
                    (comb.times, *(1 for _ in image)),
                    (max(comb.period, comb.width), *image),
                    (comb.width, *image),
                )
                n_rows = comb.width * comb.times
                stored = h5py.h5s.create_simple((len(one.ids), *image))
                stored.select_hyperslab((row, *rest), (n_rows, *image))
                plan.set_virtual(shown, name, f"/{IMAGES}".encode(), stored)
                row += n_rows
    space = h5py.h5s.create_simple((len(order), *image))
    h5py.h5d.create(data.id, b"data", h5py.h5t.py_create(model.dtype, logical=True), space, plan)
    data["data"].attrs["interpretation"] = model.attrs["interpretation"]
