"""Way out: shared memory of this host."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from pvapy_stream.errors import TransportError
from pvapy_stream.settings import ShmSettings
from pvapy_stream.transport.ports import Publisher, PublisherCounts
from pvapy_stream.transport.shm import nodes
from pvapy_stream.transport.shm.frames import (
    EVERYBODY,
    INITIAL,
    NOTHING,
    OPENING,
    Encoder,
    Parts,
    Ready,
)
from pvapy_stream.transport.shm.lanes import Lane, Subscription, Turns, default_queue
from pvapy_stream.transport.shm.place import (
    LEAVING,
    NEWEST,
    PUBLISHED,
    READY,
    SLEEPING,
    STATE,
    TAKEN,
    Place,
    Publishing,
    Subscribing,
)
from pvapy_stream.transport.shm.room import Room, new_key

_LOOK_PERIOD = 0.05  # s; how soon a subscriber that comes or goes is noticed
_SWEEP_PERIOD = 1.0  # s
_SHORTEST, _LONGEST = 50e-6, 3e-4
_SURELY = 0.1  # s; a subscriber that sleeps for so long has nothing left to take
_MASK = 2**64 - 1

_log = logging.getLogger(__name__)


class ShmPublisher(Publisher):
    """Publishes to subscribers on this host; each object is copied once a group of them.

    A subscriber first gets the current object, as with PVAccess. Then the overflow policy says what
    its full queue does to the objects that follow.

    Args:
        channel: name of the channel.
        settings: overflow policy, its time limit, and the queue size.
        id_field: field with the object id.
    """

    takes_lazy = True

    def __init__(self, channel: str, settings: ShmSettings, id_field: str = "uniqueId") -> None:
        self.channel = channel
        self._settings = settings
        self._blocks = settings.shm_overflow == "block"
        self._encoder = Encoder(id_field)
        self._key = new_key()
        self._lock = threading.Lock()
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._groups: dict[str, Turns] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._room = Room(channel)
        self._place: Place | None = None
        self._words: Any = None
        self._node: Any = None
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._current: Ready | None = None
        self._current_flags = INITIAL
        self._look_due = self._sweep_due = 0.0
        self._published = self._errors = self._rejected = 0
        self._problem = self._puzzle = ""
        # Subscribers of another version, which are told of once.
        self._refused: set[str] = set()

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        if self._place is not None:
            return
        self._node = nodes.node.take()
        try:
            self._room.sweep()
            self._place = self._room.enter(Publishing(self._key, os.getpid()))
        except BaseException:
            self._node = None
            nodes.node.release()
            raise
        self._words = self._place.words
        self._thread = threading.Thread(target=self._look_after, name="shm-publisher", daemon=True)
        self._thread.start()

    def open(self, prototype: Any) -> None:
        with self._lock:
            self._show(self._encoder.parts(prototype), INITIAL | OPENING)

    def _show(self, parts: Ready, flags: int) -> None:
        """Make an object the current one, without counting it as published."""
        if self._place is None:
            self.start()
        self._current, self._current_flags = parts, flags
        for lane in self._lanes.values():
            if lane.subscriptions:
                self._send(lane, parts, flags)

    def _look_after(self) -> None:
        while not self._ended.wait(_LOOK_PERIOD):
            if self._lock.acquire(timeout=_LOOK_PERIOD):
                try:
                    if not self._ended.is_set():
                        self._look_around(time.monotonic())
                finally:
                    self._lock.release()

    def finish(self, patience: float) -> None:
        """Wait until all is taken, and take the channel away."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with self._lock:
                if self._place is None:
                    return
                self._look_around(time.monotonic())
                if not any(s.active and s.waiting > 0 for s in self._subscriptions.values()):
                    break
            time.sleep(_LONGEST)
        self.stop()

    def stop(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(5)
            self._thread = None
        with self._lock:
            if self._place is None:
                return
            for one in self._subscriptions.values():
                one.let_go()
                one.close(remove=False)
            for lane in self._lanes.values():
                lane.close()
            self._subscriptions.clear()
            self._lanes.clear()
            self._groups.clear()
            self._words = None
            self._place.close(remove=True)
            self._place = None
            self._room.leave()
            self._node = None
            nodes.node.release()

    # -- the way of an object --------------------------------------------------------------------

    def publish(self, obj: Any) -> None:
        with self._lock:
            try:
                parts = self._encoder.parts(obj)
                if self._current is None:
                    self._show(parts, INITIAL)
                self._publish(parts)
            except TransportError:
                self._errors += 1
                raise
            except Exception as error:
                self._errors += 1
                raise TransportError(
                    f"cannot publish on channel {self.channel}: {error}"
                ) from error

    def _publish(self, parts: Ready) -> None:
        now = time.monotonic()
        if now >= self._look_due:
            self._look_around(now)
        self._current, self._current_flags = parts, INITIAL
        words = self._words
        words[NEWEST] = parts.id & _MASK
        self._published += 1
        words[PUBLISHED] = self._published
        if self._problem:
            raise TransportError(self._problem)
        for turns in self._groups.values():
            lane = turns.next()
            if lane is not None:
                self._send(lane, parts)

    def _send(self, lane: Lane, parts: Ready, flags: int = 0, target: bytes = EVERYBODY) -> None:
        if self._blocks:
            for one in lane.subscriptions:
                if one.sent - one.words[TAKEN] >= one.queue:
                    self._wait_for_all(lane)
                    break
        if not lane.fits(parts):
            self._resize(lane, parts)
        took = lane.send(parts, flags, target)
        if took is None:
            # All samples are with subscribers that keep them.
            self._rejected += len(lane.subscriptions)
        else:
            self._rejected += lane.note_sent(took)

    def _wait_for_all(self, lane: Lane) -> None:
        # Some may leave meanwhile.
        for one in [*lane.subscriptions]:
            if one.active and one.full():
                self._wait_for(one)

    def _resize(self, lane: Lane, parts: Ready) -> None:
        """Larger samples: those of the smaller ones must be out of the way, or order is lost."""
        deadline = time.monotonic() + self._settings.shm_timeout
        while any(one.waiting > 0 for one in lane.subscriptions) and time.monotonic() < deadline:
            time.sleep(_LONGEST)
        lane.resize(parts)

    def _wait_for(self, one: Subscription) -> None:
        """Wait until a subscriber's queue has room, it is gone, or the time is over."""
        taken = one.words[TAKEN]
        if one.stuck_at == taken:
            return
        one.stuck_at = None
        start = now = time.monotonic()
        step = _SHORTEST
        while one.active and one.full():
            if now - start > self._settings.shm_timeout:
                one.stuck_at = one.words[TAKEN]
                _log.warning(
                    "channel %s: subscriber %d takes nothing for %g s; objects for it are rejected"
                    " until it does",
                    self.channel,
                    one.told.pid,
                    self._settings.shm_timeout,
                )
                return
            if now - start > _SURELY and one.words[SLEEPING] and one.words[TAKEN] == taken:
                one.sent = taken
                return
            time.sleep(step)
            step = min(1.5 * step, _LONGEST)
            now = time.monotonic()
            if now >= self._look_due:
                self._look_around(now)

    # -- who is there ----------------------------------------------------------------------------

    def _look_around(self, now: float) -> None:
        """See who came, who is ready and who is gone. Raises nothing: objects go on."""
        self._look_due = now + _LOOK_PERIOD
        try:
            self._look(now)
        except Exception as error:
            if str(error) != self._puzzle:
                self._puzzle = str(error)
                _log.exception("channel %s: its subscribers cannot be looked after", self.channel)

    def _look(self, now: float) -> None:
        if now >= self._sweep_due:
            self._sweep_due = now + _SWEEP_PERIOD
            nodes.sweep(self._node)
        names = self._room.names(f"s-{self._key}")
        for name in names:
            if name not in self._subscriptions and name not in self._refused:
                self._join(name)
        there = set(names)
        self._refused &= there
        for name, one in [*self._subscriptions.items()]:
            state = one.words[STATE]
            if name not in there or not one.place.owned():
                self._drop(name, one)
            elif state == LEAVING and one.active:
                self._deactivate(one)
                one.let_go()
            elif state == READY and not one.active:
                self._activate(one)

    def _join(self, name: str) -> None:
        """Take note of a subscriber, and make its lane if it is the first there."""
        place = self._room.open(name)
        if place is None:
            return
        try:
            told = place.told(Subscribing)
        except TransportError as error:
            self._refused.add(name)
            place.close(remove=False)
            _log.error(
                "channel %s: subscriber %s is not understood: %s; both sides must run versions of"
                " pvapy_stream that fit together",
                self.channel,
                place.path,
                error,
            )
            return
        key = (told.group, told.client_set)
        try:
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = Lane(
                    self._node,
                    self._key,
                    told,
                    self._settings.shm_overflow == "drop-oldest",
                    self._settings.shm_queue_size
                    or default_queue(self._current.room if self._current else 0, self._blocks),
                )
        except TransportError as error:
            self._tell(str(error))
            place.close(remove=False)
            return
        self._problem = ""
        lane.members += 1
        self._subscriptions[name] = Subscription(place, told, lane)

    def _activate(self, one: Subscription) -> None:
        """Give a subscriber the current object, and then its share of those that follow."""
        lane = one.lane
        first, flags = self._current or Parts(NOTHING, 0), self._current_flags
        one.active = True
        try:
            if not lane.fits(first):
                self._resize(lane, first)
            lane.update()
            lane.subscriptions.append(one)
            self._send(lane, first, flags, bytes.fromhex(one.told.key))
        except TransportError as error:
            # Tried again when it is time to look around.
            self._deactivate(one)
            self._tell(str(error))
            return
        self._problem = ""
        self._groups.setdefault(one.told.group, Turns()).add(lane)
        _log.info("channel %s: subscriber %d is connected", self.channel, one.told.pid)

    def _deactivate(self, one: Subscription) -> None:
        one.active = False
        lane = one.lane
        if one in lane.subscriptions:
            lane.subscriptions.remove(one)
        if not lane.subscriptions and one.told.group in self._groups:
            self._groups[one.told.group].remove(lane)

    def _drop(self, name: str, one: Subscription) -> None:
        """Forget a subscriber; what it did not take before it died was rejected."""
        if one.active:
            lost = max(0, one.waiting)
            self._rejected += lost
            _log.warning(
                "channel %s: subscriber %d is gone, with %d objects it had not taken",
                self.channel,
                one.told.pid,
                lost,
            )
        self._deactivate(one)
        del self._subscriptions[name]
        one.close(remove=True)
        lane = one.lane
        lane.members -= 1
        if not lane.members:
            lane.close()
            self._lanes.pop(lane.key, None)
        nodes.sweep(self._node)

    def _tell(self, problem: str) -> None:
        """Remember what keeps a subscriber out: publishing fails with it, so that it is seen."""
        if problem != self._problem:
            self._problem = problem
            _log.error("channel %s: %s", self.channel, problem)

    # -- counts ----------------------------------------------------------------------------------

    @property
    def subscribers(self) -> int:
        """How many subscribers have their place in the distribution."""
        return sum(one.active for one in [*self._subscriptions.values()])

    def counts(self) -> PublisherCounts:
        return PublisherCounts(self._published, self._errors, self._rejected)

    def reset_counts(self) -> None:
        self._published = self._errors = self._rejected = 0
