"""Recovery of files whose writer was killed, or could not close them."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pvapy_stream.errors import FileError
from pvapy_stream.files import swissfel_layout
from pvapy_stream.files.chunks import NONE, codec_of
from pvapy_stream.files.columns import take_rows
from pvapy_stream.files.disk import file_error, same_file, take_name
from pvapy_stream.files.file_witness import readable_rows
from pvapy_stream.files.instrument import read_series
from pvapy_stream.files.names import PART, final_of, part_of
from pvapy_stream.files.nexus_layout import (
    ATTRIBUTES,
    CHECKSUMS,
    IDS,
    IMAGES,
    ND_ATTRIBUTES,
    TIMES,
    NexusFile,
    complete,
    opened,
)
from pvapy_stream.files.reading import chunk_is_whole, open_any, open_data
from pvapy_stream.files.record import RECOVERED, LossRecord
from pvapy_stream.files.recorded import RecordedStream
from pvapy_stream.files.recording import CLOSED, complete_recording
from pvapy_stream.files.superblock import is_cut, open_cut, unmark
from pvapy_stream.series import SeriesMetadata

if TYPE_CHECKING:
    import h5py

_DAMAGED = ".damaged"
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_ROWS_AT_ONCE = 1024
_TROUBLE = (OSError, RuntimeError, ValueError, KeyError)

_log = logging.getLogger(__name__)


def repair(path: str | Path) -> tuple[Path, int]:
    """Complete a file whose writer was killed, and remove `.part` from its name.

    If the end of the file is missing, its readable part is copied to a new file, and the old one is
    kept as ``PATH.damaged``.

    Returns:
        its new path, and its number of images or rows.

    Raises:
        FileError: this program did not write it, it is complete, or it cannot be recovered.
    """
    path = Path(path)
    if same_file(path, part_of(path)):
        # It was to be read under its name while it was written.
        path = part_of(path)
    target = final_of(path) if path.name.endswith(PART) else path
    if target != path and target.exists() and not same_file(path, target):
        raise FileError(f"cannot recover {path}: {target} exists; move one of them away")
    try:
        if (n_rows := _repair_recording(path, target)) is not None:
            return target, n_rows
        if is_cut(path) or (target != path and not _opens(path)):
            return target, _copy_readable(path, target)
        if target != path and (n_closed := _closed_rows(path)) is not None:
            # It was closed, and could not get its name.
            take_name(path, target)
            return target, n_closed
        if _holds_messages(path):
            n_good = _check_messages(path)
            finish = _finish_messages
        else:
            n_good = _check(path)
            finish = _finish_frames
        unmark(path)
        with opened(path, "r+") as file:
            finish(file, n_good)
        if target != path:
            take_name(path, target)
    except _TROUBLE as error:
        raise file_error("recover", path, error) from error
    return target, n_good


def _opens(path: Path) -> bool:
    """Whether HDF5 opens a file; if its last flush failed, it may be readable only otherwise."""
    if not path.is_file():
        return True
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            # Not HDF5: opening it raises an error with the reason.
            return True
    try:
        open_any(path).close()
    except FileError:
        return False
    return True


def _closed_rows(path: Path) -> int | None:
    """Number of rows of a file that was closed; None for one that was not."""
    if _holds_messages(path):
        with open_any(path) as file:
            state = file[swissfel_layout.ACQUISITION].attrs["state"]
            return None if state == swissfel_layout.OPEN else len(file[swissfel_layout.COUNTED])
    with open_data(path) as file:
        return len(file[IDS]) if "loss_record" in file["entry"] else None


def _check(path: Path) -> int:
    """How many images from the first on are whole."""
    with open_data(path) as file:
        if "loss_record" in file["entry"]:
            raise FileError(f"{path} is whole: its writer closed it; there is nothing to recover")
        images, checks = file[IMAGES], file[CHECKSUMS][()]
        n_good = min(file[name].shape[0] for name in (IMAGES, IDS, TIMES, CHECKSUMS))
        while n_good and not chunk_is_whole(images, n_good - 1, int(checks[n_good - 1])):
            n_good -= 1
        return n_good


def _finish_frames(file: h5py.File, n_good: int) -> None:
    text = f"The writer of this file was killed; recovered with {n_good} images."
    complete(file, LossRecord(RECOVERED), {"recovery": text}, n_good)


# -- files whose end is missing ------------------------------------------------------------------


def _copy_readable(path: Path, target: Path) -> int:
    """Copy all readable images to a new file; their number."""
    work = target.with_name(f"{target.name}.recovered")
    kept = path.with_name(path.name + _DAMAGED)
    if kept.exists():
        raise FileError(f"cannot recover {path}: {kept} exists; move it away")
    with open_cut(path) as source:
        try:
            rows = np.flatnonzero(readable_rows(source, deep=True))
        except _TROUBLE as error:
            raise FileError(
                f"cannot recover {path}: no image can be read; its writer was killed before it"
                f" wrote any, and the file can be removed, or it is damaged ({error})"
            ) from error
        if not len(rows):
            raise FileError(f"cannot recover {path}: its end is missing, and no image can be read")
        _copy(source, rows, work)
    if same_file(path, target):
        target.unlink()
    path.rename(kept)
    take_name(work, target)
    _log.warning("%s: its end is missing; %s has the readable part", kept, target)
    return len(rows)


def _copy(source: h5py.File, rows: NDArray[np.int64], work: Path) -> None:
    """Write some rows of a file to a new one, with unchanged chunks."""
    images = source[IMAGES]
    codec = codec_of(images)
    made = NexusFile(
        work,
        images.shape[1:],
        images.dtype,
        codec=codec or NONE,
        origin={name: str(value) for name, value in source.attrs.items() if name in _ORIGIN},
        area_detector=ND_ATTRIBUTES in source,
        series=_series(source),
    )
    ids, times, checks = (_rows_of(source[name], rows) for name in (IDS, TIMES, CHECKSUMS))
    offset = (0,) * (images.ndim - 1)
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        piece = slice(begin, begin + _ROWS_AT_ONCE)
        for at, row in enumerate(rows[piece].tolist(), begin):
            _, chunk = images.id.read_direct_chunk((row, *offset))
            made.put(made.add(int(ids[at]), int(times[at]), {}), chunk)
        made.write(checks[piece].tolist())
    n_lost = max(source[name].shape[0] for name in (IMAGES, IDS)) - len(rows)
    text = (
        f"The end of {source.filename} is missing; recovered with {len(rows)} images, {n_lost}"
        " could not be read."
    )
    made.close(LossRecord(RECOVERED), {"recovery": text})
    with opened(work, "r+") as file:
        take_rows(source[ATTRIBUTES], rows, file[ATTRIBUTES])


_ORIGIN = ("run", "stage", "input_channel")


def _series(source: h5py.File) -> SeriesMetadata | None:
    """What the file has for all of its images, if that can be read."""
    with suppress(*_TROUBLE):
        return read_series(source["entry"])
    return None


def _rows_of(data: h5py.Dataset, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of a column, of which not all may be readable."""
    return data[: int(rows[-1]) + 1][rows]


