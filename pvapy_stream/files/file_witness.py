"""The content of files: after a kill the file decides, not the ledger of its writer."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.errors import FileError
from pvapy_stream.files import swissfel_layout
from pvapy_stream.files.names import PART
from pvapy_stream.files.nexus_layout import CHECKSUMS, IDS, IMAGES, ROWS_PER_CHUNK, TIMES
from pvapy_stream.files.reading import chunk_is_whole, open_any, open_data
from pvapy_stream.files.record import LossRecord, ids_of
from pvapy_stream.files.recorded import RecordedStream
from pvapy_stream.files.superblock import is_cut, open_cut

if TYPE_CHECKING:
    import h5py

_TAIL = 64  # rows at the end of a file that was not closed whose checksums are always compared


class Witness(Struct, frozen=True):
    """The content of one file.

    Attributes:
        path: the file, with its present name.
        ids: ids whose images are in it and can be read.
        n_images: number of these images; more than ids if ids occur twice.
        closed: whether its writer closed it, or it was recovered.
        stage: kind and id of the stage that wrote the file, "" for none.
        input_channel: channel the stage received from, "" for none.
        run: name of the run that wrote the file, see `run_id`.
        problem: why it cannot be read, "" if it can.
    """

    path: Path
    ids: IdSet = field(default_factory=IdSet)
    n_images: int = 0
    closed: bool = False
    stage: str = ""
    input_channel: str = ""
    run: str = ""
    problem: str = ""

    @property
    def unfinished(self) -> bool:
        """Whether it still has to be completed or renamed."""
        return not self.closed or self.path.name.endswith(PART)

    @property
    def repair_command(self) -> str:
        """The command that completes it; "" if it is complete."""
        path = shlex.quote(str(self.path))
        return f"pvapy-stream verify --repair {path}" if self.unfinished else ""


def witness(path: str | Path, *, deep: bool = False) -> Witness:
    """Read which ids a file contains; it may be closed, being written, or left by a killed writer.

    Args:
        path: the file, also a `.part`.
        deep: compare the checksums of all images, which reads the whole file. Otherwise, for a file
            that was not closed, the checksums of the last images are compared, and for other images
            it is only checked that their bytes exist.

    Returns:
        the content; a file that cannot be read has a `problem` and no ids.
    """
    path = Path(path)
    try:
        for kind in (_witness_messages, _witness_recording):
            if (found := kind(path)) is not None:
                return found
        file, raw = _opened(path)
        with file:
            record = None if raw else LossRecord.read(file["entry"])
            size = path.stat().st_size
            rows = readable_rows(file, size, deep=deep or raw, closed=record is not None)
            ids = file[IDS][: len(rows)][rows]
            attributes = {name: str(value) for name, value in file.attrs.items()}
            return Witness(
                path,
                ids_of(ids),
                len(ids),
                record is not None,
                attributes.get("stage", ""),
                attributes.get("input_channel", ""),
                attributes.get("run", ""),
            )
    except FileError as error:
        return Witness(path, problem=str(error))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        return Witness(path, problem=f"{path} cannot be read: {error}")


def _witness_recording(path: Path) -> Witness | None:
    """The same for a recording, which needs no completion to be read; None for another file."""
    try:
        stream = RecordedStream(path)
    except FileError:
        return None
    with stream:
        return Witness(
            path,
            ids_of(stream.ids),
            stream.n_rows,
            stream.closed,
            stream.stage,
            stream.channel,
            stream.run,
        )


def _witness_messages(path: Path) -> Witness | None:
    """The same for a file in the SwissFEL layout; None for another."""
    try:
        file = open_any(path)
    except FileError:
        return None
    with file:
        if swissfel_layout.ACQUISITION not in file:
            return None
        ids = file[swissfel_layout.COUNTED][()]
        attributes = file[swissfel_layout.ACQUISITION].attrs
        return Witness(
            path,
            ids_of(ids),
            len(ids),
            attributes["state"] != swissfel_layout.OPEN,
            str(attributes.get("stage", "")),
            str(attributes.get("input_channel", "")),
        )


def ids_in(path: str | Path, *, deep: bool = False) -> IdSet:
    """Ids whose images are in a file and can be read; none of a file that cannot be read."""
    return witness(path, deep=deep).ids


def _opened(path: Path) -> tuple[h5py.File, bool]:
    """Open a file; the file, and whether it was opened without the checks of HDF5.

    Raises:
        FileError: it cannot be read either way.
        OSError: likewise.
    """
    if is_cut(path):
        return open_cut(path), True
    try:
        return open_data(path), False
    except FileError:
        # This process may have been unable to close the file, and have it still open.
        if not path.name.endswith(PART):
            raise
        return open_cut(path), True


def readable_rows(
    file: h5py.File, size: int = 0, *, deep: bool, closed: bool = False
) -> NDArray[np.bool_]:
    """Which rows of a file can be read: (n,) array of bool.

    Args:
        file: of frames, opened.
        size: of the file in bytes; 0 when it is not to be looked at.
        deep: compare the checksums of all images.
        closed: whether its writer closed it.
    """
    images = file[IMAGES]
    n_rows = _common_rows(file)
    checks = file[CHECKSUMS][:n_rows]
    first = 0 if deep else n_rows if closed else max(0, n_rows - _TAIL)
    good = np.zeros(n_rows, bool)
    for row in range(n_rows):
        good[row] = (
            chunk_is_whole(images, row, int(checks[row]))
            if row >= first
            else images.is_virtual or _is_stored(images, row, size)
        )
    return good


def _common_rows(file: h5py.File) -> int:
    """Number of rows that images and columns have in common and that can be read."""
    n_rows = min(file[name].shape[0] for name in (IMAGES, IDS, TIMES, CHECKSUMS))
    while n_rows:
        try:
            for name in (IDS, TIMES, CHECKSUMS):
                file[name][:n_rows]
        except (OSError, RuntimeError, ValueError):
            n_rows = (n_rows - 1) // ROWS_PER_CHUNK * ROWS_PER_CHUNK
        else:
            break
    return n_rows


def _is_stored(images: h5py.Dataset, row: int, size: int) -> bool:
    """Whether all bytes of an image are within the file."""
    try:
        info = images.id.get_chunk_info_by_coord((row,) + (0,) * (images.ndim - 1))
    except (OSError, RuntimeError, ValueError):
        return False
    return info.byte_offset is not None and info.byte_offset + info.size <= size
