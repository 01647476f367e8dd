"""The publisher's side of a set's service, and its subscribers."""

from __future__ import annotations

import time

import iceoryx2 as iox

from pvapy_stream.errors import TransportError
from pvapy_stream.transport.shm.frames import ALL_SUBSCRIBERS, Sendable
from pvapy_stream.transport.shm.peer_file import SubscriberFile, SubscriberInfo
from pvapy_stream.transport.shm.references import InFlight, Reference
from pvapy_stream.transport.shm.services import (
    SamplePool,
    create_service,
    free_memory,
    service_name,
)
from pvapy_stream.transport.shm.wakeup import WakeupWriter

_PAGE = 4096
_SMALL = 2 * _PAGE
# Default size of a queue, in bytes. If the publisher waits for a full queue, a small one is enough,
# and faster because it stays in the CPU caches; if it drops objects, a queue must bridge pauses.
_BLOCKING_QUEUE, _DROPPING_QUEUE = 4 * 2**20, 128 * 2**20
_MIN_QUEUE, _MAX_QUEUE = 4, 256  # samples
_ASSUMED_OBJECT = 2**20  # bytes; as long as no object is known
_MAX_SHARE = 0.5  # of the free memory, for a queue of default size
# Times in s: for which a subscriber may take what was sent before it is active, between two looks,
# and until the next attempt, which is doubled each time.
_EMPTYING, _LOOK = 0.005, 50e-6
_PAUSE, _MAX_PAUSE = 0.05, 1.0
FULL, STUCK = 2**61, 2**62  # samples: more than any queue holds
_PATIENCE = 2.0  # s; with one that has emptied its queue, but is too busy to do so at once


class Subscriber:
    """A subscriber as its publisher sees it.

    Attributes:
        info: its description.
        file: its peer file.
        counters: counters of that file.
        service: the service it receives from.
        queue: length of its queue, in samples.
        sent: samples put into its queue.
        active: whether it takes part in the distribution.
        stuck_at: its counter `taken` when waiting for it timed out; else None.
        rejected: samples not delivered because its queue was full.
        activate_due: time of the next attempt to make it active, by `time.monotonic`.
        in_flight: references sent to it that it has not secured.
    """

    __slots__ = (
        "_asked_at", "_pause", "_wakeup", "activate_due", "active", "counters", "file", "in_flight",
        "info", "queue", "rejected", "sent", "service", "stuck_at",
    )  # fmt: skip

    def __init__(
        self,
        file: SubscriberFile,
        info: SubscriberInfo,
        service: SetService,
        wakeup: WakeupWriter,
    ) -> None:
        self.file = file
        self.info = info
        self.counters = file.counters
        self.service = service
        self.queue = service.queue_for(info.queue)
        self.sent = self.rejected = 0
        self.active = False
        self.stuck_at: int | None = None
        self.in_flight = InFlight()
        self._wakeup = wakeup
        self.activate_due = 0.0
        self._pause = _PAUSE
        self._asked_at = 0.0

    @property
    def waiting(self) -> int:
        """Samples it has not taken yet."""
        return self.sent - self.counters.taken

    def full(self) -> bool:
        """Whether its queue is full."""
        return self.sent - self.counters.taken >= self.queue

    def wake(self) -> None:
        """Wake it up; samples that follow before it runs need no other wake-up."""
        self.counters.sleeping = 0
        self._wakeup.notify()

    def has_emptied(self, now: float) -> bool:
        """Whether its queue is empty before it becomes active; nothing may be sent meanwhile.

        It connects to the service before its publisher knows that, and gets what is sent to the
        others of its set. If that filled the queue, the first object for it would be lost, and it
        would ignore all that follow.
        """
        if not self.service.sequence:
            return True
        counters = self.counters
        self._asked_at = self._asked_at or now
        # Twice: the first time, it may have looked into its queue before the last sample came.
        emptied, n_slept = counters.emptied + 2, 0
        end = time.monotonic() + _EMPTYING
        self.wake()
        while counters.emptied < emptied:
            if counters.sleeping:
                # It has looked, too. Other versions count nothing.
                n_slept += 1
                if n_slept == 2:
                    break
                self.wake()
            if time.monotonic() > end:
                return self._is_late(now)
            time.sleep(_LOOK)
        return True

    def _is_late(self, now: float) -> bool:
        """Whether it becomes active though it is not known that its queue is empty."""
        self.activate_due = now + self._pause
        self._pause = min(2 * self._pause, _MAX_PAUSE)
        if now < self._asked_at + _PATIENCE:
            return False
        # It is busy with another publisher, and has emptied it meanwhile; or it is suspended.
        return self.counters.emptied >= 2 or not self.info.program

    def release(self) -> None:
        """End its part in the distribution, and let it know that nothing more will be sent."""
        self.active = False
        self.counters.released = 1
        self.wake()

    def close(self, remove: bool) -> None:
        """Close its file, and remove it if asked."""
        self._wakeup.close()
        self.file.close(remove)
        self.counters = self.file.counters


