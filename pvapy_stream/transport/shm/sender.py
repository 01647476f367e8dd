"""Publisher to shared memory of this host."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

import iceoryx2 as iox
import pvaccess as pva

from pvapy_stream.errors import TransportError
from pvapy_stream.pva.lazy import LazyObject, StreamObject
from pvapy_stream.transport.ports import Publisher, PublisherCounts
from pvapy_stream.transport.shm import nodes, payloads, pool_file
from pvapy_stream.transport.shm.copies import SUBSCRIBER, Copies
from pvapy_stream.transport.shm.frames import (
    ALL_SUBSCRIBERS,
    EMPTY,
    INITIAL,
    OPENING,
    Copy,
    Parts,
    Sendable,
)
from pvapy_stream.transport.shm.peer_directory import PeerDirectory, has_subscribers, new_key
from pvapy_stream.transport.shm.peer_file import (
    PUBLISHER,
    PublisherFile,
    PublisherInfo,
    SubscriberInfo,
)
from pvapy_stream.transport.shm.references import Reference
from pvapy_stream.transport.shm.sample_encoder import SampleEncoder
from pvapy_stream.transport.shm.set_service import SetService, Subscriber, default_queue
from pvapy_stream.transport.shm.set_turns import RoundRobin
from pvapy_stream.transport.shm.subscriber_table import SubscriberTable
from pvapy_stream.transport.shm_settings import ShmSettings

if TYPE_CHECKING:
    from pvapy_stream.transport.shm.slot_memory import HeldMemory

_REFRESH_PERIOD = 0.05  # s; of the thread that updates the subscribers while nothing is published
_PAYLOADS_PERIOD = 1.0  # s
_MIN_WAIT, _MAX_WAIT = 50e-6, 3e-4  # s between two checks of a full queue
_RESERVING = 0.01  # s; a thread that reserves memory while another publishes waits no longer
_STALLED = 0.1  # s; a subscriber that sleeps for so long with a full queue has nothing to take
_LONG_WAIT = 1.0  # s; a wait for a subscriber that takes longer is in the status

_log = logging.getLogger(__name__)


class ShmPublisher(Publisher):
    """Publishes to subscribers on this host.

    A small object is copied once for each group of subscribers. A large one is copied into a slot
    of this publisher's payload pool, unless it was received in a slot, and all get references.

    A subscriber first gets the current object, as with PVAccess. The overflow policy decides what
    happens to an object if the queue of a subscriber is full.

    Args:
        channel: name of the channel.
        settings: overflow policy, its time limit, and the queue size.
        id_field: field with the object id.
        source: whether the program makes its objects itself, so that ids start again with it.
    """

    takes_lazy = True
    knows_subscribers = True

    def __init__(
        self,
        channel: str,
        settings: ShmSettings,
        id_field: str = "uniqueId",
        source: bool = False,
    ) -> None:
        self.channel = channel
        self._settings = settings
        self._blocks = settings.shm_overflow == "block"
        self._encoder = SampleEncoder(id_field)
        self._key = new_key()
        self._source = source
        self._lock = threading.Lock()
        self._directory = PeerDirectory(channel)
        self._table = SubscriberTable(self._directory, self._key, self._create_service, self._greet)
        self._copies = Copies(channel)
        self._payloads = payloads.Payloads(self._key, self._copies, self._table.queued)
        self._payloads_due = 0.0
        self._file: PublisherFile | None = None
        self._node: iox.Node | None = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._current: Sendable | None = None
        self._current_flags = INITIAL
        # Whose queue is full, and since when that is waited for.
        self._waits_for: tuple[Subscriber, float] | None = None
        # Whether the last large object was sent as references.
        self._refers = False
        self._published = self._errors = self._rejected = 0

    # -- lifecycle -------------------------------------------------------------------------------

    def start(self) -> None:
        if self._file is not None:
            return
        self._node = nodes.node.acquire()
        try:
            self._directory.sweep()
            pool_file.sweep(has_subscribers)
            self._file = self._directory.create(
                PUBLISHER, PublisherInfo(self._key, os.getpid(), self._source)
            )
        except BaseException:
            self._node = None
            nodes.node.release()
            raise
        self._thread = threading.Thread(
            target=self._refresh_periodically, name="shm-publisher", daemon=True
        )
        self._thread.start()

    def open(self, prototype: pva.PvObject | LazyObject) -> None:
        with self._lock:
            self._show(self._encoder.parts(prototype), INITIAL | OPENING)

    def _show(self, parts: Sendable, flags: int) -> None:
        """Make an object the current one, without counting it as published."""
        if self._file is None:
            self.start()
        self._current, self._current_flags = parts, flags
        for service in self._table.services.values():
            if service.subscribers:
                self._send(service, parts, flags)

    def _refresh_periodically(self) -> None:
        while not self._ended.wait(_REFRESH_PERIOD):
            if self._lock.acquire(timeout=_REFRESH_PERIOD):
                try:
                    if not self._ended.is_set():
                        self._refresh(time.monotonic())
                finally:
                    self._lock.release()

    def _refresh(self, now: float) -> None:
        if self._node is not None:
            self._table.refresh(now, self._node)
        if now >= self._payloads_due:
            self._payloads_due = now + _PAYLOADS_PERIOD
            self._payloads.refresh()

    def finish(self, patience: float) -> None:
        """Wait until all queues are empty, for at most `patience` s, and close the channel."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with self._lock:
                if self._file is None:
                    return
                self._refresh(time.monotonic())
                if self._table.all_taken():
                    break
            time.sleep(_MAX_WAIT)
        self.stop()

    def stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(5)
            self._thread = None
        with self._lock:
            if self._file is None:
                return
            self._table.close()
            self._file.close(remove=True)
            self._file = None
            self._payloads.close()
            # It may keep shared memory.
            self._current = Parts(EMPTY, 0)
            self._directory.remove_if_empty()
            self._node = None
            nodes.node.release()

    # -- publishing ------------------------------------------------------------------------------

    def publish(self, obj: pva.PvObject | LazyObject) -> None:
        with self._lock:
            try:
                parts = self._encoder.parts(obj)
                if self._current is None:
                    self._show(parts, INITIAL)
                self._publish(parts, obj)
            except TransportError:
                self._errors += 1
                raise
            except Exception as error:
                self._errors += 1
                raise TransportError(
                    f"cannot publish on channel {self.channel}: {error}"
                ) from error

    def _publish(self, parts: Sendable, obj: StreamObject) -> None:
        table = self._table
        now = time.monotonic()
        if now >= table.refresh_due:
            self._refresh(now)
        self._current, self._current_flags = parts, INITIAL
        if self._file is None:
            raise TransportError(f"channel {self.channel} is closed")
        self._published += 1
        counters = self._file.counters
        counters.newest_id = parts.id
        counters.published = self._published
        if table.problem:
            raise TransportError(table.problem)
        if parts.nbytes < payloads.MIN_PAYLOAD:
            for sets in self._groups():
                service = sets.next(obj)
                if service is not None:
                    self._send(service, parts)
        else:
            self._publish_large(parts, obj)

    def _groups(self) -> list[RoundRobin]:
        """The groups; in each, a set with room can be chosen, if that is waited for."""
        # A copy, as subscribers may come meanwhile.
        found = [*self._table.groups.values()]
        if self._blocks:
            for sets in found:
                if waits := sets.waits:
                    self._wait_for_any(sets, waits[0].subscribers[0])
        return found

    def _wait_for_any(self, sets: RoundRobin, shown: Subscriber) -> None:
        """Wait until a set has room, or until the time limit; the status shows one of them."""
        start = now = time.monotonic()
        self._waits_for = shown, start
        step = _MIN_WAIT
        while sets.waits and now - start < self._settings.shm_timeout:
            time.sleep(step)
            step = min(1.5 * step, _MAX_WAIT)
            now = time.monotonic()
            if now >= self._table.refresh_due:
                self._refresh(now)
        self._waits_for = None

    def _publish_large(self, parts: Sendable, obj: StreamObject) -> None:
        """Send references, and copies where that is not possible."""
        if isinstance(parts, Copy):
            parts = parts.parts()
        reference: Reference | None = None
        none = False
        try:
            for sets in self._groups():
                service = sets.next(obj)
                if service is None:
                    continue
                self._make_room(service, parts)
                sent: Sendable | Reference = parts
                if not service.takes_references():
                    self._copies.note(SUBSCRIBER)
                elif not none:
                    reference = reference or self._payloads.reference(parts, service.queue)
                    none = reference is None
                    sent = reference or parts
                self._note_sent(service, service.send(sent))
        finally:
            self._refers = reference is not None
            if reference is not None:
                reference.release()

    def reserve(self, nbytes: int) -> HeldMemory | None:
        # Without subscribers, or if they get copies, memory of this process costs less.
        if nbytes < payloads.MIN_PAYLOAD or not self._refers:
            return None
        if not self._lock.acquire(timeout=_RESERVING):
            return None
        try:
            return self._payloads.reserve(nbytes)
        finally:
            self._lock.release()

    def _send(
        self, service: SetService, parts: Sendable, flags: int = 0, target: bytes = ALL_SUBSCRIBERS
    ) -> None:
        self._make_room(service, parts)
        self._note_sent(service, service.send(parts, flags, target))

    def _make_room(self, service: SetService, parts: Sendable) -> None:
        if self._blocks:
            for one in service.subscribers:
                if one.sent - one.counters.taken >= one.queue:
                    self._wait_for_all(service)
                    break
        if not service.fits(parts):
            self._resize(service, parts)

    def _note_sent(self, service: SetService, n_received: int | None) -> None:
        if n_received is None:
            # Subscribers keep all samples.
            self._rejected += len(service.subscribers)
        else:
            self._rejected += service.note_sent(n_received)

    def _wait_for_all(self, service: SetService) -> None:
        # A copy, as subscribers may leave meanwhile.
        for one in [*service.subscribers]:
            if one.active and one.full():
                self._waits_for = one, time.monotonic()
                try:
                    self._wait_for(one)
                finally:
                    self._waits_for = None

    def _resize(self, service: SetService, parts: Sendable) -> None:
        """Allocate larger samples when the queues are empty: otherwise the order would be lost."""
        deadline = time.monotonic() + self._settings.shm_timeout
        while any(one.waiting > 0 for one in service.subscribers) and time.monotonic() < deadline:
            time.sleep(_MAX_WAIT)
        service.resize(parts)

    def _wait_for(self, one: Subscriber) -> None:
        """Wait until a subscriber takes from its queue or disconnects, or until the time limit."""
        taken = one.counters.taken
        if one.stuck_at == taken:
            return
        one.stuck_at = None
        start = now = time.monotonic()
        step = _MIN_WAIT
        while one.active and one.full():
            if now - start > self._settings.shm_timeout:
                one.stuck_at = one.counters.taken
                _log.warning(
                    "channel %s: %s has taken no object for %g s; objects for it are rejected until"
                    " it takes one",
                    self.channel,
                    one.info.who,
                    self._settings.shm_timeout,
                )
                return
            if now - start > _STALLED and one.counters.sleeping and one.counters.taken == taken:
                one.sent = taken
                return
            time.sleep(step)
            step = min(1.5 * step, _MAX_WAIT)
            now = time.monotonic()
            if now >= self._table.refresh_due:
                self._refresh(now)

    # -- for the subscriber table ----------------------------------------------------------------

    def _create_service(self, info: SubscriberInfo) -> SetService:
        if self._node is None:
            raise TransportError(f"channel {self.channel} is not open")
        settings = self._settings
        queue = settings.shm_queue_size or default_queue(
            self._current.required_size if self._current else 0, self._blocks
        )
        overflow = settings.shm_overflow == "drop-oldest"
        return SetService(self._node, self._key, info, overflow, queue)

    def _greet(self, one: Subscriber) -> None:
        """Connect a subscriber to its service, and send it the current object."""
        first, flags = self._current or Parts(EMPTY, 0), self._current_flags
        if not one.service.fits(first):
            self._resize(one.service, first)
        one.service.add(one)
        self._send(one.service, first, flags, bytes.fromhex(one.info.key))

    # -- counts ----------------------------------------------------------------------------------

    @property
    def subscribers(self) -> int:
        """Number of subscribers that take part in the distribution."""
        return self._table.n_active

    def counts(self) -> PublisherCounts:
        rejected = self._rejected + self._table.rejected
        return PublisherCounts(self._published, self._errors, rejected, self._copies.counts.copy())

    @property
    def problem(self) -> str:
        found = [
            f"{one.info.who} takes no objects: {one.waiting} are in its queue, and {one.rejected}"
            " were rejected"
            for one in self._table.subscribers()
            if one.stuck_at is not None and one.stuck_at == one.counters.taken
        ]
        # Read once: the thread that publishes changes it.
        waits_for = self._waits_for
        if waits_for is not None and (seconds := time.monotonic() - waits_for[1]) > _LONG_WAIT:
            one = waits_for[0]
            found.append(
                f"publishing waits for {one.info.who}, which has taken none of the {one.waiting}"
                f" objects in its queue for {seconds:.0f} s"
            )
        messages = [f"channel {self.channel}: {text}" for text in found]
        return "; ".join(filter(None, (*messages, self._copies.problem)))
