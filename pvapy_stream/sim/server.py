"""Paces frames and publishes them, as an area detector's PVA plugin would."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from pvapy_stream import bursts
from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.keeper import LedgerKeeper
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.errors import PvapyStreamError, TransportError
from pvapy_stream.pva.clients import ClientCounter, listening_ports
from pvapy_stream.pva.objects import mark
from pvapy_stream.pva.search import TwinWatch
from pvapy_stream.pva.serving import new_server
from pvapy_stream.settings import SimulatorSettings
from pvapy_stream.sim.feed import ObjectFeed
from pvapy_stream.sim.frames import open_sources
from pvapy_stream.sim.gate import Gate
from pvapy_stream.sim.metadata import HostedMetadata, notify
from pvapy_stream.sim.pacing import Pacer
from pvapy_stream.sim.report import Reporter, Totals
from pvapy_stream.sim.stages import wait_for_stages
from pvapy_stream.sim.stamping import Stamping, stamping_for
from pvapy_stream.status.counted import pool_stats, rated
from pvapy_stream.status.snapshot import (
    PoolStats,
    ProcessorStats,
    PublisherStats,
    ReceiverStats,
    Snapshot,
    own,
)
from pvapy_stream.transport import registry
from pvapy_stream.transport.mode import PublisherOptions
from pvapy_stream.transport.ports import Publisher, PublisherCounts

_NANO = 1_000_000_000
_MAX_ID = 2**31 - 1  # uniqueId is a 32-bit field
_NOTIFY_TIMEOUT = 2.0
# s; least time that subscribers get to take the last frames, where they are known, and once a stop
# is requested
_LAST_TAKEN, _LAST_TAKEN_AT_STOP = 10.0, 0.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SimulatorStatus:
    """What only a simulator has in its status."""

    frames: int = own("published_frames", text="Frames published.")
    late: int = own("late_frames", text="Frames that were published late.")
    failed: int = own("failed_frames", text="Frames that could not be published.")


class SimServer:
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

    def __init__(self, settings: SimulatorSettings, gate: Gate | None = None) -> None:
        self.settings = settings
        self._gate = gate
        self.totals = Totals()
        self.ledger = Ledger(stage="sim", output_channel=settings.channel_name)
        self.ledger.begin(settings.incarnation)
        self._account = Account(self.ledger)
        self._keeper = LedgerKeeper(settings.ledger, lambda: self._account.ledgers)
        self.notify_failures = 0
        self._twin = ""
        self._problem = ""
        self._state = "waiting"
        self._start_time = time.time()
        self._end_time = 0.0
        self._pacer: Pacer | None = None
        self._publisher: Publisher | None = None
        self._reporter = Reporter(settings.report_period, not settings.disable_curses)

    def run(self, stop: threading.Event) -> int:
        """Serve until the frames, the time or the number to publish are over, or `stop` is set.

        Not for the main thread when a signal handler sets `stop`: the handler may then interrupt a
        wait on that very event.

        Returns:
            Exit code: 1 when a frame could not be published, or another program serves its channel.

        Raises:
            SourceError: frames cannot be read.
            TransportError: a channel cannot be hosted, or too few clients came.
        """
        settings = self.settings
        settings.publishes.prepare(settings)
        before = listening_ports()
        server = new_server()
        try:
            publisher = registry.make_source_publisher(
                settings.output_mode,
                PublisherOptions(settings.channel_name, server, settings=settings),
            )
            self._publisher = publisher
            stamping = stamping_for(publisher)
            feed = ObjectFeed(iter(open_sources(settings)), settings.cache_size, stamping.build)
        except BaseException:
            # It serves from its beginning, not from its start.
            server.stop()
            raise
        server.start()
        twins = TwinWatch(settings.hosted, self._report_twin)
        # Where subscribers are known, connections say nothing more.
        ports = frozenset() if publisher.knows_subscribers else listening_ports() - before
        counter = ClientCounter(ports, lambda: publisher.clients, lambda: publisher.subscribers)
        try:
            metadata = HostedMetadata(server, settings.metadata_pv)
            publisher.open(mark(stamping.stamp(feed.prototype, 0, time.time_ns()).copy()))
            self._reporter.start()
            # What is published is in no account if the simulator is killed before there is one.
            self._keeper.keep()
            self._wait_for_start(feed, counter, stop)
            try:
                finish = stop if self._gate is None else self._gate.finish
                self._publish(feed, stamping, publisher, metadata, finish)
            finally:
                self.totals.frame_bytes = feed.nbytes
                self._state = "draining"
            if self._gate is not None:
                self._keeper.write(final=True)
                _let_take(publisher, stop)
                self._gate.end(stop)
            else:
                self._let_clients_finish(publisher, stop)
        except PvapyStreamError as error:
            self._problem = str(error)
            raise
        finally:
            twins.stop()
            feed.stop()
            self._reporter.end(self.totals)
            # First the server: a client that learns that a record goes may ask for it again, and
            # would take the last frame for a new one.
            server.stop()
            publisher.stop()
            self._keeper.close()
            self._end_time, self._state = time.time(), "failed"
        if self.ledger.failed or self._keeper.problem or self._twin:
            return 1
        self._state = "stopped"
        return 0

    def snapshot(self) -> Snapshot:
        """Its status."""
        settings, totals = self.settings, self.totals
        times = totals.times(self._start_time, self._end_time)
        late = self._pacer.late if self._pacer is not None else 0
        publisher = self._publisher
        hindered = publisher.problem if publisher is not None else ""
        counts = publisher.counts() if publisher is not None else PublisherCounts()
        published = PublisherStats(
            totals.frames, n_errors=totals.failed, n_rejected=counts.rejected
        )
        processor = ProcessorStats(
            first_object_id=totals.first_id,
            last_object_id=totals.last_id,
            n_processed=totals.frames,
            n_epochs=len(self._account.ledgers),
        )
        return Snapshot(
            "simulator",
            state=self._state,
            restarts=settings.incarnation - 1,
            message=self._problem or self._keeper.problem or self._twin or hindered,
            object_id=totals.last_id,
            output_channel=settings.channel_name,
            receiver_stats=ReceiverStats(),
            publisher_stats=rated(published, times.seconds),
            processor_stats=times.rated(processor),
            pool_stats=pool_stats(counts, hindered)
            or (PoolStats() if settings.publishes.pools else None),
            own=SimulatorStatus(totals.frames, late, totals.failed),
            labels={"channel": settings.channel_name},
        )

    def _report_twin(self, message: str) -> None:
        self._twin = message
        logger.error("%s", message)

    def _let_clients_finish(self, publisher: Publisher, stop: threading.Event) -> None:
        settings = self.settings
        end = time.monotonic() + settings.shutdown_delay
        _let_take(publisher, stop, settings.shutdown_delay)
        if settings.hosted:
            # A monitor does not report what it has taken.
            stop.wait(max(0.0, end - time.monotonic()))

    def _wait_for_start(
        self, feed: ObjectFeed, counter: ClientCounter, stop: threading.Event
    ) -> None:
        settings = self.settings
        start = time.monotonic() + settings.start_delay
        if settings.notify_pv and not notify(
            settings.notify_pv, settings.notify_pv_value, _NOTIFY_TIMEOUT
        ):
            self.notify_failures += 1
        feed.fill(stop)
        if self._gate is not None:
            self._gate.begin(stop)
            return
        if not settings.wait_for_clients and not settings.wait_for_stages:
            stop.wait(max(0.0, start - time.monotonic()))
            return
        if settings.wait_for_clients:
            self._wait_for_clients(counter, stop)
        if settings.wait_for_stages:
            self._wait_for_stages(stop)

    def _wait_for_clients(self, counter: ClientCounter, stop: threading.Event) -> None:
        settings = self.settings
        self._reporter.say(f"Waiting for {settings.wait_for_clients} clients")
        came = counter.wait(settings.wait_for_clients, settings.wait_timeout, stop)
        if came < settings.wait_for_clients and not stop.is_set():
            raise TransportError(
                f"{came} of {settings.wait_for_clients} clients connected to"
                f" {settings.channel_name} within {settings.wait_timeout:g} s; start the others, or"
                " give more time with --wait-timeout"
            )

    def _wait_for_stages(self, stop: threading.Event) -> None:
        settings = self.settings
        self._reporter.say(f"Waiting for {', '.join(settings.wait_for_stages)}")
        missing = wait_for_stages(settings.wait_for_stages, settings.wait_timeout, stop)
        if missing and not stop.is_set():
            raise TransportError(
                f"{', '.join(missing)}: no stage with this status channel has received an object"
                f" within {settings.wait_timeout:g} s; start it, check its input channel, or give"
                " more time with --wait-timeout"
            )

    def _publish(
        self,
        feed: Iterable[object],
        stamping: Stamping,
        publisher: Publisher,
        metadata: HostedMetadata,
        stop: threading.Event,
    ) -> None:
        """The hot loop: everything in it is done once a frame."""
        settings, totals, reporter, published = (
            self.settings,
            self.totals,
            self._reporter,
            self.ledger.published,
        )
        pacer = self._pacer = Pacer(settings.frame_rate, stop, settings.runtime)
        self._state = "running"
        last = settings.n_publish or math.inf
        keeper = self._keeper
        keeps = bool(settings.ledger)
        has_metadata, stamp = bool(metadata), stamping.stamp
        for n, obj in enumerate(feed):
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

    def _begin_epoch(self) -> IdSet:
        """Ids start again; where those that are published go now."""
        self._account.begin_epoch()
        self.ledger = self._account.ledger
        return self.ledger.published

    def _note_failure(self, error: TransportError, frame_id: int) -> None:
        if not self.ledger.failed:
            self._problem = str(error)
            logger.error("frame %d: %s; further failures are only counted", frame_id, error)
        self.totals.failed += 1
        self.ledger.fail("publish", frame_id)


def _let_take(publisher: Publisher, stop: threading.Event, delay: float = 0.0) -> None:
    """Let subscribers take the last frames."""
    publisher.finish(_LAST_TAKEN_AT_STOP if stop.is_set() else max(_LAST_TAKEN, delay))
