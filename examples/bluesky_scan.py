"""A Bluesky scan whose images `pvapy-stream ad-writer` writes, and its entry in a Tiled catalogue.

The images may be those of a detector, or of a simulator:

    pvapy-stream sim -cn 13SIM1:Pva1:Image -fps 50 --runtime 0
    pvapy-stream ad-writer -p 13SIM1:HDF1: -ic 13SIM1:Pva1:Image --folder /data

With `--channel-access`, the writer can be reached as ca://13SIM1:HDF1: too. This runs where Bluesky
is installed; pvapy_stream need not be there:

    pip install "ophyd-async[pva]" bluesky "tiled[client]"
    python bluesky_scan.py 13SIM1:HDF1: /data --frames 100 --tiled http://localhost:8000
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky import RunEngine
from ophyd_async.core import (
    DetectorAcquireLogic,
    PathProvider,
    StandardDetector,
    StaticPathProvider,
    TriggerInfo,
    UUIDFilenameProvider,
    init_devices,
)
from ophyd_async.epics.adcore import ADHDFDataLogic, NDArrayDescription, NDFileHDF5IO


class StreamDetector(StandardDetector):
    """The images of a stream.

    Args:
        prefix: of the writer's records, with the protocol before it if that is not pva://.
        paths: gives the names of files.
        acquire: starts and stops the source; None for one that runs all the time.
        name: of the detector.
    """

    def __init__(
        self,
        prefix: str,
        paths: PathProvider,
        acquire: DetectorAcquireLogic | None = None,
        name: str = "",
    ) -> None:
        self.hdf = NDFileHDF5IO(prefix if "://" in prefix else f"pva://{prefix}")
        # The writer knows how images are from what it receives.
        form = NDArrayDescription(
            [self.hdf.array_size1, self.hdf.array_size0], self.hdf.data_type, self.hdf.color_mode
        )
        # As a plugin it also reports which attributes images have.
        self.add_detector_logics(ADHDFDataLogic(form, paths, self.hdf, plugins=[self.hdf]))
        if acquire is not None:
            self.add_detector_logics(acquire)
        super().__init__(name=name)


def scan(detector: StandardDetector, frames: int, **metadata: Any) -> Iterator[Any]:
    """Take a number of images."""

    @bpp.run_decorator(md={"plan_name": "scan", **metadata})
    @bpp.stage_decorator([detector])
    def inner() -> Iterator[Any]:
        # The writer is armed first, so that no image is missed.
        yield from bps.prepare(detector, TriggerInfo(number_of_events=frames), wait=True)
        yield from bps.declare_stream(detector, name="primary")
        yield from bps.kickoff(detector, wait=True)
        # A lost image keeps the writer from counting on, and the plan fails.
        yield from bps.collect_while_completing(
            [detector], [detector], flush_period=0.5, stream_name="primary"
        )

    return (yield from inner())


def main() -> None:
    """Scan."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("prefix", help="of the writer's records")
    parser.add_argument("folder", help="of the files, the writer's --folder or below it")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--tiled", help="address of a Tiled server that may read the folder")
    arguments = parser.parse_args()
    engine = RunEngine()
    if arguments.tiled:
        from bluesky.callbacks.tiled_writer import TiledWriter
        from tiled.client import from_uri

        engine.subscribe(
            TiledWriter(from_uri(arguments.tiled, api_key=os.environ["TILED_API_KEY"]))
        )
    with init_devices():
        detector = StreamDetector(
            arguments.prefix,
            StaticPathProvider(UUIDFilenameProvider(), arguments.folder),
            name="detector",
        )
    (uid,) = engine(scan(detector, arguments.frames))
    sys.stdout.write(f"{uid}\n")


if __name__ == "__main__":
    main()
