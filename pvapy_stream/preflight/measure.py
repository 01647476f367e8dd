"""Before a run: how fast can link, processor and disk be, and which options follow from that.

Nothing is computed that can be tried: the rate that is reported has been streamed, through real
processes and with every frame accounted for.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pvapy_stream.errors import PvapyStreamError, TransportError
from pvapy_stream.files.nexus import FrameWriter
from pvapy_stream.frame import Frame
from pvapy_stream.plugins import load_processor_class
from pvapy_stream.preflight.findings import Findings, queue_for
from pvapy_stream.preflight.trial import CONNECT, DIFFERENT, Trial
from pvapy_stream.pva.lazy import StreamObject, frame_of
from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.sharing import ANSWERS, sharing_of
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.settings import ConsumerSettings, FileSettings, PreflightSettings
from pvapy_stream.testing import ProcessorRun
from pvapy_stream.transport.ports import Publisher, PublisherCounts
from pvapy_stream.transport.pva import MonitorReceiver

_MARGIN = 0.8  # of what a saturated consumer reached: less than that is tried first
_STEP_DOWN = 0.75
_MOST_TRIALS = 4
_WARM_UP = 20
_ENOUGH = 20  # frames from which the rate of a source is measured
_SLOW_SOURCE = 2.0  # s; for a source that sends fewer in the time that was asked for
_MAX_FRAMES = 1_000_000

Say = Callable[[str], None]


class Preflight:
    """Measures, one part after another.

    Args:
        settings: what to measure.
        say: gets a line before each measurement.
    """

    def __init__(self, settings: PreflightSettings, say: Say) -> None:
        self._settings = settings
        self._say = say
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> Findings:
        """Measure all.

        Raises:
            PvapyStreamError: the source does not come, or a part cannot be measured.
        """
        self._stop = stop
        settings = self._settings
        found = self._frames()
        images = _images(found)
        # First what can be wrong at once.
        if settings.processor_class:
            self._say("the processor alone …")
            found.processor = self._processor_alone(images)
        if settings.output_directory:
            self._say(f"writing to {settings.output_directory} alone …")
            found.disk = self._disk_alone(images, Path(settings.output_directory))
        self._say("receiving alone …")
        found.link = self._saturated(found, ConsumerSettings.of(input_channel="-"))
        wanted = settings.frame_rate or found.source_rate
        start = min(found.link, found.disk)
        if settings.processor_class:
            self._say("receiving and processing …")
            start = min(start, self._saturated(found, self._consumer()))
        found.rate = self._proven(found, start * _MARGIN, 1, wanted)
        found.total_rate = found.rate
        if wanted > found.rate and found.rate:
            self._share(found, wanted)
        found.server_queue = queue_for(
            max(wanted, found.rate) / found.n_consumers,
            found.frame_bytes,
            settings.pause,
            settings.queue_memory * 10**6,
        )
        return found

    # -- frames ----------------------------------------------------------------------------------

    def _frames(self) -> Findings:
        settings = self._settings
        if settings.input_channel:
            return self._source(settings.input_channel)
        dtype = np.dtype(settings.datatype)
        shape = (settings.n_y_pixels, settings.n_x_pixels)
        return Findings(shape, dtype, math.prod(shape) * dtype.itemsize)

    def _source(self, channel: str) -> Findings:
        """Size and rate of a source that runs."""
        self._say(f"the source {channel} …")
        arrivals: list[float] = []
        first: list[StreamObject] = []

        def take(obj: StreamObject) -> None:
            arrivals.append(time.monotonic())
            if not first:
                first.append(obj.copy())

        receiver = MonitorReceiver(channel, "record[queueSize=100]field()")
        receiver.start(take)
        try:
            deadline = time.monotonic() + CONNECT
            while not first:
                if self._stop.wait(0.05) or time.monotonic() > deadline:
                    raise TransportError(
                        f"channel {channel} was not found within {CONNECT:g} s; check its name and"
                        " EPICS_PVA_ADDR_LIST (pvapy-stream doctor)"
                    )
                receiver.keep_up()
            frame = frame_of(first[0])
            self._stop.wait(self._settings.seconds)
            if len(arrivals) < _ENOUGH:
                self._stop.wait(max(0.0, _SLOW_SOURCE - self._settings.seconds))
        finally:
            receiver.stop()
        found = Findings(frame.image.shape, frame.dtype, frame.image.nbytes)
        # The first is the value that was there before.
        times = arrivals[1:]
        if len(times) > 1:
            found.source_rate = (len(times) - 1) / (times[-1] - times[0])
        else:
            found.notes.append(f"{channel} sent no frames during the measurement")
        if why := _why_unshared(channel):
            found.notes.append(
                f"{channel}: {why}: a command with --n-consumers distributes its objects itself;"
                " consumers that are started separately need a pvapy-stream mirror between"
            )
        found.source_overruns = receiver.counts().overruns
        if found.source_overruns:
            found.notes.append(
                f"{channel} dropped {found.source_overruns} frames: the link or the server is"
                " already at its limit"
            )
        return found

    # -- parts -----------------------------------------------------------------------------------

    def _processor_alone(self, images: list[np.ndarray]) -> float:
        settings = self._settings
        if settings.processor_class is None:
            return math.inf
        run = ProcessorRun(
            load_processor_class(settings.processor_class, settings.processor_file),
            args=settings.processor_args,
            publisher=_Nowhere(),
        )
        builder = ObjectBuilder()
        objects = [builder.build(Frame.of(k, image)).copy() for k, image in enumerate(images)]
        number = 0

        def feed() -> None:
            nonlocal number
            number += 1
            obj = objects[number % len(objects)]
            obj.setInt("uniqueId", number)
            run.feed(obj)

        rate = _rate_of(feed, settings.seconds, self._stop)
        result = run.finish()
        if result.errors:
            raise PvapyStreamError(
                f"the processor does not take these frames: {result.last_error}; try it with"
                " pvapy-stream try"
            )
        return rate

    def _disk_alone(self, images: list[np.ndarray], folder: Path) -> float:
        try:
            with tempfile.TemporaryDirectory(prefix="preflight-", dir=folder) as name:
                output = FileSettings.of(
                    output=f"{name}/a.h5", compression=self._settings.compression
                )
                number = 0
                with FrameWriter(output) as writer:

                    def write() -> None:
                        nonlocal number
                        number += 1
                        writer.write(Frame.of(number, images[number % len(images)]))

                    rate = _rate_of(write, self._settings.seconds, self._stop)
        except OSError as error:
            raise PvapyStreamError(
                f"cannot write to {folder}: {error.strerror}; give another --output-directory"
            ) from error
        return rate

    def _consumer(self, n_consumers: int = 1, queue: int = 0) -> ConsumerSettings:
        settings = self._settings
        share = {"distributor_group": "preflight", "distributor_trigger": "uniqueId"}
        return ConsumerSettings.of(
            input_channel="-",
            n_consumers=n_consumers,
            server_queue_size=queue,
            processor_file=settings.processor_file,
            processor_class=settings.processor_class,
            processor_args=settings.processor_args,
            output_channel="_" if n_consumers == 1 else "",
            **(share if n_consumers > 1 else {}),
        )

    def _saturated(self, found: Findings, consumer: ConsumerSettings) -> float:
        """Frames/s of a consumer that is sent more than it can take."""
        trial = self._trial(found, consumer, 0.0, self._settings.seconds)
        return trial.rate

    # -- together --------------------------------------------------------------------------------

    def _proven(self, found: Findings, rate: float, n_consumers: int, wanted: float) -> float:
        """The highest rate tried at which nothing was lost; 0 for none."""
        if wanted:
            rate = min(rate, wanted)
        for _ in range(_MOST_TRIALS):
            if self._stop.is_set():
                break
            self._say(f"{rate:.4g} frames/s through {n_consumers} consumer(s) …")
            queue = queue_for(
                rate / n_consumers,
                found.frame_bytes,
                self._settings.pause,
                self._settings.queue_memory * 10**6,
            )
            trial = self._trial(
                found, self._consumer(n_consumers, queue), rate, 2 * self._settings.seconds
            )
            if not trial.lost:
                return rate
            rate *= _STEP_DOWN
        return 0.0

    def _share(self, found: Findings, wanted: float) -> None:
        """Find how many consumers it takes."""
        cores = os.cpu_count() or 1
        most = max(2, cores)
        needed = math.ceil(wanted / found.rate)
        found.n_consumers = min(needed, most)
        # What all of them together cannot reach is not tried: a rate that is proven helps more.
        at_most = found.n_consumers * min(found.link, found.processor)
        rate = wanted if wanted <= at_most else at_most * _MARGIN
        found.total_rate = self._proven(found, rate, found.n_consumers, wanted)
        if found.total_rate < wanted:
            found.notes.append(
                f"{wanted:.4g} frames/s were not reached with {found.n_consumers} consumers on"
                f" this host's {cores} cores: use more hosts, smaller frames (regions, binning at"
                " the source), or a faster processor"
            )
        if found.total_rate <= found.rate:
            found.n_consumers, found.total_rate = 1, found.rate

    def _trial(
        self, found: Findings, consumer: ConsumerSettings, rate: float, seconds: float
    ) -> Trial:
        with tempfile.TemporaryDirectory(prefix="preflight-") as folder:
            return Trial(Path(folder), found, consumer, rate, seconds).run(self._stop)


def _why_unshared(channel: str) -> str:
    """Why the server of a channel cannot share its objects out; "" if it can."""
    client = Client()
    try:
        asked = client.channel(channel)
        return sharing_of(asked, ANSWERS).why if asked.wait(ANSWERS) else ""
    finally:
        client.stop()


class _Nowhere(Publisher):
    """A publisher that only counts."""

    def __init__(self) -> None:
        self._published = 0

    def publish(self, obj: StreamObject) -> None:
        self._published += 1

    def counts(self) -> PublisherCounts:
        return PublisherCounts(self._published)


def _images(found: Findings) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    values = rng.poisson(20, (DIFFERENT, *found.shape)) if found.frame_bytes < 10**6 else None
    if values is None:
        one = rng.poisson(20, found.shape)
        return [np.roll(one, k).astype(found.dtype) for k in range(4)]
    return list(values.astype(found.dtype))


def _rate_of(work: Callable[[], None], seconds: float, stop: threading.Event) -> float:
    """Times a second that work can be done."""
    for _ in range(_WARM_UP):
        work()
    n, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds and n < _MAX_FRAMES:
        work()
        n += 1
        if stop.is_set():
            break
    return n / spent if n and spent else 0.0
