"""A consumer: one receiver and one stage."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pvaccess as pva
from msgspec.structs import replace

from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.accounting.sequence import SequenceTracker
from pvapy_stream.errors import ObjectError, PvapyStreamError, TransportError
from pvapy_stream.hpc.counts import Baseline, InboxCounts, SourceBaseline
from pvapy_stream.hpc.deadline import Deadline
from pvapy_stream.hpc.inbox import Returned
from pvapy_stream.hpc.parts import make_receiver, past_reader
from pvapy_stream.hpc.repairer import Asked, Repairer, await_connection
from pvapy_stream.hpc.requested import checking
from pvapy_stream.hpc.runner import StageRunner
from pvapy_stream.hpc.stage_stats import queue_stats
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.monitor_request import Distributor
from pvapy_stream.pva.objects import id_reader
from pvapy_stream.settings import ConsumerSettings
from pvapy_stream.status.counted import drop_stats, receiver_stats
from pvapy_stream.transport.filtered_ids import Filtered, FilteredReceiver
from pvapy_stream.transport.ports import Identified, Receiver, ReceiverCounts, Return

_PROBE_TIMEOUT = 0.5  # s; the source is on a network whose round trips are milliseconds
_LAST_PROBE = 2.0  # s; the same at the end, where what is lost is not known otherwise
_NOTE_PATIENCE = 0.1  # s; for the object that is processed
_PROBE_AGAIN_AFTER = 5.0  # s
_IDLE = 1.0  # s without an object, after which some may be overdue
_BLIND = "the source filters: what its share lacks, the audit of all ledgers shows"
# How long nothing may come, while what the source has just sent is under way; s.
_LAST_ARRIVALS = 1.0
# The same if it is not known which ids are still to arrive.
_LAST_ARRIVALS_BLIND = 0.25


def empty_ledger(settings: ConsumerSettings, stage_id: int) -> Ledger:
    """The ledger of a consumer that has received nothing."""
    return Ledger(
        stage="consumer",
        stage_id=stage_id,
        input_channel=(
            settings.dealer
            if settings.dealt
            else settings.named(settings.input_channel, "consumer", "input", stage_id)
        ),
        output_channel=settings.named(settings.output_channel, "consumer", "output", stage_id),
        group=(settings.distributor_group or "default") if settings.distributed else "",
        client_set=settings.distributor_set or "",
    )


class Consumer(StageRunner):
    """Receives from one channel."""

    kind = "consumer"
    settings: ConsumerSettings

    def __init__(self, settings: ConsumerSettings, stage_id: int, server: pva.PvaServer) -> None:
        super().__init__(settings, stage_id, server)
        self.input_channel = settings.named(settings.input_channel, self.kind, "input", stage_id)
        ledger = empty_ledger(settings, stage_id)
        tracker = SequenceTracker(settings.id_step, settings.sequential_updates)
        # Where ids do not show its share, only the audit of all ledgers names what nobody got.
        tracker.blind = not settings.by_turns
        self.stage = self.make_stage(ledger, tracker, settings.initial_updates)
        self.inbox = self.make_inbox(
            self.handle if settings.receives.lazy else self.stage.handle,
            self._take_returned,
            self.stage.reject,
            accumulate=settings.accumulate_objects,
            accumulation_timeout=settings.accumulation_timeout,
        )
        self.receiver = self._make_receiver()
        self._source_filters = FilteredReceiver(self.input_channel, self._excuse)
        self.repairer = self._make_repairer()
        self._left: Sequence[StreamObject] = []
        # Whether a source has come back, or another one.
        self._has_returned = False
        self._newest: int | None = None
        self._probed_at = 0.0
        self._probed_received = -1

    def processor_config(self) -> dict[str, object]:
        settings = self.settings
        return {
            **super().processor_config(),
            "objectIdOffset": settings.id_step,
            "nSequentialUpdates": settings.sequential_updates,
        }

    def _make_receiver(self) -> Receiver:
        settings = self.settings
        distributor = Distributor(
            settings.distributor_plugin_name,
            settings.distributor_group,
            settings.distributor_set,
            settings.distributor_trigger,
            settings.distributor_updates,
        )
        return make_receiver(
            settings,
            self.input_channel,
            self.server,
            self.stage.processor.getInputPvObjectType,
            distributor,
            self.id,
            self._unshared,
        )

    def _make_repairer(self) -> Repairer | None:
        if not self.settings.repair:
            return None
        reader = past_reader(self.settings, self.input_channel)
        asked = Asked(reader, lambda: self._program, self._take_repaired)
        return Repairer(self, [asked], self.settings.repair_timeout)

    @property
    def _program(self) -> str:
        """The program that the objects of the present epoch come from; "" if it is not known."""
        if not isinstance(self.receiver, Identified):
            return ""
        if not self._has_returned:
            return self.receiver.first_source
        return next(reversed(self.stage.account.ledger.sources), "")

    def _take_repaired(self, obj: StreamObject, epoch: int) -> int | None:
        value = id_reader(self.settings.oid_field, obj)(obj)
        return value if self.stage.take_repaired(self.wanted(obj), value, epoch) else None

    def _unshared(self, reason: str) -> None:
        """The source's server gives no share."""
        settings = self.settings
        if settings.dealer:
            self.unshared = reason
            if not self.receiver.counts().received:
                self.stage.ledger.input_channel = settings.dealer
            return
        group = settings.distributor_group or "default"
        self.stage.note_error(
            "distributor",
            TransportError(
                f"channel {self.input_channel} cannot be shared in group {group}: {reason}, and"
                " nothing is received; run all consumers of the group with one command"
                " (--n-consumers), which deals the objects out, or start"
                f' pvapy-stream mirror -cm "(MIRROR,{self.input_channel},pva,100)" and give all of'
                " them --input-channel MIRROR"
            ),
        )

    def _goes_to_dealer(self, obj: StreamObject) -> bool:
        """Whether this object is the first of a dealer after some of the source itself."""
        dealer = self.settings.dealer
        if not self.unshared or self.stage.ledger.input_channel == dealer:
            return False
        self.stage.change_input(dealer, id_reader(self.settings.oid_field, obj)(obj))
        return True

    def start_receiving(self) -> None:
        self.receiver.start(
            checking(self.settings, self.input_channel, self.inbox.put, self.note_request),
            self._put_again,
        )
        if self.repairer is not None:
            self.repairer.start()

    def _put_again(self, obj: StreamObject, how: Return) -> None:
        # In its turn: what the source sent before may still wait.
        receiver = self.receiver
        source = receiver.source if isinstance(receiver, Identified) else ""
        self.inbox.put_returned(Returned(obj, how, source))

    def _note_first_source(self) -> None:
        """Say in the ledgers which program their objects are from, until another one comes."""
        receiver = self.receiver
        if self._has_returned or not isinstance(receiver, Identified) or not receiver.first_source:
            return
        ledgers, sources = self.stage.account.ledgers, [receiver.first_source]
        # Usually noted once. If process() does not return, the status must still be updated.
        if all(one.sources == sources for one in ledgers) or not self.stage.lock.acquire(
            timeout=_NOTE_PATIENCE
        ):
            return
        try:
            if not self._has_returned:
                for ledger in ledgers:
                    ledger.sources = [*sources]
        finally:
            self.stage.lock.release()

    def _take_returned(self, returned: Returned) -> None:
        try:
            obj = self.wanted(returned.obj)
            if self._goes_to_dealer(obj):
                self.stage.handle(obj)
                return
        except ObjectError as error:
            self.stage.refuse(error)
            return
        if self.repairer is not None:
            with self.stage.lock:
                # What is missed by now was sent by the program before.
                self.repairer.look()
        how = self._source_filters.settled(returned.how)
        self._note_first_source()
        self._has_returned = True
        shared = self.settings.distributed
        if not self.stage.handle_again(obj, how, shared=shared, source=returned.source):
            self.stage.handle(obj)

    def _excuse(self, news: Filtered) -> None:
        """The source dropped objects on purpose: they are not missed, here and behind."""
        self.stage.pass_on(news.ids, news.handled, news.published)
        if self.settings.distributed:
            # Ids do not show which of the others were sent to this stage.
            with self.stage.lock:
                self.stage.ledger.excused.update(news.ids)
                if not self.stage.tracker.blind:
                    self.stage.tracker.go_blind(_BLIND)
        else:
            self.stage.excuse(news.ids)

    def keep_up(self) -> None:
        self.receiver.keep_up()
        if self.settings.ledger:
            self._note_first_source()
        self._source_filters.keep_up(self.receiver.connected)
        self._settling.note(self.stage.tracker.last)
        if not self.receiver.connected:
            # Nothing more comes for the batch that waits.
            self.stage.hurry()
        if self.filtered is not None:
            self.filtered.flush()
        self.metadata.keep_up(self.stage.counts.processed)
        received = self.receiver.counts().received
        now = time.monotonic()
        if received != self._probed_received:
            # Objects come: nothing is overdue. The probe waits for a pause in the stream.
            self._probed_received, self._newest = received, None
            self._probed_at = now - _PROBE_AGAIN_AFTER + _IDLE
        elif (
            received
            and not self.paused
            and now - self._probed_at > _PROBE_AGAIN_AFTER
            and not self._has_waiting()
        ):
            self._probed_at = now
            self._newest = self._newest_id()

    def _has_waiting(self) -> bool:
        inbox = self.inbox.counts()
        return inbox.queued > 0 or inbox.busy

    def _newest_id(self, timeout: float = _PROBE_TIMEOUT) -> int | None:
        obj = self.receiver.newest(timeout)
        try:
            return None if obj is None else id_reader(self.settings.oid_field, obj)(obj)
        except PvapyStreamError:
            return None

    def stop_receiving(self, deadline: Deadline) -> None:
        if self.repairer is not None:
            await_connection(self.receiver, deadline)
        newest = self._newest_id(min(_LAST_PROBE, deadline.left))
        if newest is None:
            # It does not answer now; what it had sent when it did is known.
            newest = self._newest
        self._newest_at_end = newest
        if newest is not None:
            self._await_arrivals(newest, deadline)
        self._left = self.receiver.stop(deadline.left)
        if self._hosts_input and not self.receiver.was_connected:
            self.log.warning(
                "nobody sent anything to channel %s, which is hosted here; check the channel of"
                " the program that publishes, its --output-mode %s and its EPICS_PVA_ADDR_LIST",
                self.input_channel,
                self.settings.receives.sender or self.settings.input_mode,
            )
        self._source_filters.stop()
        self._note_first_source()
        self._newest = None

    def _await_arrivals(self, newest: int, deadline: Deadline) -> None:
        """Wait for what the source has sent up to its newest id, as long as objects come."""
        tracker = self.stage.tracker
        received, since = -1, 0.0
        while not deadline.over:
            now = time.monotonic()
            if (count := self.receiver.counts().received) != received:
                received, since = count, now
            last = tracker.last
            if last is None or tracker.blind:
                due, patience = (last or 0) < newest, _LAST_ARRIVALS_BLIND
            else:
                due, patience = bool(tracker.overdue(newest)), _LAST_ARRIVALS
            if not due or now - since >= patience:
                return
            time.sleep(0.01)

    def flush(self, deadline: Deadline) -> None:
        self.inbox.drain(deadline)
        if self.repairer is not None:
            if self._newest_at_end is not None:
                self.stage.expect_to(self._newest_at_end)
            self.repairer.finish(deadline)

    def waiting(self) -> list[tuple[Account, StreamObject]]:
        left, self._left = self._left, []
        return [(self.stage.account, obj) for obj in (*self.inbox.left(), *left)]

    def reset_stats(self, _: object = None) -> str:
        reply = super().reset_stats()
        self._newest = None
        return reply

    @property
    def accounts(self) -> list[Account]:
        return [self.stage.account]

    @property
    def newest(self) -> int | None:
        return self._newest

    def baseline(self, came: Mapping[str, ReceiverCounts]) -> Baseline:
        done = self.stage.taken - self.stage.unsettled(self.stage.account)
        return Baseline(
            InboxCounts.settled(done, self.inbox.counts().rejected),
            {self.input_channel: SourceBaseline(came[self.input_channel])},
            self.published(),
            repaired=self.stage.n_repaired,
        )

    def own_stats(self, seconds: float, base: Baseline) -> dict[str, Any]:
        inbox = self.inbox.counts().since(base.inbox)
        counts = self.receiver.counts().since(base.source(self.input_channel).receiver)
        repaired = self.stage.n_repaired - base.repaired
        counts = replace(counts, received=inbox.received + repaired)
        return {
            "receiver_stats": receiver_stats(counts, inbox.rejected, seconds),
            "queue_stats": queue_stats(inbox),
            "drop_stats": drop_stats(counts),
        }

    @property
    def missed(self) -> int:
        """Objects that did not come: gaps, and what is overdue at the end."""
        return self.count_missed([self._source_filters])

    @property
    def _hosts_input(self) -> bool:
        """Whether others come to our channel: it is there, whether they do or not."""
        return "input" in self.settings.hosted(self.kind, self.id)

    @property
    def phase(self) -> str:
        if self.paused:
            return "paused"
        if self.receiver.connected:
            return "running"
        return "disconnected" if self.receiver.was_connected else "waiting"

    @property
    def heard(self) -> int:
        return int(self.receiver.counts().received > 0)

    def absent(self) -> list[str]:
        if self.unshared or self.receiver.was_connected or self._hosts_input:
            return []
        return [self.input_channel]

    def receivers(self) -> dict[str, Receiver]:
        return {self.input_channel: self.receiver}
