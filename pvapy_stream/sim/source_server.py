"""What programs share that are the source of a stream: start, waiting, end, ledger and status."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from typing import Annotated

import pvaccess as pva
from msgspec import Struct

from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.keeper import LedgerKeeper
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.errors import PvapyStreamError, TransportError
from pvapy_stream.pva.clients import ClientCounter, listening_ports
from pvapy_stream.pva.search import TwinWatch
from pvapy_stream.pva.serving import new_server
from pvapy_stream.settings.source_settings import SourceSettings
from pvapy_stream.sim.chain_ready import wait_for_stages
from pvapy_stream.sim.gate import Gate
from pvapy_stream.sim.pacing import Pacer
from pvapy_stream.sim.reporter import Reporter, Totals
from pvapy_stream.status.counted import pool_stats, rated
from pvapy_stream.status.snapshot import (
    Own,
    PoolStats,
    ProcessorStats,
    PublisherStats,
    ReceiverStats,
    Snapshot,
)
from pvapy_stream.transport.ports import Publisher, PublisherCounts

# s; least time that subscribers get to take the last frames, where they are known, and once a stop
# is requested
_LAST_TAKEN, _LAST_TAKEN_AT_STOP = 10.0, 0.5

logger = logging.getLogger(__name__)


class SimulatorStatus(Struct, frozen=True):
    """What only a simulator has in its status."""

    frames: Annotated[int, Own("published_frames", text="Frames published.")]
    late: Annotated[int, Own("late_frames", text="Frames that were published late.")]
    failed: Annotated[int, Own("failed_frames", text="Frames that could not be published.")]


class SourceServer(ABC):
    """Publishes objects on one channel.

    Args:
        settings: what was asked for.
        gate: says when to begin and when to go, instead of clients and delays.
        stage: kind of the stage in the ledger.

    Attributes:
        totals: what was published so far.
        ledger: the fate of each id.
    """

    publisher: Publisher

    def __init__(self, settings: SourceSettings, gate: Gate | None, stage: str) -> None:
        self._source = settings
        self._gate = gate
        self.totals = Totals()
        self.ledger = Ledger(stage=stage, output_channel=settings.channel_name)
        self.ledger.begin(settings.incarnation)
        self._account = Account(self.ledger)
        self._keeper = LedgerKeeper(settings.ledger, lambda: self._account.ledgers)
        self._twin = ""
        self._problem = ""
        self._state = "waiting"
        self._start_time = time.time()
        self._end_time = 0.0
        self._pacer: Pacer | None = None
        # The publisher, once there is one, and what those before it had dropped.
        self._present: Publisher | None = None
        self._rejected = 0
        self._reporter = Reporter(settings.report_period, not settings.disable_curses)

    def run(self, stop: threading.Event) -> int:
        """Serve until the frames, the time or the number to publish are over, or `stop` is set.

        Not for the main thread when a signal handler sets `stop`: the handler may then interrupt a
        wait on that very event.

        Returns:
            Exit code: 1 when a frame could not be published, or another program serves its channel.

        Raises:
            SourceError, FileError: frames cannot be read.
            TransportError: a channel cannot be hosted, or too few clients came.
        """
        settings = self._source
        settings.publishes.prepare(settings)
        before = listening_ports()
        server = new_server()
        try:
            self.publisher = self._present = self._make(server)
        except BaseException:
            # It serves from its beginning, not from its start.
            server.stop()
            raise
        server.start()
        twins = TwinWatch(settings.hosted, self._report_twin)
        # Where subscribers are known, connections say nothing more.
        known = self.publisher.knows_subscribers
        ports = frozenset[int]() if known else listening_ports() - before
        counter = ClientCounter(
            ports, lambda: self.publisher.clients, lambda: self.publisher.subscribers
        )
        try:
            self._open(server)
            self._reporter.start()
            # What is published is in no account if the program is killed before there is one.
            self._keeper.keep()
            self._wait_for_start(counter, stop)
            try:
                self._publish(stop if self._gate is None else self._gate.finish)
            finally:
                self._state = "draining"
            if self._gate is not None:
                self._keeper.write(final=True)
                self._let_take(stop)
                self._gate.end(stop)
            else:
                self._let_clients_finish(stop)
        except PvapyStreamError as error:
            self._problem = str(error)
            raise
        finally:
            twins.stop()
            self._close()
            self._reporter.end(self.totals)
            # First the server: a client that learns that a record goes may ask for it again, and
            # would take the last frame for a new one.
            server.stop()
            self.publisher.stop()
            self._keeper.close()
            self._end_time, self._state = time.time(), "failed"
        if self.ledger.failed or self._keeper.problem or self._twin:
            return 1
        self._state = "stopped"
        return 0

    @abstractmethod
    def _make(self, server: pva.PvaServer) -> Publisher:
        """The publisher; also finds what is published."""

    @abstractmethod
    def _open(self, server: pva.PvaServer) -> None:
        """Open the channel, and what belongs to it."""

    @abstractmethod
    def _prepare(self, stop: threading.Event) -> None:
        """Do what takes time before the first object."""

    @abstractmethod
    def _publish(self, stop: threading.Event) -> None:
        """Publish all, until the event is set."""

    @abstractmethod
    def _close(self) -> None:
        """Close what was opened beside the publisher."""

    def snapshot(self) -> Snapshot:
        """Its status."""
        settings, totals = self._source, self.totals
        times = totals.times(self._start_time, self._end_time)
        late = self._pacer.late if self._pacer is not None else 0
        publisher = self._present
        hindered = publisher.problem if publisher is not None else ""
        counts = publisher.counts() if publisher is not None else PublisherCounts()
        published = PublisherStats(
            totals.frames,
            n_errors=totals.failed,
            n_rejected=self._rejected + counts.rejected,
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

    def _let_take(self, stop: threading.Event, delay: float = 0.0) -> None:
        """Let subscribers take the last frames."""
        self.publisher.finish(_LAST_TAKEN_AT_STOP if stop.is_set() else max(_LAST_TAKEN, delay))

    def _let_clients_finish(self, stop: threading.Event) -> None:
        settings = self._source
        end = time.monotonic() + settings.shutdown_delay
        self._let_take(stop, settings.shutdown_delay)
        if settings.hosted:
            # A monitor does not report what it has taken.
            stop.wait(max(0.0, end - time.monotonic()))

    def _wait_for_start(self, counter: ClientCounter, stop: threading.Event) -> None:
        settings = self._source
        start = time.monotonic() + settings.start_delay
        self._prepare(stop)
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
        settings = self._source
        self._reporter.say(f"Waiting for {settings.wait_for_clients} clients")
        came = counter.wait(settings.wait_for_clients, settings.wait_timeout, stop)
        if came < settings.wait_for_clients and not stop.is_set():
            raise TransportError(
                f"{came} of {settings.wait_for_clients} clients connected to"
                f" {settings.channel_name} within {settings.wait_timeout:g} s; start the others, or"
                " give more time with --wait-timeout"
            )

    def _wait_for_stages(self, stop: threading.Event) -> None:
        settings = self._source
        self._reporter.say(f"Waiting for {', '.join(settings.wait_for_stages)}")
        missing = wait_for_stages(settings.wait_for_stages, settings.wait_timeout, stop)
        if missing and not stop.is_set():
            raise TransportError(
                f"{', '.join(missing)}: no stage with this status channel has received an object"
                f" within {settings.wait_timeout:g} s; start it, check its input channel, or give"
                " more time with --wait-timeout"
            )

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
