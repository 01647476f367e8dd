"""``save`` (record): store a PVA or shared-memory stream in HDF5/NeXus files."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.cli import consumer
from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.errors import FileError, LedgerError, SettingsError
from pvapy_stream.files.file_witness import witness
from pvapy_stream.files.master import make_master
from pvapy_stream.files.names import check_parallel, written_since
from pvapy_stream.files.run_name import run_id
from pvapy_stream.files.summary import Unsaved, lines_of, unsaved
from pvapy_stream.settings import ConsumerSettings, WriteSettings

_PROCESSOR = "pvapy_stream.processors.hdf5_writer.Hdf5Writer"

# The clock of files may be a little behind.
_CLOCK = 2.0  # s

_EPILOG = """\
examples:
  pvapy-stream save -ic pvapy:image -o scan.h5 --compression bslz4
  pvapy-stream save -ic pvapy:image -o 'data/scan_{fileId:04d}.h5' -nif 1000
  pvapy-stream save -ic pvapy:image -o 'scan_{processorId}.h5' -nc 2 -dg g -dt uniqueId \\
    --master scan.h5
The file is named FILE.part until it is closed. The first update, the current object at the start,
is skipped (-siu 0 writes it). Check the result: pvapy-stream verify scan*.h5
The last line reports how many ids are in the files, and which are not. A file whose writer was
killed stays FILE.part; the last lines show the command that completes it.
exit codes: 0 all ids are in the files; 1 some are not; 2 wrong options
"""


def run(settings: WriteSettings, *, strict: bool = False) -> int:
    """Write until stopped; then make the master, if one is requested, and print a summary.

    Args:
        settings: what to write.
        strict: fail also if an id did not reach the writers. In a workflow, its audit does this.

    Raises:
        PvapyStreamError: wrong names, or the writers cannot be started.
    """
    check_parallel(settings.output, settings.ids, settings.images_per_file > 0)
    if settings.master and _same(Path(settings.output), Path(settings.master)):
        raise SettingsError(f"--master {settings.master} is the file with the images; name another")
    started = time.time() - _CLOCK
    with TemporaryDirectory(prefix="pvapy_stream-") as folder:
        # Needed for the summary, also without --ledger.
        ledger = Path(settings.ledger or f"{folder}/ledger.json")
        code = consumer.run(consumer_settings(settings.replace(ledger=str(ledger))))
        code = max(code, _make_master(settings, started))
        result = _sum_up(settings, started, ledger)
        saved = result is not None and (result.ok if strict else result.arrived_ok)
        return max(code, 0 if saved else 1)


def _make_master(settings: WriteSettings, started: float) -> int:
    if not settings.master:
        return 0
    master = Path(settings.master)
    files = [path for path in written_since(settings.output, started) if not _same(path, master)]
    try:
        count = make_master(files, master, overwrite=settings.overwrite, run=run_id())
    except FileError as error:
        # The summary is printed last, also if the master fails.
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{master}: {count} images of {len(files)} files\n")
    return 0


def _same(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve()


def _sum_up(settings: WriteSettings, started: float, ledger: Path) -> Unsaved | None:
    """Summary of the ids in the files of this run, and of missing ones; None if unknown."""
    run = run_id()
    # A master does not belong to a run: its images are in the files.
    seen = [witness(path) for path in written_since(settings.output, started, unclosed=True)]
    files = [one for one in seen if one.run == run or one.problem]
    try:
        ledgers = read_ledgers(ledger)
    except LedgerError as error:
        sys.stderr.write(f"error: it is not known which ids are missing in the files: {error}\n")
        return None
    result = unsaved(ledgers, files)
    lines = lines_of(result, len(files))
    stream = sys.stdout if result.ok else sys.stderr
    sys.stdout.flush()
    stream.write("".join(f"{line}\n" for line in lines))
    return result


def consumer_settings(settings: WriteSettings) -> ConsumerSettings:
    """The consumer settings of the command."""
    output = Path(settings.output)
    return settings.consumer(
        _PROCESSOR,
        {
            "outputDirectory": str(output.parent),
            "outputFileNameFormat": output.name,
            "nImagesPerFile": settings.images_per_file,
            "datasetName": settings.dataset_name,
            "compression": settings.compression,
            "overwrite": settings.overwrite,
            "nThreads": settings.n_threads,
        },
    )


COMMAND = SettingsCommand(
    "pvapy-stream save",
    "Receive a stream and write its images, ids, times and attributes to HDF5/NeXus files.",
    WriteSettings,
    lambda settings: run(settings, strict=True),
    _EPILOG,
    logs=False,
)
main = COMMAND.main