# -- messages ------------------------------------------------------------------------------------


def _holds_messages(path: Path) -> bool:
    with open_any(path) as file:
        return swissfel_layout.ACQUISITION in file


def _check_messages(path: Path) -> int:
    """Number of rows of a file that was not closed."""
    with open_any(path) as file:
        if file[swissfel_layout.ACQUISITION].attrs["state"] != swissfel_layout.OPEN:
            raise FileError(f"{path} is whole: its writer closed it; there is nothing to recover")
        return file[swissfel_layout.COUNTED].shape[0]


def _finish_messages(file: h5py.File, n_good: int) -> None:
    lost = swissfel_layout.gaps(file[swissfel_layout.COUNTED][:n_good])
    swissfel_layout.complete(file, lost, {}, swissfel_layout.RECOVERED)


# -- recordings ----------------------------------------------------------------------------------


def _repair_recording(path: Path, target: Path) -> int | None:
    """Complete a recording; its number of objects. None for another file."""
    try:
        stream = RecordedStream(path)
    except FileError:
        return None
    with stream:
        n_rows, closed, cut = stream.n_rows, stream.closed, is_cut(path)
    if cut or (closed and target == path):
        what = "its end is missing" if cut else "it is whole"
        raise FileError(
            f"{path}: {what}; pvapy-stream replay reads it as it is, there is nothing to complete"
        )
    if not closed:
        unmark(path)
        with opened(path, "r+") as file:
            complete_recording(file, n_rows, "its recorder was killed", CLOSED)
    take_name(path, target)
    return n_rows
