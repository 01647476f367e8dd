"""One NeXus file: its groups and datasets, growing while others read it, and its end.

::

    /                 NXroot, default=entry
      entry           NXentry, default=data
        data          NXdata, signal=data, axes=id, y, x[, colour]
          data        (n, ny, nx[, 3]) images, one a chunk
          id          (n,) ids
          y, x        (ny,), (nx,) numbers of the pixels, from 0 on; colour: (3,)
          time        (n,) ns since 1970-01-01 UTC, 0 for unknown
        checksum      (n,) CRC-32 of each image's chunk as it is stored
        attributes    NXcollection, one column for each attribute
        loss_record   NXcollection, only in files that were closed
        instrument    only of series, and where the names of areaDetector's plugin are wanted
          beam, detector  NXbeam, NXdetector: data, and what is the same for all images
          NDAttributes  NXcollection of links: the columns, and NDArrayUniqueId
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pvapy_stream.errors import FileError
from pvapy_stream.files.chunks import Chunk, filter_options
from pvapy_stream.files.columns import LOG, Columns, settle
from pvapy_stream.files.disk import (
    Identity,
    Reserve,
    file_error,
    note_failed_close,
    show_name,
    take_name,
)
from pvapy_stream.files.instrument import make_detector, write_series
from pvapy_stream.files.names import part_of
from pvapy_stream.files.record import LossRecord
from pvapy_stream.series import SeriesMetadata

IMAGES = "entry/data/data"
IDS = "entry/data/id"
TIMES = "entry/data/time"
CHECKSUMS = "entry/checksum"
ATTRIBUTES = "entry/attributes"
ND_ATTRIBUTES = "entry/instrument/NDAttributes"

ROWS_PER_CHUNK = 1024
_PROGRAM = "pvapy_stream"
_AXES = ("y", "x", "colour")
_EPOCH = "1970-01-01T00:00:00Z"


class NexusFile:
    """A file that is being written; `PATH.part` until it is closed. One thread at a time.

    Args:
        path: its name when it is closed.
        image_shape: of one image, (ny, nx) or (ny, nx, 3).
        dtype: of one pixel.
        codec: how chunks are compressed, see `chunks`.
        attributes: of the first image; they determine the columns.
        replaces: the file of that name that is replaced when this one is closed; None for none.
        image_name: another name for the images, "" for none.
        notes: texts by name, such as the reason for a new file.
        origin: attributes of the file that identify its writer.
        area_detector: whether it has the names of areaDetector's HDF5 plugin too.
        live: whether readers find it under its name already while it is written.
        series: what is the same for all images; None if nothing is known.

    Raises:
        FileError: another writer has it open, or it cannot be created.
    """

    def __init__(
        self,
        path: Path,
        image_shape: tuple[int, ...],
        dtype: np.dtype[np.generic],
        *,
        codec: str = "none",
        attributes: Mapping[str, object] | None = None,
        replaces: Identity | None = None,
        image_name: str = "",
        notes: Mapping[str, str] | None = None,
        origin: Mapping[str, str] | None = None,
        area_detector: bool = False,
        live: bool = False,
        series: SeriesMetadata | None = None,
    ) -> None:
        self.path = path
        self.part = part_of(path)
        self.kind = (image_shape, dtype)
        self.codec = codec
        self.n_rows = 0
        self.n_written = 0
        self._offset = (0,) * len(image_shape)
        self._ids: list[int] = []
        self._times: list[int] = []
        self._replaces = replaces
        self._reserve = Reserve(path.parent)
        try:
            # Readers take no locks in SWMR mode, and the name excludes other writers.
            self._file = opened(self.part, "x")
        except (OSError, RuntimeError, ValueError) as error:
            self._reserve.release()
            raise file_error("write", self.part, error) from error
        try:
            self._file.attrs.update(origin or {})
            self._make(codec, attributes or {}, image_name, notes or {})
            if series is not None:
                write_series(self._file["entry"], series)
            if area_detector:
                _add_instrument(self._file)
            self._file.swmr_mode = True
            if live:
                show_name(self.part, path)
        except (OSError, RuntimeError, ValueError, FileError) as error:
            self.abandon()
            # It is ours, and there is no image in it.
            self.part.unlink(missing_ok=True)
            if isinstance(error, FileError):
                raise
            raise file_error("write", self.part, error) from error

    def _make(
        self,
        codec: str,
        attributes: Mapping[str, object],
        image_name: str,
        notes: Mapping[str, str],
    ) -> None:
        shape, dtype = self.kind
        data = make_tree(self._file, notes, shape)
        images = data.create_dataset(
            "data",
            (0, *shape),
            dtype,
            maxshape=(None, *shape),
            chunks=(1, *shape),
            **filter_options(codec),
        )
        entry = self._file["entry"]
        images.attrs["interpretation"] = "rgb-image" if len(shape) == 3 else "image"
        if image_name and f"/{image_name.strip('/')}" != images.name:
            self._file[image_name] = h5py.SoftLink(images.name)
        self._image_set = images
        self._images = images.id
        self._rows = [
            _column(data, "id", np.int64),
            _column(data, "time", np.int64),
            _column(entry, "checksum", np.uint32),
        ]
        describe(data["time"], entry["checksum"])
        self._columns = Columns(collection(entry, "attributes"), attributes)

    def add(self, frame_id: int, time_ns: int, attributes: Mapping[str, object]) -> int:
        """Add a row for an image, to be filled by `put`; the number of the row."""
        row = self.n_rows
        self._images.set_extent((row + 1, *self.kind[0]))
        self._columns.add(row, attributes)
        self._ids.append(frame_id)
        self._times.append(time_ns)
        self.n_rows = row + 1
        return row

    def put(self, row: int, chunk: Chunk) -> None:
        """Write the chunk of one row."""
        self._images.write_direct_chunk((row, *self._offset), chunk)

    def write(self, checksums: list[int]) -> None:
        """Write ids, times and attributes of the next rows, whose images are all in the file.

        Args:
            checksums: of those rows; later rows are discarded, unless this raises.
        """
        start, stop = self.n_written, self.n_written + len(checksums)
        if stop > start:
            # Images first: a reader, or the recovery after a crash, counts the ids.
            self._image_set.flush()
            for data, values in zip(self._rows, (self._ids, self._times, checksums), strict=True):
                data.resize((stop,))
                data[start:stop] = values[: stop - start]
            self._columns.write(start, stop)
            self._file.flush()
        self._ids.clear()
        self._times.clear()
        self.n_written = self.n_rows = stop

    def prepare_to_end(self) -> None:
        """Free the reserved space, to close the file on a full disk."""
        self._reserve.release()

    def close(self, record: LossRecord, notes: Mapping[str, str]) -> None:
        """Cut, complete and rename the file; rows that `write` did not flush are cut off.

        Raises:
            FileError: that is not possible; what was written stays as `PATH.part`.
        """
        self._reserve.release()
        try:
            self._file.close()
            # Readers may hold a lock, which must not prevent this.
            with opened(self.part, "r+", locking=False) as file:
                complete(file, record, notes, self.n_written)
            take_name(self.part, self.path, self._replaces)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            note_failed_close(self)
            raise file_error("complete", self.part, error) from error

    def abandon(self) -> None:
        """Leave the file as it is, as if its writer had been killed."""
        self._reserve.release()
        try:
            self._file.close()
        except (OSError, RuntimeError, ValueError):
            # Its disk is full: what was flushed is there.
            note_failed_close(self)


def opened(path: Path, mode: str, **options: Any) -> h5py.File:
    """Open a file in the newest format of HDF5; arguments as those of `h5py.File`."""
    return h5py.File(path, mode, libver="latest", **options)


def make_tree(
    file: h5py.File, notes: Mapping[str, str], image_shape: tuple[int, ...]
) -> h5py.Group:
    """Make the groups that NeXus readers expect; the group for the images."""
    file.attrs["NX_class"] = "NXroot"
    file.attrs["default"] = "entry"
    file.attrs["creator"] = f"{_PROGRAM} {_version()}"
    entry = file.create_group("entry")
    entry.attrs["NX_class"] = "NXentry"
    entry.attrs["default"] = "data"
    entry["start_time"] = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    entry["program_name"] = _PROGRAM
    entry["program_name"].attrs["version"] = _version()
    add_notes(entry, notes)
    data = entry.create_group("data")
    data.attrs["NX_class"] = "NXdata"
    data.attrs["signal"] = "data"
    # Each dimension has its field: validators know no "." for one without.
    axes = ["id", *_AXES[: len(image_shape)]]
    data.attrs["axes"] = axes
    for number, name in enumerate(axes):
        data.attrs[f"{name}_indices"] = number
    for name, length in zip(axes[1:], image_shape, strict=True):
        data[name] = np.arange(length, dtype=np.int32)
    return data


def describe(time: h5py.Dataset, checksum: h5py.Dataset) -> None:
    """Set the attributes that describe times and checksums."""
    time.attrs["units"] = "ns"
    time.attrs["start"] = _EPOCH
    checksum.attrs["description"] = "CRC-32 (as zlib's) of the stored chunk of each image"


def collection(parent: h5py.Group, name: str) -> h5py.Group:
    """Make a group of class NXcollection."""
    group = parent.create_group(name)
    group.attrs["NX_class"] = "NXcollection"
    return group


def add_notes(entry: h5py.Group, notes: Mapping[str, str]) -> None:
    """Write texts, each as an NXnote."""
    for name, text in notes.items():
        note = entry.create_group(name)
        note.attrs["NX_class"] = "NXnote"
        note["type"] = "text/plain"
        note["description"] = text


def complete(file: h5py.File, record: LossRecord, notes: Mapping[str, str], n_rows: int) -> None:
    """Complete a file with its first `n_rows` images; it is not in SWMR mode."""
    for name in (IMAGES, IDS, TIMES, CHECKSUMS):
        if file[name].shape[0] != n_rows:
            file[name].resize(n_rows, 0)
    entry = file["entry"]
    settle(file[ATTRIBUTES], n_rows)
    if ND_ATTRIBUTES in file:
        # Columns that began late have their links only now.
        _link_columns(file)
    entry["end_time"] = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    add_notes(entry, notes)
    # Last: a file with this record is complete.
    record.write(entry)


def _add_instrument(file: Any) -> None:
    """Links with the names that areaDetector's HDF5 plugin gives."""
    instrument = make_detector(file["entry"])
    collection(instrument, "NDAttributes")["NDArrayUniqueId"] = h5py.SoftLink(f"/{IDS}")
    _link_columns(file)


def _link_columns(file: Any) -> None:
    group = file[ND_ATTRIBUTES]
    for key in file[ATTRIBUTES]:
        if key != LOG and group.get(key, getlink=True) is None:
            group[key] = h5py.SoftLink(f"/{ATTRIBUTES}/{key}")


def _version() -> str:
    try:
        return metadata.version(_PROGRAM)
    except metadata.PackageNotFoundError:
        return "unknown"


def _column(group: h5py.Group, name: str, dtype: object) -> h5py.Dataset:
    return group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(ROWS_PER_CHUNK,))
