"""A collector: many receivers, a reorder buffer and one stage."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from functools import partial
from typing import Any

import pvaccess as pva

from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import SequenceTracker
from pvapy_stream.errors import ObjectError, PvapyStreamError
from pvapy_stream.hpc.collector_status import CollectorStatus
from pvapy_stream.hpc.deadline import Deadline
from pvapy_stream.hpc.inbox import QUEUE_FULL, Returned
from pvapy_stream.hpc.parts import make_receiver, past_reader
from pvapy_stream.hpc.producer import Arrival, Producer
from pvapy_stream.hpc.reorder import DUPLICATE, Released, ReorderBuffer
from pvapy_stream.hpc.repairer import Asked, Repairer, await_connection
from pvapy_stream.hpc.requested import checking
from pvapy_stream.pva.lazy import StreamObject, frame_of
from pvapy_stream.pva.objects import IdReader, as_late, id_reader, is_late, is_marked
from pvapy_stream.settings import CollectorSettings
from pvapy_stream.transport.filtered_ids import Filtered, FilteredReceiver
from pvapy_stream.transport.ports import Identified, Return

_CACHE_BYTES = 256 * 2**20
_CACHE_MOST = 2000  # objects
_LARGEST = 2**63  # larger than any id
_LAST_PROBE = 2.0  # s; for a producer to say at the end what it published last
_LAST_ARRIVALS = 0.25  # s; how long what producers have just sent may be under way


class Collector(CollectorStatus):
    """Receives from several producers and processes their objects in the order of ids.

    Each producer has a ledger of its own; ids that none of them sent are in the first.
    """

    kind = "collector"
    settings: CollectorSettings

    def __init__(self, settings: CollectorSettings, stage_id: int, server: pva.PvaServer) -> None:
        super().__init__(settings, stage_id, server)
        self.sources: dict[Any, Producer] = {
            number: Producer(
                number,
                channel,
                Ledger(
                    stage=self.kind,
                    stage_id=stage_id,
                    input_channel=channel,
                    output_channel=self.output_channel,
                ),
            )
            for number, channel in settings.producers.items()
        }
        first = next(iter(self.sources.values()))
        tracker = SequenceTracker(max(settings.oid_offset, 1), repeats=True)
        self.stage = self.make_stage(first.account.ledger, tracker, skip=0)
        first.account = self.stage.account
        self.stage.own_epochs = False
        input_type = self.stage.processor.getInputPvObjectType
        for source in self.sources.values():
            source.to_skip = settings.initial_updates
            source.receiver = make_receiver(
                settings, source.channel, server, input_type, number=source.number
            )
            source.filters = FilteredReceiver(
                source.channel, partial(self._on_filtered, source.number)
            )
        self.inbox = self.make_inbox(self._take, self._take_returned, self._reject)
        self.repairer = self._make_repairer()
        self.buffer = ReorderBuffer(
            self.sources, settings.cache_size, settings.gap_timeout, settings.producer_disorder
        )
        self.disorder = settings.producer_disorder
        self.released: deque[Released] = deque()
        self._read_id: IdReader | None = None
        self.collected = 0

    def _make_repairer(self) -> Repairer | None:
        settings = self.settings
        if not settings.repair:
            return None
        asked = [
            Asked(
                past_reader(settings, source.channel),
                lambda source=source: source.present_program,
                partial(self._take_repaired, source),
            )
            for source in self.sources.values()
        ]
        return Repairer(self, asked, settings.repair_timeout)

    def processor_config(self) -> dict[str, object]:
        return {**super().processor_config(), "objectIdOffset": max(self.settings.oid_offset, 1)}

    # -- the way of an object --------------------------------------------------------------------

    def start_receiving(self) -> None:
        for number, source in self.sources.items():
            put = checking(
                self.settings, source.channel, partial(self._put, number), self.note_request
            )
            source.receiver.start(put, partial(self._put_again, number))
        if self.repairer is not None:
            self.repairer.start()

    def _put(self, producer: int, obj: StreamObject) -> bool:
        self.sources[producer].arrived += 1
        return self.inbox.put(Arrival(producer, obj))

    def _put_again(self, producer: int, obj: StreamObject, how: Return) -> None:
        # In its turn: what the producer sent before may still wait.
        self.sources[producer].arrived += 1
        receiver = self.sources[producer].receiver
        program = receiver.source if isinstance(receiver, Identified) else ""
        self.inbox.put_returned(Returned(Arrival(producer, obj), how, program))

    def _take_returned(self, returned: Returned) -> None:
        """Take the first object of a producer that reconnected, unless it is an old one."""
        arrival: Arrival = returned.obj
        with self.stage.lock:
            source = self.sources[arrival.producer]
            if self.repairer is not None:
                # What is missed by now was sent by the program before.
                self.repairer.look()
            source.program = returned.source
            if source.newest is not None and source.filters.settled(returned.how).anew:
                # Whatever comes now is smaller.
                source.newest = _LARGEST
            if is_marked(arrival.obj):
                source.taken += 1
                self.stage.counts.skipped += 1
                return
            # What has come last, or else what was shown at first: to be new, it has to be larger.
            known = source.initial if source.newest is None else source.newest
            if known is not None and returned.how.shown:
                self.stage.account_to(source.account)
                value = self._id_of(arrival.obj)
                if value is None or value <= known:
                    source.taken += 1
                    if value is not None:
                        self._skip_shown(source, value)
                    return
            if known is None and source.account.ledger.opened:
                self.stage.note_absence()
        self._take(arrival)

    def _skip_shown(self, source: Producer, value: int) -> None:
        if source.newest is None:
            source.initial = value
        elif value < source.newest:
            self._go_back(source, value, skipped=1)
            source.newest = None
        self._skip(source, value)

    def _skip(self, source: Producer, value: int) -> None:
        self.stage.counts.skipped += 1
        source.account.ledger.skip(value)

    def _on_filtered(self, producer: int, news: Filtered) -> None:
        """A producer dropped objects on purpose: they are not waited for, and not missed."""
        with self.stage.lock:
            self.stage.excuse(news.ids)
            self.stage.pass_on(news.ids)
            source = self.sources[producer]
            # What it published before it said so may still be under way.
            arrived = news.published is None or (
                source.newest is not None and source.newest >= news.published
            )
            source.passed = None if arrived else news
            if arrived:
                self._pass(source, news.handled)

    def _pass(self, source: Producer, value: int) -> None:
        self.buffer.pass_by(source.number, value)
        self._handle(self.buffer.release(time.monotonic()))

    def _take(self, arrival: Arrival) -> None:
        with self.stage.lock:
            source = self.sources[arrival.producer]
            source.taken += 1
            self.stage.account_to(source.account)
            value = self._id_of(arrival.obj)
            if value is None:
                return
            if source.to_skip > 0 or source.newest is None or value <= source.newest:
                if is_marked(arrival.obj):
                    source.to_skip = max(0, source.to_skip - 1)
                    self.stage.counts.skipped += 1
                    source.account.ledger.opened = True
                    return
                if source.to_skip > 0:
                    source.to_skip -= 1
                    source.initial = value
                    self._skip(source, value)
                    return
            if self._is_repeated(source, value):
                return
            newest = source.newest
            late = newest is not None and value < newest and is_late(arrival.obj)
            if not late:
                if newest is not None and newest - value > self.disorder:
                    self._go_back(source, value)
                source.newest = value
            self._add(source, value, arrival.copy().obj, late)
            passed = source.passed
            if passed is not None and passed.published is not None and value >= passed.published:
                source.passed = None
                self._pass(source, max(value, passed.handled))

    def _add(self, source: Producer, value: int, obj: StreamObject, late: bool) -> None:
        """Process an object in its turn; one that was repaired also after larger ids."""
        why = self.buffer.add(source.number, value, obj, time.monotonic())
        if why is None:
            self.collected += 1
            self._handle(self.buffer.release(time.monotonic()))
        elif why is DUPLICATE:
            self._note_duplicate(source, value)
        elif not late and self.repairer is None:
            source.rejected += 1
            source.account.ledger.received.add(value)
            source.account.ledger.reject(why, value)
        elif value in source.account.ledger.received:
            self._note_duplicate(source, value)
        else:
            self.collected += 1
            self._handle([Released(value, source.number, obj if late else as_late(obj))])

    def _take_repaired(self, source: Producer, obj: StreamObject, epoch: int) -> int | None:
        """Take an object that the producer sent again."""
        value = id_reader(self.settings.oid_field, obj)(obj)
        with self.stage.lock:
            self.stage.account_to(source.account)
            if not self.stage.take_repaired(self.wanted(obj), value, epoch):
                return None
            source.arrived += 1
            source.taken += 1
            self.collected += 1
            return value

    def _is_repeated(self, source: Producer, value: int) -> bool:
        """Whether an object is the one that was skipped at first, shown once more."""
        if source.initial is None:
            return False
        again, source.initial = value == source.initial, None
        if again:
            self._note_duplicate(source, value)
        return again

    def _note_duplicate(self, source: Producer, value: int) -> None:
        source.account.ledger.received.add(value)
        source.account.ledger.duplicate.add(value)
        self.stage.counts.skipped += 1
        self.stage.counts.duplicates += 1

    def _id_of(self, obj: StreamObject) -> int | None:
        try:
            if self._read_id is None:
                self._read_id = id_reader(self.settings.oid_field, obj)
                self.stage.prepare(self.wanted(obj))
                self._fit_cache(obj)
            return self._read_id(obj)
        except Exception as error:
            self.stage.no_id(error)
            return None

    def _fit_cache(self, obj: StreamObject) -> None:
        """Hold as many small images as fit: a producer that is slow for a moment costs none."""
        if self.settings.collector_cache_size < 0:
            with contextlib.suppress(ObjectError):
                fits = _CACHE_BYTES // max(1, frame_of(obj).payload.nbytes)
                self.buffer.size = max(self.buffer.size, min(fits, _CACHE_MOST))

    def _go_back(self, source: Producer, value: int, skipped: int = 0) -> None:
        """The ids of a producer start again: for its account, and for all if it is the first."""
        if self.buffer.begins_anew(source.number, value):
            self._begin_anew(source, value)
        self.stage.finish_batch()
        source.account.begin_epoch()
        # Producers share the ids: the first of each is known by what it sent before.
        source.account.note_late_start(value + skipped, first=value + skipped)
        self.stage.account_to(source.account)

    def _begin_anew(self, source: Producer, value: int) -> None:
        self.log.warning(
            "producer %d begins again with id %d: a new sequence begins; what is held is"
            " processed first",
            source.number,
            value,
        )
        self._handle(self.buffer.drain())
        self.stage.end_epoch()
        self.buffer.restart()

    def _handle(self, released: list[Released], deadline: Deadline | None = None) -> None:
        waiting = self.released
        waiting.extend(released)
        while waiting and not (deadline is not None and deadline.over):
            # It stays there until it has its fate: others may wait behind it for ever.
            one = waiting[0]
            self.stage.account_to(self.sources[one.producer].account)
            self.handle(one.obj)
            waiting.popleft()

    def _reject(self, policy: str, arrival: Arrival) -> None:
        with self.stage.lock:
            source = self.sources[arrival.producer]
            source.refused += 1
            if policy == QUEUE_FULL:
                source.rejected += 1
            self.stage.account_to(source.account)
            self.stage.reject(policy, arrival.obj)

    # -- life ------------------------------------------------------------------------------------

    def keep_up(self) -> None:
        self.metadata.keep_up(self.stage.counts.processed)
        for number, source in self.sources.items():
            source.receiver.keep_up()
            source.filters.keep_up(source.receiver.connected)
            # One that has never been there may come yet; one that is gone holds up nobody.
            gone = source.receiver.was_connected and not source.receiver.connected
            self.buffer.set_live(number, not gone)
        self._settling.note(self.stage.tracker.last)
        if not any(source.receiver.connected for source in self.sources.values()):
            # Nothing more comes for the batch that waits.
            self.stage.hurry()
        if self.filtered is not None:
            self.filtered.flush()
        if not self.paused and self.stage.lock.acquire(timeout=0.1):
            try:
                self._handle(self.buffer.release(time.monotonic()))
            finally:
                self.stage.lock.release()

    def stop_receiving(self, deadline: Deadline) -> None:
        if self.repairer is not None:
            self._newest_at_end = self._newest_published(deadline)
        time.sleep(_LAST_ARRIVALS)
        for source in self.sources.values():
            source.left = source.receiver.stop(deadline.left)
            source.filters.stop()

    def _newest_published(self, deadline: Deadline) -> int | None:
        """The largest id that a producer has published; None if none of them answers."""
        found: list[int] = []
        for source in self.sources.values():
            await_connection(source.receiver, deadline)
            obj = source.receiver.newest(min(_LAST_PROBE, deadline.left))
            if obj is not None:
                with contextlib.suppress(PvapyStreamError):
                    found.append(id_reader(self.settings.oid_field, obj)(obj))
        return max(found, default=None)

    def flush(self, deadline: Deadline) -> None:
        self.inbox.drain(deadline)
        if deadline.wait_for(lambda seconds: self.stage.lock.acquire(timeout=seconds)):
            try:
                self._handle(self.buffer.drain(), deadline)
            finally:
                self.stage.lock.release()
        if self.repairer is not None:
            if self._newest_at_end is not None:
                self.stage.expect_to(self._newest_at_end)
            self.repairer.finish(deadline)

    def waiting(self) -> list[tuple[Account, StreamObject]]:
        released = [*self.released, *self.buffer.drain()]
        waiting: list[Released | Arrival] = [*released, *self.inbox.left()]
        found = [(self.sources[one.producer].account, one.obj) for one in waiting]
        for source in self.sources.values():
            found += [(source.account, obj) for obj in source.left]
            source.left = []
        return found

    def configure_own(self, own: dict[str, int]) -> None:
        size = own.get("collectorCacheSize")
        if size is not None:
            self.buffer.size = self.settings.replace(collector_cache_size=size).cache_size
        super().configure_own(own)
