"""``record`` (record): record a stream as it came, with arrival times, to replay it later."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import replace

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.cli import consumer
from pvapy_stream.cli.command import say
from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.errors import FileError, LedgerError
from pvapy_stream.files.file_witness import witness
from pvapy_stream.files.names import part_of
from pvapy_stream.files.record import MISSED
from pvapy_stream.files.recorded import RecordedStream
from pvapy_stream.files.run_name import run_id
from pvapy_stream.files.summary import Unsaved, lines_of, unsaved
from pvapy_stream.settings import ConsumerSettings, RecordSettings

# As in `processors.stream_recorder`, which takes longer to import.
LIMIT = "limit of the recording"
_PROCESSOR = "pvapy_stream.processors.stream_recorder.StreamRecorder"

_EPILOG = """\
examples:
  pvapy-stream record -ic pvapy:image -o night.h5 --duration 600
  pvapy-stream record -im shm -ic detector -o night.h5 --max-size 20000 --ledger record.json
  pvapy-stream replay night.h5 -cn replay:image
Each object is kept as it came: all fields, compressed payloads, and when it arrived. The first
update, the current object at the start, is skipped (-siu 0 records it). What comes after a limit is
rejected, and is in the ledger. The recording of a killed program stays FILE.part; replay reads it.
exit codes: 0 all that arrived is recorded; 1 some is not; 2 wrong options
"""


def run(settings: RecordSettings, *, strict: bool = False) -> int:
    """Record until stopped, or until a limit is reached; then print a summary.

    Args:
        settings: what to record.
        strict: fail also if an id did not reach the recorder. In a workflow, its audit does this.

    Raises:
        PvapyStreamError: the file cannot be made, or the recorder cannot be started.
    """
    with TemporaryDirectory(prefix="pvapy_stream-") as folder:
        # Needed for the summary, also without --ledger.
        ledger = Path(settings.ledger or f"{folder}/ledger.json")
        code = consumer.run(consumer_settings(settings.replace(ledger=str(ledger))))
        return max(code, 0 if _sum_up(Path(settings.output), ledger, strict) else 1)


def _sum_up(path: Path, ledger: Path, strict: bool) -> bool:
    """Print what was recorded, and what was not; whether that is all."""
    found = witness(path)
    if found.problem or found.run != run_id():
        # There is a file of this run, or the recorder could not be started.
        found = witness(part_of(path))
    try:
        with RecordedStream(found.path) as stream:
            arrivals, problem = stream.arrivals, stream.problem
            limit = int(stream.ids[-1]) if stream.limited and stream.n_rows else None
        result = unsaved(read_ledgers(ledger), [found])
    except (FileError, LedgerError) as error:
        sys.stderr.write(f"error: it is not known what was recorded: {error}\n")
        return False
    seconds = (arrivals[-1] - arrivals[0]) / 1e9 if len(arrivals) else 0.0
    say(
        f"{found.path}: {len(arrivals)} objects within {seconds:.3f} s"
        + (f"; {problem}" if problem else "")
    )
    if limit is not None:
        result = _up_to(limit, result)
    kept = result.ok if strict else result.arrived_ok
    (sys.stdout if kept else sys.stderr).write("".join(f"{one}\n" for one in lines_of(result, 1)))
    return kept and not problem


def _up_to(last: int, result: Unsaved) -> Unsaved:
    """The result without what came, or was sent, after the last object within the limit."""
    lost = dict(result.lost)
    after = lost.pop(f"rejected, {LIMIT}", IdSet())
    missed = lost.pop(MISSED, IdSet())
    if (newest := missed.last) is not None:
        after = after | missed.between(last + 1, newest)
        if rest := missed - after:
            lost[MISSED] = rest
    return replace(result, lost=lost, n_expected=result.n_expected - len(after))


def consumer_settings(settings: RecordSettings) -> ConsumerSettings:
    """The consumer settings of the command."""
    return settings.consumer(
        _PROCESSOR,
        {
            "outputFile": settings.output,
            "overwrite": settings.overwrite,
            "nObjects": settings.n_objects,
            "duration": settings.duration,
            "maxSize": settings.max_size,
            "inputModeName": settings.input_mode,
        },
    )


COMMAND = SettingsCommand(
    "pvapy-stream record",
    "Record a stream as it came, with the time at which each object arrived.",
    RecordSettings,
    lambda settings: run(settings, strict=True),
    _EPILOG,
    logs=False,
)
main = COMMAND.main
