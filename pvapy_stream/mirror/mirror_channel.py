"""One channel of a mirror: receivers of a source connected to a publisher, with a ledger."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pvaccess as pva

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.errors import ObjectError, TransportError
from pvapy_stream.mirror.filtered import FilteredRelay
from pvapy_stream.mirror.mirror_account import MirrorAccount
from pvapy_stream.mirror.mirror_output import MirrorOutput
from pvapy_stream.pva.lazy import StreamObject, pv_object
from pvapy_stream.pva.monitor_request import Distributor
from pvapy_stream.pva.objects import IdReader, LazyIds, id_reader, is_marked, mark
from pvapy_stream.settings import MirrorSettings
from pvapy_stream.settings.channel_map import MirrorEntry
from pvapy_stream.status.counted import Times, ledger_stats, rated
from pvapy_stream.status.snapshot import PublisherStats, QueueStats, ReceiverStats, Snapshot
from pvapy_stream.transport import registry
from pvapy_stream.transport.absence import Awaited
from pvapy_stream.transport.filtered_ids import Filtered
from pvapy_stream.transport.mode import PublisherOptions, ReceiverOptions
from pvapy_stream.transport.ports import Receiver, Return

KIND = "mirror"
HOSTED = "pvas"  # mode of the channels that it publishes
BEFORE = "before the consumers"

_LOG_EVERY = 1000

_log = logging.getLogger(__name__)


def _distributor(share: dict[str, str] | None) -> Distributor | None:
    """Distributor options of a request, for modes without a PV request."""
    if share is None:
        return None
    updates = share.get("updates", "")
    return Distributor(
        group=share.get("group", "default"),
        client_set=share.get("set"),
        updates=int(updates) if updates.isdecimal() else None,
    )


class MirrorChannel:
    """Publishes the objects that the monitors of one source deliver, and keeps their ledger.

    Args:
        entry: the mirrored channel.
        stage_id: its id in the ledger.
        settings: of the mirror server. A source without the id field is mirrored without a ledger;
            if the mirror waits for consumers, updates with an id are passed on only after
            `let_through`.
        server: the binding's server for the mirror; the caller starts and stops it.
        hosted: output mode.
        announce: called with the name of another PVA channel of the mirror when it exists.

    Attributes:
        output: the channel that it shows.
    """

    def __init__(
        self,
        entry: MirrorEntry,
        stage_id: int,
        settings: MirrorSettings,
        server: pva.PvaServer,
        hosted: str = HOSTED,
        announce: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.entry = entry
        self._waits = settings.wait_for_consumers > 0
        self._before = IdSet()
        share = entry.distribution
        alone = share is None and entry.n_monitors == 1
        self._account = MirrorAccount(
            Ledger(
                stage=KIND,
                stage_id=stage_id,
                input_channel=entry.source,
                output_channel=entry.mirror,
                group="" if share is None else share.get("group", "default"),
                client_set="" if share is None else share.get("set", ""),
            ),
            alone,
        )
        self.last_error = ""
        self._oid_field = settings.oid_field
        publisher = PublisherOptions(
            entry.mirror, server, id_field=settings.oid_field, settings=settings
        )
        self.output = MirrorOutput(entry, registry.make_publisher(hosted, publisher))
        source = ReceiverOptions(
            entry.source,
            queue_size=entry.queue,
            pv_request=entry.pv_request,
            distributor=_distributor(share),
            library=settings.pva_library,
            unshared=self._unshared,
        )
        self._receivers = [
            registry.make_receiver(entry.provider, source) for _ in range(entry.n_monitors)
        ]
        # Detects whether the source is a stage, and receives the ids that it filters.
        self._filters = (
            FilteredRelay(entry.source, entry.mirror, server, self._excuse, announce)
            if entry.provider != "ca"
            else None
        )
        self._awaited = Awaited(_log, registry.input_mode(entry.provider).absent)
        self._lock = threading.Lock()
        self._read_id: IdReader | None = None
        # Monitors that have received the current object since the source connected or reconnected.
        self._arrived: set[int] = set()
        self._published = 0
        self._errors = 0
        self._times = Times()
        if share is None and entry.n_monitors > 1:
            _log.warning(
                "channel %s: no distributor in the request: %d monitors publish all %d times",
                entry.mirror,
                entry.n_monitors,
                entry.n_monitors,
            )

    def start(self) -> None:
        """Begin to receive from the source."""
        self._times.start = time.time()
        for number, receiver in enumerate(self._receivers):
            self._start(number, receiver)

    def _start(self, number: int, receiver: Receiver) -> None:
        fresh = True

        def deliver(obj: StreamObject) -> None:
            if fresh:
                deliver_current(obj)
            else:
                with self._lock:
                    self._pass_on(obj, self._id_of(obj))

        def deliver_current(obj: StreamObject, how: Return | None = None) -> None:
            nonlocal fresh
            fresh = False
            self._take_current(number, pv_object(obj), how)

        def deliver_again(obj: StreamObject, how: Return) -> None:
            if self._filters is not None:
                how = self._filters.settled(how)
            if how.shown:
                deliver_current(obj, how)
                return
            if how.anew:
                with self._lock:
                    self._account.begin_anew()
            deliver(obj)

        receiver.start(deliver, deliver_again)

    def _unshared(self, reason: str) -> None:
        """The monitors cannot share the stream."""
        self._note_error(
            TransportError(
                f"channel {self.entry.source} cannot be shared by monitors: {reason}; leave their"
                " number and the distributor out of its entry in --channel-map"
            ),
            None,
        )

    def let_through(self) -> None:
        """Pass on objects from now on, and report the earlier ones."""
        with self._lock:
            self._waits = False
            if self._before:
                _log.warning(
                    "channel %s: %d objects of %s arrived before its consumers and were not"
                    " passed on: ids %s",
                    self.entry.mirror,
                    len(self._before),
                    self.entry.source,
                    self._before,
                )

    def keep_up(self) -> None:
        """Check the connections; call a few times a second."""
        for receiver in self._receivers:
            receiver.keep_up()
        if self._filters is not None:
            self._filters.keep_up(all(one.connected for one in self._receivers))
        self._awaited.look([] if self._came else [self.entry.source])

    def _excuse(self, news: Filtered) -> None:
        with self._lock:
            self._account.excuse(news.ids)

    def stop(self) -> None:
        """Stop receiving from the source; the mirror's channel stays until its server stops.

        What had arrived and was not delivered is passed on.
        """
        for receiver in self._receivers:
            for obj in receiver.stop():
                self._take_left(obj)
        if self._filters is not None:
            self._filters.stop()
        self._times.end = time.time()

    def _take_left(self, obj: StreamObject) -> None:
        with self._lock:
            if is_marked(obj):
                return
            if self._read_id is None:
                self._read_id = self._reader_for(obj)
            self._pass_on(obj, self._id_of(obj))

    def _take_current(self, number: int, obj: StreamObject, how: Return | None = None) -> None:
        """Handle the current object that a monitor receives first, which may be old.

        It is published for clients of the mirror, but it is not an update: in the ledger it is
        skipped, and it is marked, so that no stage processes it as a frame. Current objects that
        further monitors of a group receive were published before they connected, so they belong to
        the earlier ones. When a source reconnects, its current object is new for a single monitor
        if its id is larger than all before. The current object of another source was published
        before any monitor connected.
        """
        with self._lock:
            self._read_id = self._reader_for(obj)
            returns = not self._arrived or number in self._arrived
            self._arrived = {number} if returns else self._arrived | {number}
            if how is not None and how.anew and returns:
                self._account.begin_anew()
            if is_marked(obj):
                if self.output.lacks(obj):
                    self.ledger.opened = True
                    self._publish(obj, None, shown=True)
                return
            value = self._id_of(obj)
            if value is None:
                if self.output.opened:
                    self._pass_on(obj, None)
                else:
                    self._publish(obj, None, shown=True)
            elif self._account.is_new(value, returns):
                self._pass_on(obj, value)
            else:
                self.ledger.skip(value)
                if self.output.lacks(obj):
                    self._publish(mark(obj.copy()), None, shown=True)

    def _reader_for(self, obj: StreamObject) -> IdReader | None:
        try:
            id_reader(self._oid_field, obj)
            return LazyIds(self._oid_field)
        except ObjectError as error:
            _log.info(
                "channel %s: the ids cannot be recorded in the ledger: %s", self.entry.mirror, error
            )
            return None

    def _id_of(self, obj: StreamObject) -> int | None:
        if self._read_id is None:
            self.ledger.anonymous += 1
            return None
        return self._read_id(obj)

    @property
    def ledger(self) -> Ledger:
        """The ledger of the current epoch."""
        return self._account.ledger

    def _pass_on(self, obj: StreamObject, value: int | None) -> None:
        """Publish an update and note its fate."""
        if value is None:
            self._publish(obj, None)
            return
        if not self._account.take(value, obj):
            return
        ledger = self.ledger
        if self._waits:
            self._before.add(value)
            ledger.reject(BEFORE, value)
        elif self._publish(obj, value):
            ledger.processed.add(value)
            ledger.publish(value)

    def _publish(self, obj: StreamObject, value: int | None, *, shown: bool = False) -> bool:
        try:
            if shown:
                self.output.show(obj)
            else:
                late = value is not None and self._account.is_late(value, obj)
                self.output.publish(obj, late)
        except TransportError as error:
            self._note_error(error, value)
            return False
        self._published += 1
        self._times.last = time.time()
        self._times.first = self._times.first or self._times.last
        return True

    def _note_error(self, error: TransportError, value: int | None) -> None:
        self._errors += 1
        self.last_error = str(error)
        if value is not None:
            self.ledger.fail("publishing", value)
        if self._errors == 1 or self._errors % _LOG_EVERY == 0:
            _log.error("%s (%d errors so far)", error, self._errors)

    def counters(self) -> dict[str, int]:
        """Counts since the start, with the incumbent's names."""
        counts = self.snapshot().counts()
        names = ("received", "published", "overruns", "errors")
        return {f"n{name.capitalize()}": round(counts[name]) for name in names}

    def snapshot(self) -> Snapshot:
        """Its status."""
        counts, seconds = [one.counts() for one in self._receivers], self._times.seconds
        with self._lock:
            ledgers = self._account.ledgers
            processor = ledger_stats(self._account, self._times, overdue=self._account.overdue)
            rejected = sum(len(ids) for one in ledgers for ids in one.rejected.values())
        received = ReceiverStats(
            n_received=sum(one.received for one in counts),
            n_errors=sum(one.errors for one in counts),
            n_overruns=sum(one.overruns for one in counts),
        )
        return Snapshot(
            KIND,
            ledgers[0].stage_id,
            self.entry.source,
            state=self._state,
            restarts=ledgers[0].incarnation - 1,
            message=self.problem() if self._times.end else self.last_error or self._awaited.remark,
            object_id=processor.last_object_id,
            output_channel=self.entry.mirror,
            receiver_stats=rated(received, seconds),
            publisher_stats=rated(
                PublisherStats(
                    self._published,
                    n_errors=self._errors,
                    n_rejected=self.output.rejected,
                ),
                seconds,
            ),
            queue_stats=QueueStats(n_rejected=rejected),
            processor_stats=processor,
            labels={"channel": self.entry.mirror, "source": self.entry.source},
        )

    @property
    def _state(self) -> str:
        if self._times.end:
            return "failed" if self.problem() else "stopped"
        if all(one.connected for one in self._receivers):
            return "waiting" if self._waits else "running"
        return "disconnected" if self._came else "waiting"

    @property
    def _came(self) -> bool:
        return all(one.was_connected for one in self._receivers)

    def ledgers(self) -> list[Ledger]:
        """The present ledgers: one for each epoch of ids."""
        with self._lock:
            return self._account.copies()

    def problem(self) -> str:
        """Why the run has failed, or ""."""
        entry = self.entry
        errors = self._errors + sum(one.counts().errors for one in self._receivers)
        if errors:
            last = self.last_error or "see the log"
            return f"channel {entry.mirror}: {errors} errors, the last: {last}"
        if not self._came:
            hint = self._awaited.to_check([entry.source])
            return f"channel {entry.mirror}: source {entry.source} was never found; {hint}"
        return ""