class SetService:
    """The service of a set, or of all subscribers outside of groups: each gets every sample.

    Attributes:
        key: names of group and set.
        subscribers: those that take part in the distribution.
        members: number of subscribers, including those that are still connecting.
        updates: consecutive objects for this set before the next set has its turn.

    Raises:
        TransportError: the service cannot be created.
    """

    def __init__(
        self, node: iox.Node, publisher: str, info: SubscriberInfo, overflow: bool, queue: int
    ) -> None:
        self.key = (info.group, info.client_set)
        self.updates = max(1, info.updates)
        self.subscribers: list[Subscriber] = []
        self.members = 0
        self._overflow = overflow
        self._queue = info.queue or queue
        name = service_name(publisher, *self.key)
        self._service = create_service(node, name, self._queue, overflow)
        self._queue = self._service.static_config.subscriber_max_buffer_size
        self._pool: SamplePool | None = None
        self._sequence = 0

    @property
    def sequence(self) -> int:
        """Number of the last sample."""
        return self._sequence

    @property
    def load(self) -> int:
        """Samples in the fullest queue; `FULL` without room, `STUCK` if none is waited for."""
        most = 0
        for one in self.subscribers:
            taken = one.counters.taken
            waiting = one.sent - taken
            if waiting >= one.queue:
                waiting = STUCK if one.stuck_at == taken else FULL
            most = max(most, waiting)
        return most

    @property
    def queue(self) -> int:
        """Length of the longest queue, in samples."""
        return self._queue

    def queue_for(self, asked: int) -> int:
        """Length of the queue of a subscriber that asks for a length; 0: no preference."""
        return min(asked or self._queue, self._queue)

    def fits(self, parts: Sendable) -> bool:
        """Whether the present samples are large enough for an object."""
        return self._pool is not None and parts.required_size <= self._pool.size

    def resize(self, parts: Sendable) -> None:
        """Allocate larger samples. All queues must be empty, or the order would be lost.

        Raises:
            TransportError: there is too little shared memory.
        """
        size = -(-(parts.required_size + _PAGE) // _PAGE) * _PAGE
        if self._pool is not None:
            if self._pool.size > _SMALL:
                # Objects that have grown once may grow again.
                size += size // 4
            self._pool.close()
            self._pool = None
        self._pool = SamplePool(self._service, size, self._queue + 2)

    def takes_references(self) -> bool:
        """Whether all subscribers can take a reference, and surely get the next sample."""
        for one in self.subscribers:
            counters = one.counters
            one.in_flight.prune(counters.secured)
            if not one.info.pools or counters.copies or one.sent - counters.taken >= one.queue:
                return False
        return True

    def send(
        self,
        parts: Sendable | Reference,
        flags: int = 0,
        target: bytes = ALL_SUBSCRIBERS,
    ) -> int | None:
        """Send an object; number of subscribers that got it, or None if all samples are in use.

        Raises:
            TransportError: shared memory is full.
        """
        pool = self._pool
        if pool is None:
            raise TransportError("the service has no samples")
        loan = pool.loan(parts.size if isinstance(parts, Reference) else pool.size)
        if loan is None:
            return None
        sample, memory, address = loan
        self._sequence += 1
        if isinstance(parts, Reference):
            # Before it is sent: if we are killed in between, nobody reuses the slot.
            for one in self.subscribers:
                one.in_flight.add(self._sequence, parts)
        parts.write(memory, address, pool.size, self._sequence, flags, target)
        return sample.assume_init().send()

    def add(self, subscriber: Subscriber) -> None:
        """Let a subscriber get all samples that follow."""
        if self._pool is not None:
            self._pool.update()
        self.subscribers.append(subscriber)

    def note_sent(self, n_received: int) -> int:
        """Count a sample that was sent, and wake those that sleep.

        Args:
            n_received: number of subscribers that got it.

        Returns:
            Number of deliveries that were rejected.
        """
        subscribers = self.subscribers
        all_received = n_received >= len(subscribers)
        rejected = 0
        for one in subscribers:
            counters = one.counters
            if self._overflow:
                # In a full queue it replaced the oldest sample, which is lost.
                if one.sent - counters.taken >= one.queue:
                    rejected += 1
                    one.rejected += 1
                else:
                    one.sent += 1
            elif all_received or one.sent - counters.taken < one.queue:
                one.sent += 1
            else:
                rejected += 1
                one.rejected += 1
            if counters.sleeping:
                one.wake()
        return rejected

    def close(self) -> None:
        """Free its samples."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def default_queue(object_size: int, blocks: bool) -> int:
    """Default length of a queue, in samples.

    Args:
        object_size: size of an object in bytes; 0 if none is known yet.
        blocks: whether the publisher waits for a full queue.
    """
    size = _BLOCKING_QUEUE if blocks else _DROPPING_QUEUE
    size = min(size, int(free_memory() * _MAX_SHARE))
    return max(_MIN_QUEUE, min(_MAX_QUEUE, size // (object_size or _ASSUMED_OBJECT)))
