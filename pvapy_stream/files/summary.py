"""Compares the ledgers of a run with its files: for its last message, and for the audit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, merged, union
from pvapy_stream.files.names import written_since
from pvapy_stream.files.record import MISSED, LossRecord

if TYPE_CHECKING:
    from pvapy_stream.files.file_witness import Witness

NOT_IN_FILE = "not in the file"


class Unsaved(Struct, frozen=True):
    """Ids that a run should have saved and did not.

    Attributes:
        n_expected: number of ids that were to be saved.
        lost: ids that are in no file, by their fate.
        n_filtered: number of ids that were dropped on purpose before the writers, and so are not
            expected.
        unfinished: files that have to be completed.
        unreadable: files that cannot be read.
    """

    n_expected: int
    lost: dict[str, IdSet]
    n_filtered: int
    unfinished: tuple[Witness, ...]
    unreadable: tuple[Witness, ...]

    @property
    def ok(self) -> bool:
        """Whether all expected ids are in complete files."""
        return not (self.lost or self.unfinished or self.unreadable)

    @property
    def arrived_ok(self) -> bool:
        """Whether all ids that reached the writers are in complete files."""
        return self.lost.keys() <= {MISSED} and not (self.unfinished or self.unreadable)


def unsaved(ledgers: Sequence[Ledger], files: Iterable[Witness]) -> Unsaved:
    """Compare the ledgers of the writers of a run with their files.

    Args:
        ledgers: of all writers, those of killed processes too.
        files: the contents of all files of the run, `.part` included.
    """
    files = list(files)
    saved = union(one.ids for one in files)
    record = LossRecord.of(merged(ledgers) if ledgers else None)
    lost = record.losses(saved)
    return Unsaved(
        len(saved | union(lost.values())),
        lost,
        len(record.filtered - saved),
        tuple(one for one in files if one.unfinished and not one.problem),
        tuple(one for one in files if one.problem),
    )


def lines_of(result: Unsaved, n_files: int) -> list[str]:
    """The last messages of a run: files to complete, then the ids that are not in the files."""
    lines = [f"{one.path} cannot be used: {one.problem}" for one in result.unreadable]
    lines += [
        f"{one.path} was not closed; {one.n_images} images in it can be read; complete it with:"
        f" {one.repair_command}"
        for one in result.unfinished
    ]
    n_lost = len(union(result.lost.values()))
    saved = f"{result.n_expected - n_lost} of {result.n_expected} ids are in {n_files} files"
    if result.n_filtered:
        saved += f" ({result.n_filtered} more were filtered)"
    if not n_lost:
        return [*lines, saved]
    kinds = "; ".join(f"{what}: {len(ids)} ({ids})" for what, ids in result.lost.items())
    return [*lines, f"{saved}; {n_lost} are not: {kinds}"]


def decided_by_files(ledgers: Sequence[Ledger]) -> tuple[list[Ledger], list[str]]:
    """Correct the ledgers of killed writers by their files; the ledgers, and what was changed.

    The files of writers that closed their ledgers are not read: they may have been moved.
    """
    changed, notes = list(ledgers), list[str]()
    killed = {(one.file, one.run) for one in ledgers if one.file and not one.closed}
    for name_format, run in sorted(killed):
        # Imported here: the import of HDF5 takes long, and many runs write no file.
        from pvapy_stream.files.file_witness import Witness, witness

        seen = [witness(path) for path in written_since(name_format, 0, unclosed=True)]
        files = [one for one in seen if one.run == run or one.problem]
        names = ", ".join(str(one.path) for one in files) or "none exists"
        notes.append(f"a writer was killed; the saved ids are read from its files: {names}")
        notes += lines_of(unsaved([], files), len(files))[:-1]
        own = [one for one in changed if (one.file, one.run) == (name_format, run)]
        own += _unlisted(own, files)
        others = [one for one in changed if (one.file, one.run) != (name_format, run)]
        # A writer without any file left has saved nothing.
        named = [Witness(Path(name_format), stage=f"{one.stage} {one.stage_id}",
                         input_channel=one.input_channel) for one in own]  # fmt: skip
        corrected, sentences = decided(own, [*files, *named])
        for one in corrected:
            one.closed = True
        changed, notes = [*others, *corrected], [*notes, *sentences]
    return changed, notes


def _unlisted(ledgers: Sequence[Ledger], files: Iterable[Witness]) -> list[Ledger]:
    """Empty ledgers for stages that wrote files and have no ledger.

    A program that is killed at its start has not recorded all of its processes yet.
    """
    first = ledgers[0]
    known = {f"{one.stage} {one.stage_id}" for one in ledgers if one.input_channel}
    made: list[Ledger] = []
    for one in files:
        kind, _, number = one.stage.rpartition(" ")
        if not one.problem and number.isdigit() and one.stage not in known:
            known.add(one.stage)
            made.append(
                Ledger(
                    kind, int(number), one.input_channel, first.output_channel, first.group,
                    first.client_set, incarnation=first.incarnation, started=first.started,
                    file=first.file, run=first.run,
                )
            )  # fmt: skip
    return made


def decided(ledgers: Sequence[Ledger], files: Iterable[Witness]) -> tuple[list[Ledger], list[str]]:
    """Correct ledgers by the files of their writers; the ledgers, and what was changed.

    A file belongs to the ledgers with its stage and input channel; other ledgers are not changed.

    Args:
        ledgers: of a run.
        files: the contents of its files, `.part` included.

    Returns:
        changed copies of the ledgers, and a sentence for each change.
    """
    saved: dict[tuple[str, str], IdSet] = {}
    for one in files:
        if one.stage and not one.problem:
            saved.setdefault((one.stage, one.input_channel), IdSet()).update(one.ids)
    changed = [Ledger.from_dict(one.to_dict()) for one in ledgers]
    notes: list[str] = []
    for (stage, channel), ids in saved.items():
        own = [
            one
            for one in changed
            if f"{one.stage} {one.stage_id}" == stage and one.input_channel == channel
        ]
        if own:
            notes += [f"{stage}: {note}" for note in _decide(own, ids)]
    return changed, notes


def _decide(ledgers: Sequence[Ledger], saved: IdSet) -> Iterable[str]:
    """Correct the ledgers of one writer; one sentence for each change."""
    absent = union(one.processed for one in ledgers) - saved
    if absent:
        for one in ledgers:
            one.fail_late(NOT_IN_FILE, absent)
        yield f"{len(absent)} ids that its ledger calls processed are in no file: {absent}"
    more = saved - union(one.processed for one in ledgers)
    if more:
        for one in ledgers:
            _forget(one, more)
        _confirm(ledgers, more)
        yield f"{len(more)} ids are in its files that its ledger does not call processed: {more}"


def _confirm(ledgers: Sequence[Ledger], ids: IdSet) -> None:
    """Mark ids as processed in the ledgers that received them, the rest in one that was killed."""
    left = ids
    for one in ledgers:
        known = left & one.received
        one.processed = one.processed | known
        left = left - known
    killed = next((one for one in reversed(ledgers) if not one.closed), ledgers[-1])
    killed.received = killed.received | left
    killed.processed = killed.processed | left


def _forget(ledger: Ledger, ids: IdSet) -> None:
    """Remove ids from all fates other than processed and filtered."""
    for name in ("missed", "left", "skipped"):
        setattr(ledger, name, getattr(ledger, name) - ids)
    for fates in (ledger.failed, ledger.rejected):
        for reason in list(fates):
            fates[reason] = fates[reason] - ids
            if not fates[reason]:
                del fates[reason]
