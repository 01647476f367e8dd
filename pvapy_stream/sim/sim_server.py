"""Paces frames and publishes them, as an area detector's PVA plugin would."""

from __future__ import annotations

import logging
import math
import threading
import time

import pvaccess as pva

from pvapy_stream import bursts
from pvapy_stream.errors import TransportError
from pvapy_stream.pva.objects import mark
from pvapy_stream.settings import SimulatorSettings
from pvapy_stream.sim.feed import ObjectFeed
from pvapy_stream.sim.frame_sources import open_sources
from pvapy_stream.sim.gate import Gate
from pvapy_stream.sim.metadata_sources import HostedMetadata, notify
from pvapy_stream.sim.pacing import Pacer
from pvapy_stream.sim.source_server import SourceServer
from pvapy_stream.sim.stamping import Stamping, stamping_for
from pvapy_stream.transport import registry
from pvapy_stream.transport.mode import PublisherOptions
from pvapy_stream.transport.ports import Publisher

_NANO = 1_000_000_000
_MAX_ID = 2**31 - 1  # uniqueId is a 32-bit field
_NOTIFY_TIMEOUT = 2.0

logger = logging.getLogger(__name__)


class SimServer(SourceServer):
    """A server that publishes frames on one channel, ids from 1 on.

    Until the first frame the channel holds an object with id 0, so what a client skips as its
    initial update is no frame.

    Args:
        settings: what was asked for.
        gate: says when to begin and when to go, instead of clients and delays.

    Attributes:
        totals: what was published so far.
        ledger: the fate of each id.
        notify_failures: how often the notify channel could not be put to.
    """

    _stamping: Stamping
    _feed: ObjectFeed
    _metadata: HostedMetadata

    def __init__(self, settings: SimulatorSettings, gate: Gate | None = None) -> None:
        super().__init__(settings, gate, "sim")
        self.settings = settings
        self.notify_failures = 0

    def _make(self, server: pva.PvaServer) -> Publisher:
        settings = self.settings
        publisher = registry.make_source_publisher(
            settings.output_mode,
            PublisherOptions(settings.channel_name, server, settings=settings),
        )
        self._stamping = stamping_for(publisher)
        self._feed = ObjectFeed(
            iter(open_sources(settings)), settings.cache_size, self._stamping.build
        )
        return publisher

    def _open(self, server: pva.PvaServer) -> None:
        self._metadata = HostedMetadata(server, self.settings.metadata_pv)
        opening = self._stamping.stamp(self._feed.prototype, 0, time.time_ns())
        self.publisher.open(mark(opening.copy()))

    def _prepare(self, stop: threading.Event) -> None:
        settings = self.settings
        if settings.notify_pv and not notify(
            settings.notify_pv, settings.notify_pv_value, _NOTIFY_TIMEOUT
        ):
            self.notify_failures += 1
        self._feed.fill(stop)

    def _close(self) -> None:
        self._feed.stop()

    def _publish(self, stop: threading.Event) -> None:
        try:
            self._publish_frames(stop)
        finally:
            self.totals.frame_bytes = self._feed.nbytes

    def _publish_frames(self, stop: threading.Event) -> None:
        """The hot loop: everything in it is done once a frame."""
        settings, totals, reporter, published = (
            self.settings,
            self.totals,
            self._reporter,
            self.ledger.published,
        )
        publisher, metadata = self.publisher, self._metadata
        pacer = self._pacer = Pacer(settings.frame_rate, stop, settings.runtime)
        self._state = "running"
        last = settings.n_publish or math.inf
        keeper = self._keeper
        keeps = bool(settings.ledger)
        has_metadata, stamp = bool(metadata), self._stamping.stamp
        for n, obj in enumerate(self._feed):
            if n >= last or not pacer.wait(n):
                break
            frame_id = n % _MAX_ID + 1
            if frame_id == 1 and n:
                published = self._begin_epoch()
            # Frames that are due together are sent together.
            bursts.begin() if pacer.behind else bursts.end()
            if has_metadata:
                metadata.publish_ca()
            now_ns = time.time_ns()
            stamped = stamp(obj, frame_id, now_ns)
            if has_metadata:
                metadata.publish_pva(*divmod(now_ns, _NANO))
            try:
                publisher.publish(stamped)
            except TransportError as error:
                self._note_failure(error, frame_id)
                continue
            published.add(frame_id)
            totals.last = now = time.monotonic()
            if not totals.frames:
                totals.first, totals.first_id = now, frame_id
            totals.frames += 1
            totals.last_id = frame_id
            if totals.frames >= reporter.next_frame:
                totals.late = pacer.late
                reporter.progress(totals)
            if keeps and keeper.due(now):
                keeper.keep()
        bursts.end()
        totals.late = pacer.late
        logger.info("published %d frames, %d of them late", totals.frames, totals.late)
