"""``pvapy-stream write``: a consumer, or several, that write to HDF5/NeXus files."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pvapy_stream.cli import consumer
from pvapy_stream.cli.options import parse, settings_parser
from pvapy_stream.cli.runner import exit_code
from pvapy_stream.files.master import make_master
from pvapy_stream.files.names import check_parallel, written_since
from pvapy_stream.settings import ConsumerSettings, WriteSettings

_PROCESSOR = "pvapy_stream.processors.hdf5_writer.Hdf5Writer"

# The clock of files may be a little behind.
_CLOCK = 2.0  # s

_EPILOG = """\
examples:
  pvapy-stream write -ic pvapy:image -o scan.h5 --compression bslz4
  pvapy-stream write -ic pvapy:image -o 'data/scan_{fileId:04d}.h5' -nif 1000
  pvapy-stream write -ic pvapy:image -o 'scan_{processorId}.h5' -nc 2 -dg g -dt uniqueId \\
    --master scan.h5
The file is called FILE.part until it is closed. The first update is skipped: it is the value that
was there before (-siu 0 to write it). Check the result: pvapy-stream verify scan*.h5
exit codes: 0 all well; 1 a frame could not be written; 2 wrong options
"""


def parser() -> argparse.ArgumentParser:
    """The command's parser."""
    return settings_parser(
        WriteSettings,
        "pvapy-stream write",
        "Receive a stream and write its images, ids, times and attributes to HDF5/NeXus files.",
        _EPILOG,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    settings = parse(WriteSettings, parser(), argv)
    return exit_code(lambda: run(settings))


def run(settings: WriteSettings) -> int:
    """Write until stopped; then make the master, if one is asked for.

    Raises:
        PvapyStreamError: wrong names, or the writers cannot be started.
    """
    check_parallel(settings.output, settings.ids, settings.images_per_file > 0)
    started = time.time() - _CLOCK
    code = consumer.run(consumer_settings(settings))
    if settings.master:
        master = Path(settings.master)
        files = [path for path in written_since(settings.output, started) if path != master]
        count = make_master(files, master, overwrite=settings.overwrite)
        sys.stdout.write(f"{master}: {count} images of {len(files)} files\n")
    return code


def consumer_settings(settings: WriteSettings) -> ConsumerSettings:
    """The consumer that the command is."""
    output = Path(settings.output)
    own = {"processor_file", "processor_class", "processor_args"}
    given = settings.model_fields_set & ConsumerSettings.model_fields.keys() - own
    return ConsumerSettings.of(
        **{name: getattr(settings, name) for name in given},
        processor_class=_PROCESSOR,
        processor_args={
            "outputDirectory": str(output.parent),
            "outputFileNameFormat": output.name,
            "nImagesPerFile": settings.images_per_file,
            "datasetName": settings.dataset_name,
            "compression": settings.compression,
            "overwrite": settings.overwrite,
            "nThreads": settings.n_threads,
        },
    )


if __name__ == "__main__":
    raise SystemExit(main())
