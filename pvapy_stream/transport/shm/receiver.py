"""Receiver from shared memory of this host."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections.abc import Callable

import iceoryx2 as iox

from pvapy_stream.errors import ObjectError, TransportError
from pvapy_stream.pva.lazy import LazyObject
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.transport.policy import RUNS
from pvapy_stream.transport.ports import Deliver, DeliverAgain, ReceiverCounts, Return
from pvapy_stream.transport.shm import nodes, pool_file, services
from pvapy_stream.transport.shm.frames import (
    ALL_SUBSCRIBERS,
    EMPTY,
    HEADER_BYTES,
    INITIAL,
    REFERENCE,
    SampleHeader,
    read_header,
)
from pvapy_stream.transport.shm.peer_directory import PeerDirectory, has_subscribers, new_key
from pvapy_stream.transport.shm.peer_file import PUBLISHER, SubscriberInfo, SubscriberState
from pvapy_stream.transport.shm.pool_file import possible
from pvapy_stream.transport.shm.pool_holders import names_for_others
from pvapy_stream.transport.shm.pool_reader import PoolReader
from pvapy_stream.transport.shm.publisher_link import PublisherLink
from pvapy_stream.transport.shm.received_objects import NewestId, SharedObject, sample_memory_type
from pvapy_stream.transport.shm.references import place_at
from pvapy_stream.transport.shm.user_folder import warn_skipped
from pvapy_stream.transport.shm.wakeup import WakeupFifo

_REFRESH_PERIOD = 0.1  # s; how soon a publisher that comes or goes is noticed
# The same while a publisher creates a service for us, for so long at most; s.
_OPENING_PERIOD, _OPENING_TIME = 0.01, 5.0
_BATCH = 64  # samples taken before other publishers and requests are looked after
# Streams with less time between objects are polled; the others wait for a wake-up; s.
_POLLED_INTERVAL, _POLL_PERIOD = 400e-6, 200e-6
_MAX_KEPT = services.MAX_BORROWED - 4  # samples that objects may keep; beyond it, they are copied

OnSample = Callable[[PublisherLink, SampleHeader, iox.Sample], None]
_HeaderBytes = ctypes.c_uint8 * HEADER_BYTES

_log = logging.getLogger(__name__)


class ShmReceiver:
    """Receives from all publishers of a channel on this host; they may come and go.

    Objects are `LazyObject`s that read from shared memory. They may be kept; when many are kept,
    the following ones are copied.

    Args:
        channel: name of the channel.
        group, client_set: names of distributor group and set; "" for none.
        updates: consecutive objects for this set.
        queue: length of the queue, in objects; 0: chosen by the publisher.
        policy: of the group, see `transport.policy`.
    """

    def __init__(
        self, channel: str, group: str = "", client_set: str = "", updates: int = 1, queue: int = 0,
        policy: str = RUNS,
    ) -> None:  # fmt: skip
        self.channel = channel
        self._key = new_key()
        self._target = bytes.fromhex(self._key)
        # A receiver of a group without a set is a separate set.
        client_set = client_set or (self._key if group else "")
        self._distribution = group, client_set, updates, queue, policy
        self._deliver: Deliver | None = None
        self._deliver_again: DeliverAgain | None = None
        self._directory = PeerDirectory(channel)
        self._wakeup: WakeupFifo | None = None
        self._node: iox.Node | None = None
        self._links: dict[str, PublisherLink] = {}
        # Peer files of another version, and the last error with each publisher; reported once.
        self._refused: set[str] = set()
        self._problems: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._stop_deadline: float | None = None
        self._builder = ObjectBuilder()
        self._borrowed: list[None] = []
        self._pools = PoolReader()
        self._received = self._overruns = self._errors = 0
        self.source = self.first_source = ""
        self._refresh_due = self._waited_at = 0.0
        self._n_taken = 0
        self._undelivered: list[LazyObject] = []
        self._connected = False
        self.was_connected = False

    def start(self, deliver: Deliver, deliver_again: DeliverAgain | None = None) -> None:
        self._deliver, self._deliver_again = deliver, deliver_again
        self._node = nodes.node.acquire()
        try:
            self._directory.sweep()
            pool_file.sweep(has_subscribers)
            self._wakeup = self._directory.create_wakeup(self._key)
        except BaseException:
            self._node = None
            nodes.node.release()
            raise
        self._thread = threading.Thread(target=self._run, name="shm-receiver", daemon=True)
        self._thread.start()

    # -- the receiving thread --------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            n_taken = sum(map(self._take, [*self._links.values()]))
            now = time.monotonic()
            if now >= self._refresh_due:
                self._refresh_due = now + _REFRESH_PERIOD
                self._attempt("", lambda now=now: self._refresh(now))
            if self._stop_deadline is not None and (
                now >= self._stop_deadline or self._all_taken()
            ):
                return
            if not n_taken:
                self._wait()

    def _wait(self) -> None:
        """Wait for a wake-up by a publisher, or until the next refresh is due.

        In a fast stream, poll instead: a wake-up for each object costs both sides more than
        everything else that is done with a small object.
        """
        now, before = time.perf_counter(), self._waited_at
        taken, self._n_taken = self._n_taken, 0
        self._waited_at = now
        if taken and now - before < taken * _POLLED_INTERVAL:
            time.sleep(_POLL_PERIOD)
            return
        links = [*self._links.values()]
        for link in links:
            link.counters.sleeping = 1
        # A sample may have come before its publisher could see that we sleep.
        if all(link.empty for link in links) and self._wakeup is not None:
            self._wakeup.wait(max(0.001, self._refresh_due - time.monotonic()))
        for link in links:
            link.counters.sleeping = 0

    def _take(self, link: PublisherLink, deliver: OnSample | None = None) -> int:
        """Take samples from a queue, at most a batch; the number taken."""
        if link.port is None:
            return 0
        receive = link.port.receive
        leaving = deliver is not None
        deliver = deliver or self._on_sample
        for number in range(_BATCH):
            deadline = self._stop_deadline
            if deadline is not None and not leaving and time.monotonic() >= deadline:
                return 0
            try:
                sample = receive()
            except iox.ReceiveError as error:
                self._errors += 1
                _log.error("channel %s: a sample cannot be received: %s", self.channel, error)
                return 0
            if sample is None:
                if not link.joined:
                    link.counters.emptied += 1
                self._n_taken += number
                return number
            try:
                deliver(link, self._header_of(link, sample.payload_ptr), sample)
            except Exception as error:
                self._note("object", error, "an object could not be delivered")
        self._n_taken += _BATCH
        return _BATCH

    def _header_of(self, link: PublisherLink, address: int) -> SampleHeader:
        try:
            return read_header(_HeaderBytes.from_address(address))
        except ObjectError:
            # It has left our queue all the same.
            link.taken += 1
            link.counters.taken = link.taken
            raise

    def _on_sample(self, link: PublisherLink, header: SampleHeader, sample: iox.Sample) -> None:
        obj = self._object_of(link, header, sample)
        if obj is None or self._deliver is None:
            return
        self._received += 1
        if link.first or header.flags & INITIAL:
            self._deliver_first(link, bool(header.flags & INITIAL), obj)
        else:
            self._deliver(obj)

    def _deliver_first(self, link: PublisherLink, shown: bool, obj: SharedObject) -> None:
        """Deliver what a publisher shows, or its first object."""
        anew = link.first and link.anew
        returned = self.was_connected and (shown or anew)
        link.first, self.was_connected = False, True
        self.source = link.source
        self.first_source = self.first_source or link.source
        if returned and self._deliver_again is not None:
            self._deliver_again(obj, Return(shown, anew))
        elif self._deliver is not None:
            self._deliver(obj)

    def _object_of(
        self, link: PublisherLink, header: SampleHeader, sample: iox.Sample
    ) -> SharedObject | None:
        """The object in a sample; None if it is not for us."""
        initial = header.flags & INITIAL
        for_us = header.target in (self._target, ALL_SUBSCRIBERS)
        if not link.joined:
            if not initial or header.target != self._target:
                # Sent to other subscribers of the set, before we joined.
                return None
            link.joined = self._connected = True
            link.sequence = header.sequence - 1
        self._overruns += header.sequence - link.sequence - 1
        link.sequence = header.sequence
        try:
            if header.kind == EMPTY or (initial and not for_us):
                return None
            if header.flags & REFERENCE:
                return self._referenced(link, header, sample)
            return self._borrow(header, sample)
        finally:
            # Only now: the publisher holds the payload until then.
            link.taken += 1
            link.counters.secured = header.sequence
            link.counters.taken = link.taken

    def _borrow(self, header: SampleHeader, sample: iox.Sample) -> SharedObject:
        """The object in a sample, which is kept with it."""
        memory = sample_memory_type(header.chunk).from_address(sample.payload_ptr)
        memory.sample = sample
        memory.borrowed = self._borrowed
        self._borrowed.append(None)
        obj = SharedObject(header, memory, self._builder)
        if len(self._borrowed) > _MAX_KEPT:
            obj.detach()
        return obj

    def _referenced(
        self, link: PublisherLink, header: SampleHeader, sample: iox.Sample
    ) -> SharedObject | None:
        """The object of which a sample holds a reference; None if it is lost."""
        address = sample.payload_ptr
        attributes = ctypes.string_at(address + header.attributes_at, header.attributes)
        memory = self._pools.payload(place_at(header, address), header)
        if memory is not None:
            return SharedObject(header, memory, self._builder, attributes)
        self._overruns += 1
        link.counters.copies = 1
        self._note("payload", TransportError(self._pools.problem), "an object is lost")
        return None

    # -- publishers ------------------------------------------------------------------------------

    def _refresh(self, now: float) -> None:
        node = self._node
        if node is None:
            return
        names = self._directory.names(PUBLISHER.prefix)
        self._refused.intersection_update(names)
        for name in names:
            if (
                self._stop_deadline is None
                and name not in self._links
                and name not in self._refused
            ):
                self._attempt(name, lambda name=name: self._connect(name))
        opening = False
        for name, link in [*self._links.items()]:
            if link.port is None:
                self._attempt(name, lambda link=link: link.open(node))
                opening = opening or (link.port is None and now - link.created_at < _OPENING_TIME)
            if name not in names or not link.publisher.has_owner():
                self._disconnect(name, link)
        self._pools.refresh()
        self._connected = any(link.joined for link in self._links.values())
        self._refresh_due = now + (_OPENING_PERIOD if opening else _REFRESH_PERIOD)

    def _attempt(self, name: str, step: Callable[[], None]) -> None:
        """Run a step for one publisher; an error does not affect the others."""
        try:
            step()
        except Exception as error:
            self._note(name, error, "a publisher cannot be connected")
        else:
            self._problems.pop(name, None)

    def _note(self, name: str, error: Exception, what: str) -> None:
        """Count an error, and log it unless it is the same as the last one."""
        self._errors += 1
        if self._problems.get(name) != str(error):
            self._problems[name] = str(error)
            _log.error("channel %s: %s: %s", self.channel, what, error, exc_info=error)

    def _connect(self, name: str) -> None:
        file = self._directory.open(PUBLISHER, name)
        if file is None:
            return
        try:
            publisher = file.read_info()
        except TransportError as error:
            self._refused.add(name)
            warn_skipped(file.path, str(error))
            file.close(remove=False)
            return
        group, client_set, updates, queue, policy = self._distribution
        info = SubscriberInfo(
            self._key, publisher.key, os.getpid(), group, client_set, updates, queue, possible(),
            *names_for_others(self.channel), policy,
        )  # fmt: skip
        try:
            link = PublisherLink(self._directory, file, info)
        except TransportError:
            file.close(remove=False)
            raise
        link.anew = publisher.source and not any(
            other.publisher.has_owner() for other in self._links.values()
        )
        self._links[name] = link

    def _disconnect(self, name: str, link: PublisherLink) -> None:
        """Take what a dead publisher sent, and remove it."""
        while self._take(link):
            pass
        del self._links[name]
        self._problems.pop(name, None)
        link.close()
        if self._node is not None:
            nodes.sweep(self._node)
        _log.info("channel %s: a publisher has disconnected", self.channel)

    def _all_taken(self) -> bool:
        """Whether all publishers have released us, and all queues are empty."""
        return all(link.counters.released and link.empty for link in self._links.values())

    # -- called by the owner ---------------------------------------------------------------------

    def stop(self, patience: float = 0.0) -> list[LazyObject]:
        thread, self._thread = self._thread, None
        if thread is None or self._wakeup is None:
            return []
        for link in [*self._links.values()]:
            link.counters.state = SubscriberState.LEAVING
        self._stop_deadline = time.monotonic() + patience
        self._wakeup.notify()
        thread.join(patience + 5)
        if thread.is_alive():
            _log.error("channel %s: the processing of an object has not ended", self.channel)
            return []
        self._deliver = None
        self._connected = False
        for link in self._links.values():
            while self._take(link, self._keep_undelivered):
                pass
            link.close()
        self._links.clear()
        # After the links: until then, a pool without owner may be read.
        self._pools.close()
        self._wakeup.close()
        self._directory.remove_if_empty()
        self._node = None
        nodes.node.release()
        undelivered, self._undelivered = self._undelivered, []
        return undelivered

    def _keep_undelivered(
        self, link: PublisherLink, header: SampleHeader, sample: iox.Sample
    ) -> None:
        obj = self._object_of(link, header, sample)
        if obj is not None and not header.flags & INITIAL:
            obj.detach()
            self._undelivered.append(obj)

    def counts(self) -> ReceiverCounts:
        return ReceiverCounts(self._received, self._overruns, self._errors)

    @property
    def connected(self) -> bool:
        return self._connected

    def keep_up(self) -> None:
        pass

    def newest(self, timeout: float) -> LazyObject | None:
        newest = None
        for link in [*self._links.values()]:
            counters = link.publisher.counters
            if counters.published:
                value = counters.newest_id
                newest = value if newest is None else max(newest, value)
        return None if newest is None else NewestId(newest)
