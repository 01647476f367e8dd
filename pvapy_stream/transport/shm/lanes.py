"""A publisher's side of lanes: who takes from them, and whose turn it is."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.shm.frames import EVERYBODY, Ready
from pvapy_stream.transport.shm.memory import (
    Samples,
    free_memory,
    lane_name,
    make_lane,
)
from pvapy_stream.transport.shm.place import ANSWER, SLEEPING, TAKEN, Bell, Place, Subscribing

_PAGE = 4096
_SMALL = 2 * _PAGE
# What a queue holds when nobody says: in bytes, and in objects. One whose source waits only
# smooths, and is the quicker the more of it stays in caches; one that may lose has to cover pauses.
_SMOOTHING, _COVERING = 4 * 2**20, 128 * 2**20
_QUEUE_LEAST, _QUEUE_MOST = 4, 256
_UNKNOWN = 2**20  # bytes of an object, as long as there is none
_SHARE = 0.5  # of the free memory, for such a queue


class Subscription:
    """One subscriber as its publisher sees it.

    Attributes:
        words: numbers that both see, see `place`.
        queue: how many samples may wait for it.
        sent: samples it got from us.
        active: whether it has its place in the distribution.
        stuck_at: how many it had taken when the wait for it was given up; else None.
        rejected: samples that were not for it because its queue was full.
    """

    __slots__ = (
        "active", "lane", "name", "place", "queue", "rejected", "rope", "sent", "stuck_at", "told",
        "words",
    )  # fmt: skip

    def __init__(self, place: Place, told: Subscribing, lane: Lane) -> None:
        self.name = told.name
        self.place = place
        self.told = told
        self.words: Any = place.words
        self.lane = lane
        self.rope = Bell.rope(place.path.with_name(f"w-{told.key}"))
        self.queue = lane.queue_for(told.queue)
        self.sent = self.rejected = 0
        self.active = False
        self.stuck_at: int | None = None

    @property
    def waiting(self) -> int:
        """Samples it has not taken yet."""
        return self.sent - self.words[TAKEN]

    def full(self) -> bool:
        """Whether its queue takes no more."""
        return self.sent - self.words[TAKEN] >= self.queue

    def wake(self) -> None:
        """Ring its bell, once for all that comes before it is awake."""
        self.words[SLEEPING] = 0
        with contextlib.suppress(OSError):
            os.write(self.rope, b"!")

    def let_go(self) -> None:
        """Answer that nothing more will come."""
        self.active = False
        self.words[ANSWER] = 1
        self.wake()

    def close(self, remove: bool) -> None:
        if self.rope >= 0:
            os.close(self.rope)
            self.rope = -1
        self.place.close(remove)


class Lane:
    """What all subscribers of a set, or all outside of groups, are sent: each of them all of it.

    Attributes:
        subscriptions: those of subscribers that have their place in the distribution.
        members: how many subscribers there are, those that are still joining too.
        updates: objects in a row before another lane has its turn.

    Raises:
        TransportError: the lane cannot be made.
    """

    def __init__(
        self, node: Any, publisher: str, told: Subscribing, overflow: bool, queue: int
    ) -> None:
        self.key = (told.group, told.client_set)
        self.updates = max(1, told.updates)
        self.subscriptions: list[Subscription] = []
        self.members = 0
        self.overflow = overflow
        self.most = told.queue or queue
        name = lane_name(publisher, *self.key)
        self._service = make_lane(node, name, self.most, overflow)
        self._samples: Samples | None = None
        self._sequence = 0

    def queue_for(self, asked: int) -> int:
        """How many samples may wait for a subscriber that asked for so many."""
        return min(asked or self.most, self.most)

    def fits(self, parts: Ready) -> bool:
        """Whether an object has room in the samples there are."""
        return self._samples is not None and parts.room <= self._samples.size

    def resize(self, parts: Ready) -> None:
        """Get samples for larger objects; nothing may wait to be taken.

        Raises:
            TransportError: there is too little shared memory.
        """
        size = -(-(parts.room + _PAGE) // _PAGE) * _PAGE
        if self._samples is not None:
            if self._samples.size > _SMALL:
                # Objects that have grown once may grow again.
                size += size // 4
            self._samples.close()
            self._samples = None
        self._samples = Samples(self._service, size, self.most + 2)

    def send(self, parts: Ready, flags: int = 0, target: bytes = EVERYBODY) -> int | None:
        """Send to all; how many took it, or None when all samples are in use.

        Raises:
            TransportError: shared memory is full.
        """
        samples = self._samples
        if samples is None:
            raise TransportError("the lane has no samples")
        loan = samples.loan()
        if loan is None:
            return None
        sample, memory, address = loan
        self._sequence += 1
        parts.write(memory, address, samples.size, self._sequence, flags, target)
        return sample.assume_init().send()

    def update(self) -> None:
        """Take note of subscribers that came or went."""
        if self._samples is not None:
            self._samples.update()

    def note_sent(self, took: int) -> int:
        """Account for a sample that so many took; how many deliveries were rejected.

        Who sleeps is woken.
        """
        subscriptions = self.subscriptions
        everybody = took >= len(subscriptions)
        rejected = 0
        for one in subscriptions:
            words = one.words
            if self.overflow:
                # It took the place of the oldest, which was not taken.
                if one.sent - words[TAKEN] >= one.queue:
                    rejected += 1
                    one.rejected += 1
                else:
                    one.sent += 1
            elif everybody or one.sent - words[TAKEN] < one.queue:
                one.sent += 1
            else:
                rejected += 1
                one.rejected += 1
            if words[SLEEPING]:
                one.wake()
        return rejected

    def close(self) -> None:
        if self._samples is not None:
            self._samples.close()
            self._samples = None


class Turns:
    """The lanes of one distributor group, in the order in which they came."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self._at = 0
        self._left: int | None = None

    def next(self) -> Lane | None:
        """The lane whose turn it is; None when there is none."""
        lanes = self.lanes
        if len(lanes) < 2:
            return lanes[0] if lanes else None
        if self._left is None:
            self._left = lanes[self._at].updates
        elif self._left <= 0:
            self._at = (self._at + 1) % len(lanes)
            self._left = lanes[self._at].updates
        self._left -= 1
        return lanes[self._at]

    def add(self, lane: Lane) -> None:
        """Let a lane take part, after all others."""
        if lane not in self.lanes:
            self.lanes.append(lane)

    def remove(self, lane: Lane) -> None:
        """Let a lane take part no longer; the others' turns go on."""
        if lane not in self.lanes:
            return
        at = self.lanes.index(lane)
        del self.lanes[at]
        if at < self._at:
            self._at -= 1
        elif at == self._at:
            self._left = None
            self._at = self._at % len(self.lanes) if self.lanes else 0


def default_queue(example: int, blocks: bool) -> int:
    """Samples in a queue when nobody says how many.

    Args:
        example: bytes of an object; 0 when there is none yet.
        blocks: whether its source waits when it is full.
    """
    room = min(_SMOOTHING if blocks else _COVERING, int(free_memory() * _SHARE))
    return max(_QUEUE_LEAST, min(_QUEUE_MOST, room // (example or _UNKNOWN)))
