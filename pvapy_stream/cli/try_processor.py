"""``try`` (check): run a processor over frames of a file, without a network."""

from __future__ import annotations

import argparse
import sys

from pvapy_stream.cli.command import CliCommand
from pvapy_stream.errors import ObjectError, ProcessorError, SettingsError, SourceError
from pvapy_stream.hpc.processor import FrameProcessor, unused_methods
from pvapy_stream.logs import configure_logging
from pvapy_stream.plugins import load_processor_class
from pvapy_stream.pva.lazy import StreamObject, frame_of
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.settings import ConsumerSettings, LoggingSettings, SimulatorSettings
from pvapy_stream.sim.frame_sources import open_sources
from pvapy_stream.testing import ProcessorRun, Result
from pvapy_stream.transport.ports import Publisher, PublisherCounts

_RANDOM_FRAMES = 100

_EPILOG = """\
examples:
  pvapy-stream try peak_finder.py:PeakFinder
  pvapy-stream try peak_finder.py:PeakFinder --input scan.h5 --n 500 --args '{"threshold": 100}'
  pvapy-stream try my.package:PeakFinder --input scan.h5 --dataset /entry/data/data
  pvapy-stream try mean.py:Mean --batch-size 64
exit codes: 0 all well; 1 frames met errors, or there are none; 2 wrong options
"""


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    made.add_argument(
        "processor", metavar="FILE:CLASS", help="a class in a Python file, or package.module:CLASS"
    )
    made.add_argument(
        "--input",
        "--input-file",
        metavar="FILE",
        help="npy, npz, HDF5, TIFF or a format of fabio; default: 512x512 random frames",
    )
    made.add_argument(
        "--dataset",
        "--hdf-dataset",
        metavar="PATH",
        help="dataset in the HDF5 file; default: the only image dataset",
    )
    made.add_argument(
        "--config-file", metavar="FILE", help="describes raw data, as for the simulator"
    )
    made.add_argument(
        "--n",
        "--n-frames",
        type=int,
        default=0,
        metavar="N",
        help=f"frames to use; 0: all of the file, {_RANDOM_FRAMES} random ones [default 0]",
    )
    made.add_argument(
        "--args",
        "--processor-args",
        metavar="JSON",
        help="JSON object for the processor's constructor",
    )
    made.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="frames that process_batch gets at a time; 1: one by one [default 1 frames]",
    )


def run(options: argparse.Namespace) -> int:
    """Run the processor and print the result; 1 if frames had errors.

    Raises:
        PvapyStreamError: wrong arguments, or no processor or no frames there.
    """
    # The stage logs the first error of each kind, with its traceback.
    configure_logging(LoggingSettings.of())
    settings = ConsumerSettings.of(input_channel="try", processor_args=options.args)
    if options.n < 0:
        raise SettingsError(f"--n {options.n} is below 0; give how many frames to use, 0 for all")
    if options.batch_size < 1:
        raise SettingsError(f"--batch-size {options.batch_size} is below 1; give 1 or more")
    sources = open_sources(_source_settings(options))
    output = LastObject()
    found = _class_of(options.processor)
    processor = ProcessorRun(
        found, args=settings.processor_args, publisher=output, batch_size=options.batch_size
    )
    if options.batch_size > 1 and not processor.stage.batching:
        raise SettingsError(
            f"class {found.__name__} does not define process_batch; define it, or remove"
            f" --batch-size {options.batch_size}"
        )
    builder = ObjectBuilder()
    for frame in sources:
        processor.feed(builder.build(frame))
    result = processor.finish()
    count = len(result.ledger.received)
    if not count:
        raise SourceError(f"{options.input} gave no frames; give a file with some, or a larger --n")
    sys.stdout.write("".join(f"{line}\n" for line in report(result, count, output)))
    return 0 if result.ok else 1


def report(result: Result, count: int, output: LastObject) -> list[str]:
    """Lines with the result of the run."""
    rate = count / result.seconds if result.seconds else float("inf")
    lines = [
        f"Processed frames: {len(result.ledger.processed)} of {count}"
        f" @ {rate:.1f} fps ({result.seconds / count * 1e3:.3f} ms a frame)",
        f"Filtered frames: {len(result.ledger.filtered)}",
        f"Published objects: {output.counts().published}"
        + (f", the last: {_told(output.last)}" if output.last is not None else _hint(result)),
        f"Errors: {sum(result.errors.values())}",
    ]
    if (batches := result.batches).batches:
        lines.append(
            f"Batches: {batches.batches} of {batches.frames} frames,"
            f" {batches.split} ended by another shape or pixel type,"
            f" {batches.retried} raised and were tried frame by frame"
        )
    lines += [f"  {kind}: {number}" for kind, number in sorted(result.errors.items())]
    if result.last_error:
        lines.append(f"  the last: {result.last_error}")
    return [*lines, *(f"{name}: {value}" for name, value in result.stats.items())]


class LastObject(Publisher):
    """A publisher that keeps only the last object, since files may be larger than the memory."""

    def __init__(self) -> None:
        self.last: StreamObject | None = None
        self._published = 0

    def publish(self, obj: StreamObject) -> None:
        self.last = obj
        self._published += 1

    def counts(self) -> PublisherCounts:
        return PublisherCounts(self._published)


def _class_of(name: str) -> type:
    """The given class.

    Raises:
        SettingsError: no class was given, or one without a file or module.
        ProcessorError: it cannot be loaded, or processes nothing.
    """
    file, _, class_name = name.rpartition(":")
    if not file and "." in name and not name.endswith(".py"):
        file, _, class_name = name.rpartition(".")
    if not (file and class_name):
        raise SettingsError(
            f"{name!r} does not name a class; give FILE.py:CLASS or package.module:CLASS"
        )
    if file.endswith(".py"):
        found = load_processor_class(class_name, file)
    else:
        found = load_processor_class(f"{file}.{class_name}")
    if why := unused_methods(found):
        raise ProcessorError(why)
    return found


def _hint(result: Result) -> str:
    if result.errors or isinstance(result.processor, FrameProcessor):
        return ""
    return (
        "; process publishes with self.updateOutputChannel(pvObject); its return value is not used"
    )


def _source_settings(options: argparse.Namespace) -> SimulatorSettings:
    if options.input:
        return SimulatorSettings.of(
            input_file=options.input,
            hdf_dataset=options.dataset,
            config_file=options.config_file,
            n_frames=options.n,
        )
    return SimulatorSettings.of(
        n_frames=options.n or _RANDOM_FRAMES, n_x_pixels=512, n_y_pixels=512
    )


def _told(obj: StreamObject) -> str:
    try:
        frame = frame_of(obj)
    except ObjectError:
        return f"structure of {', '.join(obj.keys())}"
    return f"{'x'.join(map(str, frame.image.shape))} {frame.dtype}, id {frame.id}"


COMMAND = CliCommand(
    "pvapy-stream try",
    "Run a processor over frames of a file, in this process and without a network.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
)
main = COMMAND.main
