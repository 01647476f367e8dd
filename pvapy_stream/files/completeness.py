"""Checks whether a file of frames is complete: ids, lengths, checksums and loss record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.errors import CodecError, FileError
from pvapy_stream.files.names import PART
from pvapy_stream.files.nexus_layout import ATTRIBUTES, CHECKSUMS, IDS, IMAGES, TIMES
from pvapy_stream.files.reading import check_pixels_of, chunk_is_whole, open_any, open_data
from pvapy_stream.files.record import RECOVERED, LossRecord, ids_of
from pvapy_stream.files.recorded import RecordedStream, is_recording
from pvapy_stream.files.superblock import is_cut
from pvapy_stream.files.swissfel_layout import ACQUISITION, COUNTED, LOST, OPEN, damaged_channels

if TYPE_CHECKING:
    import h5py

_UNREADABLE = "unreadable"
_OPEN = "not closed"


class FileReport(Struct):
    """The result for one file.

    Attributes:
        path: the file.
        state: closed, recovered, not closed, master or unreadable.
        n_images: number of images in it.
        n_checked: number of images with the right checksum.
        ids: all ids in it.
        lost: lost ids, by their fate.
        filtered: ids that were dropped on purpose before the writer; they are no loss.
        problems: damage and losses, one sentence each.
        notes: further information, one sentence each.
    """

    path: Path
    state: str = _UNREADABLE
    n_images: int = 0
    n_checked: int = 0
    ids: IdSet = field(default_factory=IdSet)
    lost: dict[str, IdSet] = field(default_factory=dict)
    filtered: IdSet = field(default_factory=IdSet)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def n_lost(self) -> int:
        """Ids that are lost."""
        return sum(map(len, self.lost.values()))

    @property
    def ok(self) -> bool:
        """Whether nothing is lost or damaged."""
        return not self.problems and not self.lost


def verify(path: str | Path, *, deep: bool = False) -> FileReport:
    """Check a whole file, or a master and its files. A damaged file raises nothing.

    Args:
        path: the file.
        deep: decode every image too; a checksum only shows that the stored bytes are unchanged.
    """
    path = Path(path)
    report = FileReport(path)
    try:
        with open_any(path) as file:
            messages = ACQUISITION in file
            if is_recording(file):
                _look_at_recording(report)
                return report
        with (open_any if messages else open_data)(path) as file:
            if messages:
                _look_at_messages(report, file)
            elif file[IMAGES].is_virtual:
                _look_at_master(report, file, deep)
            else:
                _look_at_file(report, file, deep)
    except FileError as error:
        report.problems.append(str(error) + _hint(path))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        report.problems.append(f"cannot be read: {error}")
    return report


def _look_at_recording(report: FileReport) -> None:
    with RecordedStream(report.path) as stream:
        report.state = "closed" if stream.closed else _OPEN
        report.n_checked = sum(1 for _ in stream.rows())
        report.n_images, report.ids = stream.n_rows, ids_of(stream.ids) - stream.unreadable
        if stream.problem:
            report.problems.append(stream.problem)
        if stream.unreadable:
            report.problems.append(f"objects are damaged: ids {stream.unreadable}")


def _hint(path: Path) -> str:
    """Advice for a file whose end is missing, else ""."""
    if path.suffix != PART or not path.is_file() or not is_cut(path):
        return ""
    return f"; save the readable part with: verify --repair {path}"


def _look_at_file(report: FileReport, file: h5py.File, deep: bool) -> None:
    record = LossRecord.read(file["entry"])
    report.state = record.state if record else _OPEN
    ids = _look_at_columns(report, file, record.repaired if record else IdSet())
    images = file[IMAGES]
    bad = IdSet(
        row
        for row, expected in enumerate(file[CHECKSUMS][: len(ids)].tolist())
        if not chunk_is_whole(images, row, expected)
    )
    report.n_checked = len(ids) - len(bad)
    if bad:
        report.problems.append(f"{len(bad)} images are damaged or missing: rows {bad}")
    if deep:
        _decode_all(report, images, len(ids), bad)
    if record is None:
        hint = f"; if its writer is dead: verify --repair {report.path}"
        report.problems.append(f"was not closed{hint if report.path.suffix == PART else ''}")
        return
    _look_at_record(report, record)
    if record.state == RECOVERED:
        report.notes.append(
            "its writer was killed: what arrived in its last second, and later, is unknown"
        )


def _decode_all(report: FileReport, images: h5py.Dataset, n_rows: int, bad: IdSet) -> None:
    """Decode all images but those that are known to be damaged."""
    found, first = IdSet(), ""
    damaged = set(bad)
    for row in range(n_rows):
        if row in damaged:
            continue
        try:
            check_pixels_of(images, row)
        except (CodecError, OSError, RuntimeError, ValueError) as error:
            found.add(row)
            first = first or str(error)
    if found:
        report.problems.append(
            f"{len(found)} images cannot be decoded: rows {found}; the first: {first}"
        )


def _look_at_messages(report: FileReport, file: h5py.File) -> None:
    """Check a file in the SwissFEL layout by reading all of it, as it has no checksums."""
    report.state = str(file[ACQUISITION].attrs["state"])
    if report.state == OPEN:
        report.state = _OPEN
        hint = f"; if its writer is dead: verify --repair {report.path}"
        report.problems.append(f"was not closed{hint if report.path.suffix == PART else ''}")
    ids = file[COUNTED][()]
    report.n_images, report.ids = len(ids), ids_of(ids)
    report.problems += damaged_channels(file)
    report.n_checked = len(ids) if len(report.problems) == (report.state == _OPEN) else 0
    lost = file[LOST][()] if LOST in file else np.empty((0, 2), np.int64)
    if len(lost):
        report.lost["did not arrive"] = IdSet.of_ranges(lost + np.array([0, 1]))


def _look_at_columns(
    report: FileReport, file: h5py.File, repaired: IdSet | None = None
) -> NDArray[np.int64]:
    """Check lengths and ids; the (n,) ids. Those that were repaired may follow larger ones."""
    ids = file[IDS][()]
    names = [IMAGES, TIMES, CHECKSUMS]
    if report.state != _OPEN:
        names += [f"{ATTRIBUTES}/{name}" for name in file[ATTRIBUTES]]
    for name in names:
        length = file[name].shape[0]
        # A writer may have written more images than ids.
        if length != len(ids) and (report.state != _OPEN or length < len(ids)):
            report.problems.append(f"/{name} has {length} rows, where there are {len(ids)} ids")
    report.n_images = len(ids)
    report.ids = ids_of(ids)
    if len(report.ids) < len(ids):
        values, counts = np.unique(ids, return_counts=True)
        report.problems.append(f"ids occur more than once: {ids_of(values[counts > 1])}")
    # Of the ids in order, also where late ones are between them.
    rows = np.flatnonzero(~np.isin(ids, list(repaired))) if repaired else np.arange(len(ids))
    if len(back := np.flatnonzero(np.diff(ids[rows]) < 0)):
        before, row = rows[back[0]], rows[back[0] + 1]
        report.problems.append(
            f"ids go back {len(back)} times, first at row {row} from {ids[before]} to {ids[row]}"
        )
    return ids


def _look_at_record(report: FileReport, record: LossRecord) -> None:
    report.lost = record.losses(report.ids)
    report.filtered = record.filtered - report.ids
    gaps = _gaps(report.ids) - record.filtered
    if not record.known and gaps:
        report.lost["no ledger has the reason"] = gaps


def _gaps(ids: IdSet) -> IdSet:
    """Missing ids between the first and the last."""
    ranges = ids.ranges()
    return IdSet.of_ranges(np.stack([ranges[:-1, 1], ranges[1:, 0]], axis=1))


def _look_at_master(report: FileReport, master: h5py.File, deep: bool) -> None:
    report.state = "master"
    ids = _look_at_columns(report, master)
    images = master[IMAGES]
    names = dict.fromkeys(source.file_name for source in images.virtual_sources())
    found: list[NDArray[np.int64]] = []
    for name in names:
        path = report.path.parent / name
        source = verify(path, deep=deep)
        report.problems += [f"{path}: {problem}" for problem in source.problems]
        report.notes += [f"{path}: {note}" for note in source.notes]
        report.n_checked += source.n_checked
        if source.state == _UNREADABLE:
            continue
        with open_data(path) as file:
            theirs = file[IDS][()]
            found.append(theirs)
            _compare(report, master, ids, file, theirs)
    theirs = np.sort(np.concatenate(found)) if found else np.empty(0, np.int64)
    if not np.array_equal(theirs, ids):
        report.problems.append(
            f"it shows {len(ids)} images, but its files have {len(theirs)}, or others; make it"
            " again"
        )
    record = LossRecord.read(master["entry"])
    if record is not None:
        report.lost = record.losses(report.ids)
        report.filtered = record.filtered - report.ids
        explained = [*report.lost.values(), record.skipped, record.filtered]
        rest = _gaps(report.ids)
        for known in explained:
            rest = rest - known
        if rest:
            # An id that one consumer does not get goes to another: a master should have all.
            report.lost["in none of its files"] = rest


def _compare(
    report: FileReport,
    master: h5py.File,
    ids: NDArray[np.int64],
    file: h5py.File,
    theirs: NDArray[np.int64],
) -> None:
    """Compare the first and the last image of a file with those of the master."""
    for row in {0, len(theirs) - 1} if len(theirs) else ():
        place = int(np.searchsorted(ids, theirs[row]))
        if np.count_nonzero(ids == theirs[row]) != 1:
            continue
        if not np.array_equal(master[IMAGES][place], file[IMAGES][row]):
            report.problems.append(f"id {theirs[row]} has other pixels than in {file.filename}")
