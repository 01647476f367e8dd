"""Way in: shared memory of this host."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from pvapy_stream.errors import ObjectError, TransportError
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.transport.ports import Deliver, ReceiverCounts
from pvapy_stream.transport.shm import memory, nodes
from pvapy_stream.transport.shm.folder import skip
from pvapy_stream.transport.shm.frames import (
    EVERYBODY,
    HEADER_BYTES,
    INITIAL,
    NOTHING,
    Header,
    read_header,
)
from pvapy_stream.transport.shm.objects import Newest, SharedObject, memory_type
from pvapy_stream.transport.shm.place import (
    ANSWER,
    LEAVING,
    NEWEST,
    PUBLISHED,
    READY,
    SLEEPING,
    STATE,
    TAKEN,
    Bell,
    Place,
    Publishing,
    Subscribing,
)
from pvapy_stream.transport.shm.room import Room, new_key

_SOON = 0.01  # s; how often one looks for a lane that is being made
_BEING_MADE = 5.0  # s; a publisher that takes longer is looked at as often as all others
_LOOK_PERIOD = 0.1  # s; how often for publishers that come and go
_BATCH = 64
_FAST = 400e-6  # s between objects; slower streams are waited for without a sleep that delays them
_NAP = 200e-6  # s
# Of the samples one may keep; beyond that, objects are copied.
_KEEP = memory.BORROWED - 4

OnSample = Callable[["_Link", Header, Any], None]

_Head = ctypes.c_uint8 * HEADER_BYTES

_log = logging.getLogger(__name__)


class _Link:
    """A publisher that is followed."""

    def __init__(self, room: Room, publisher: Place, told: Subscribing) -> None:
        self.publisher = publisher
        self.told = told
        self.place = room.enter(told)
        self.words: Any = self.place.words
        self.port: Any = None
        self.begun = False
        self.since = time.monotonic()
        self.taken = 0
        self.sequence = 0

    def open(self, node: Any) -> None:
        """Connect to the lane, if there is one by now."""
        told = self.told
        name = memory.lane_name(told.publisher, told.group, told.client_set)
        service = memory.open_lane(node, name)
        if service is None:
            return
        builder = service.subscriber_builder()
        most = service.static_config.subscriber_max_buffer_size
        self.port = builder.buffer_size(min(told.queue or most, most)).create()
        self.words[STATE] = READY

    @property
    def idle(self) -> bool:
        """Whether nothing waits here."""
        return self.port is None or not self.port.has_samples()

    def close(self) -> None:
        if self.port is not None:
            self.port.delete()
            self.port = None
        self.place.close(remove=True)
        self.publisher.close(remove=False)


class ShmReceiver:
    """Takes what publishers of this host send on a channel; they may come and go.

    Objects are `LazyObject`s that look into shared memory, read only. They may be kept; more than
    a few are copied.

    Args:
        channel: name of the channel.
        group, client_set: place in the distribution; "" for none.
        updates: objects in a row for this set.
        queue: objects that may wait for us; 0: the publisher's choice.
    """

    def __init__(
        self, channel: str, group: str = "", client_set: str = "", updates: int = 1, queue: int = 0
    ) -> None:
        self.channel = channel
        self._key = new_key()
        self._me = bytes.fromhex(self._key)
        # One that is in no set is a set of its own.
        self._share = (group, client_set or (self._key if group else ""), updates, queue)
        self._deliver: Deliver | None = None
        self._again: Deliver | None = None
        self._room = Room(channel)
        self._bell: Bell | None = None
        self._node: Any = None
        self._links: dict[str, _Link] = {}
        # Files of publishers that are not understood, and what went wrong last with whom.
        self._refused: set[str] = set()
        self._problems: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._give_up_at: float | None = None
        self._builder = ObjectBuilder()
        self._borrowed: list[None] = []
        self._received = self._overruns = self._errors = 0
        self._look_due = self._rested_at = 0.0
        self._taken = 0
        self._left: list[Any] = []
        self._connected = False
        self.was_connected = False

    def start(self, deliver: Deliver, deliver_again: Deliver | None = None) -> None:
        self._deliver, self._again = deliver, deliver_again
        self._node = nodes.node.take()
        try:
            self._room.sweep()
            self._bell = self._room.bell(self._key)
        except BaseException:
            self._node = None
            nodes.node.release()
            raise
        self._thread = threading.Thread(target=self._run, name="shm-receiver", daemon=True)
        self._thread.start()

    # -- the receiving thread --------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            busy = False
            for link in [*self._links.values()]:
                if link.port is not None and self._take(link):
                    busy = True
            now = time.monotonic()
            if now >= self._look_due:
                self._look_due = now + _LOOK_PERIOD
                self._attempt("", lambda now=now: self._look_around(now))
            if self._give_up_at is not None and (now >= self._give_up_at or self._all_taken()):
                return
            if not busy:
                self._rest()

    def _rest(self) -> None:
        """Wait until a publisher rings, or it is time to look around.

        In a fast stream a short sleep takes its place: to be rung for each object costs both sides
        more than all else that is done with a small one.
        """
        now, before = time.perf_counter(), self._rested_at
        taken, self._taken = self._taken, 0
        self._rested_at = now
        if taken and now - before < taken * _FAST:
            time.sleep(_NAP)
            return
        links = [*self._links.values()]
        for link in links:
            link.words[SLEEPING] = 1
        # What came before a publisher could see that we sleep.
        if all(link.idle for link in links) and self._bell is not None:
            self._bell.wait(max(0.001, self._look_due - time.monotonic()))
        for link in links:
            link.words[SLEEPING] = 0

    def _take(self, link: _Link, deliver: OnSample | None = None) -> int:
        """Take some samples; how many there were."""
        receive = link.port.receive
        leaving = deliver is not None
        deliver = deliver or self._on_sample
        for number in range(_BATCH):
            give_up_at = self._give_up_at
            if give_up_at is not None and not leaving and time.monotonic() >= give_up_at:
                return 0
            try:
                sample = receive()
            except memory.ReceiveError as error:
                self._errors += 1
                _log.error("channel %s: a sample cannot be received: %s", self.channel, error)
                return 0
            if sample is None:
                self._taken += number
                return number
            try:
                address = sample.payload_ptr
                header = self._header_of(link, address)
                where: Any = memory_type(header.chunk).from_address(address)
                where.sample = sample
                where.borrowed = self._borrowed
                self._borrowed.append(None)
                deliver(link, header, where)
            except Exception as error:
                self._note("object", error, "an object could not be delivered")
        self._taken += _BATCH
        return _BATCH

    def _header_of(self, link: _Link, address: int) -> Header:
        try:
            return read_header(_Head.from_address(address))
        except ObjectError:
            # It is taken all the same: its publisher counts what waits for us.
            link.taken += 1
            link.words[TAKEN] = link.taken
            raise

    def _on_sample(self, link: _Link, header: Header, where: Any) -> None:
        obj = self._object_of(link, header, where)
        if obj is None or self._deliver is None:
            return
        self._received += 1
        if header.flags & INITIAL and self.was_connected and self._again is not None:
            self._again(obj)
        else:
            self.was_connected = True
            self._deliver(obj)

    def _object_of(self, link: _Link, header: Header, where: Any) -> SharedObject | None:
        """What a sample is to us; None for nothing."""
        initial = header.flags & INITIAL
        mine = header.target in (self._me, EVERYBODY)
        if not link.begun:
            if not initial or header.target != self._me:
                # Sent before we had our place: others were meant.
                return None
            link.begun = self._connected = True
            link.sequence = header.sequence - 1
        link.taken += 1
        link.words[TAKEN] = link.taken
        self._overruns += header.sequence - link.sequence - 1
        link.sequence = header.sequence
        if header.kind == NOTHING or (initial and not mine):
            return None
        obj = SharedObject(header, where, self._builder)
        if len(self._borrowed) > _KEEP:
            obj.detach()
        return obj

    # -- who is there ----------------------------------------------------------------------------

    def _look_around(self, now: float) -> None:
        names = self._room.names("p-")
        self._refused.intersection_update(names)
        for name in names:
            if self._give_up_at is None and name not in self._links and name not in self._refused:
                self._attempt(name, lambda name=name: self._follow(name))
        opening = False
        for name, link in [*self._links.items()]:
            if link.port is None:
                self._attempt(name, lambda link=link: link.open(self._node))
                opening = opening or (link.port is None and now - link.since < _BEING_MADE)
            if name not in names or not link.publisher.owned():
                self._lose(name, link)
        self._connected = any(link.begun for link in self._links.values())
        self._look_due = now + (_SOON if opening else _LOOK_PERIOD)

    def _attempt(self, name: str, step: Callable[[], None]) -> None:
        """Do something about a publisher; what goes wrong does not stop the others."""
        try:
            step()
        except Exception as error:
            self._note(name, error, "its publishers cannot be followed")
        else:
            self._problems.pop(name, None)

    def _note(self, name: str, error: Exception, what: str) -> None:
        """Count what went wrong, and say it unless it is the same as before."""
        self._errors += 1
        if self._problems.get(name) != str(error):
            self._problems[name] = str(error)
            _log.error("channel %s: %s: %s", self.channel, what, error, exc_info=error)

    def _follow(self, name: str) -> None:
        place = self._room.open(name)
        if place is None:
            return
        try:
            told = place.told(Publishing)
        except TransportError as error:
            self._refused.add(name)
            skip(place.path, str(error))
            place.close(remove=False)
            return
        group, client_set, updates, queue = self._share
        share = Subscribing(self._key, told.key, os.getpid(), group, client_set, updates, queue)
        try:
            self._links[name] = _Link(self._room, place, share)
        except TransportError:
            place.close(remove=False)
            raise

    def _lose(self, name: str, link: _Link) -> None:
        """Take what a publisher left behind, and forget it."""
        if link.port is not None:
            while self._take(link):
                pass
        del self._links[name]
        self._problems.pop(name, None)
        link.close()
        nodes.sweep(self._node)
        _log.info("channel %s: a publisher is gone", self.channel)

    def _all_taken(self) -> bool:
        """Whether all publishers know that we leave, and nothing waits."""
        return all(link.words[ANSWER] and link.idle for link in self._links.values())

    # -- from outside ----------------------------------------------------------------------------

    def stop(self, patience: float = 0.0) -> list[Any]:
        thread, self._thread = self._thread, None
        if thread is None or self._bell is None:
            return []
        for link in [*self._links.values()]:
            # One that is being closed by the receiving thread has no words any more.
            with contextlib.suppress(ValueError):
                link.words[STATE] = LEAVING
        self._give_up_at = time.monotonic() + patience
        self._bell.ring()
        thread.join(patience + 5)
        if thread.is_alive():
            _log.error("channel %s: the processing of an object has no end", self.channel)
            return []
        self._deliver = None
        self._connected = False
        for link in self._links.values():
            if link.port is not None:
                while self._take(link, self._leave):
                    pass
            link.close()
        self._links.clear()
        self._bell.close()
        self._room.leave()
        self._node = None
        nodes.node.release()
        left, self._left = self._left, []
        return left

    def _leave(self, link: _Link, header: Header, where: Any) -> None:
        obj = self._object_of(link, header, where)
        if obj is not None and not header.flags & INITIAL:
            obj.detach()
            self._left.append(obj)

    def counts(self) -> ReceiverCounts:
        return ReceiverCounts(self._received, self._overruns, self._errors)

    def reset_counts(self) -> None:
        self._received = self._overruns = self._errors = 0

    @property
    def connected(self) -> bool:
        return self._connected

    def keep_up(self) -> None:
        pass

    def newest(self, timeout: float) -> Any | None:
        newest = None
        for link in [*self._links.values()]:
            words = link.publisher.words
            with contextlib.suppress(ValueError):
                if words[PUBLISHED]:
                    value = ctypes.c_int64(words[NEWEST]).value
                    newest = value if newest is None else max(newest, value)
        return None if newest is None else Newest(newest)
