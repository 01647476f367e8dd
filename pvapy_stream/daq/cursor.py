"""Position of a reader in a range: its next message, and what is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal

from pvapy_stream.daq.ring import Kept, Ring

By = Literal["pulse_id", "time"]

# A pulse that comes so much later than one behind it is still part of a range.
SETTLE = 0.5  # s
_MOST_SCANNED = 1000


@dataclass(frozen=True, slots=True)
class Gone:
    """Requested pulses that will not arrive.

    Attributes:
        start: first pulse id, or time in ns.
        stop: the last one, included.
        reason: ``before``, ``dropped`` or ``malformed``; see docs/bsread.md.
    """

    start: int
    stop: int
    reason: str


class RangeCursor(Generic[Kept]):
    """Goes through the messages of one range in the order of their arrival.

    Args:
        ring: where the messages are.
        by: what start and stop are.
        start: first pulse id or time; None: the next message that comes.
        stop: the last one, included; None: none yet.

    Attributes:
        position: sequence number of the next message to look at.
        finished: whether no more messages follow.
        delivered: messages given.
        last_value: pulse id or time of the message looked at last.
    """

    def __init__(self, ring: Ring[Kept], by: By, start: int | None, stop: int | None) -> None:
        self._ring = ring
        self._order = ring.pulses if by == "pulse_id" else ring.times
        self.start = start
        self.stop = stop
        self.position = ring.next if start is None else self._order.find(start)
        self.finished = False
        self.delivered = 0
        self.last_value = 0
        # Up to where it is known what came and what did not: the largest value looked at.
        self._seen: int | None = self._order.newest if start is None else None
        self._passed_stop_at: float | None = None
        self._begun = start is None
        # The count of the source that was looked at last, by where it began.
        self._count = self._order.count_began
        # Whether the last message may be odd, which the next one decides.
        self._doubts = False

    @property
    def waits(self) -> bool:
        """Whether it has looked at all there is."""
        return self.finished or self._doubts or self.position >= self._ring.next

    def set_stop(self, stop: int) -> None:
        """Set or change the last pulse id or time."""
        self.stop = stop
        self._passed_stop_at = None
        if self._seen is not None and self._seen >= stop:
            self._passed_stop_at = float("-inf")

    def take(self, now: float) -> Kept | Gone | None:
        """What comes next; None when there is nothing now, or `finished`.

        Raises:
            FileError: the next message cannot be read from disk; the one after it is next.
        """
        self._doubts = False
        for _ in range(_MOST_SCANNED):
            if self.finished:
                return None
            gone = self._gone()
            if gone is not None:
                return gone
            if self.position < self._ring.first:
                continue
            if self.position >= self._ring.next:
                self._end_if_settled(now)
                return None
            sequence = self.position
            if self._end_if_settled(self._ring.arrival(sequence)):
                return None
            self._doubts = self._is_doubtful(sequence, now)
            if self._doubts:
                return None
            self.position += 1
            if self._look_at(sequence):
                message = self._ring.get(sequence)
                self.delivered += 1
                return message
        return None

    def _is_doubtful(self, sequence: int, now: float) -> bool:
        """Whether only the next message can show if this one is odd, and may still come."""
        last = sequence == self._ring.next - 1 and self._order.is_odd(sequence)
        return last and now - self._ring.arrival(sequence) <= SETTLE

    def _look_at(self, sequence: int) -> bool:
        """Whether a message is part of the range."""
        value = self.last_value = self._order.value(sequence)
        stop = self.stop
        if self._order.is_odd(sequence):
            # It does not show how far the stream is.
            return (self.start is None or value >= self.start) and (stop is None or value <= stop)
        self._begun = True
        began = self._seen is None or sequence == self._order.count_began
        self._seen = value if began else max(self._seen or value, value)
        if stop is not None and value >= stop and self._passed_stop_at is None:
            self._passed_stop_at = self._ring.arrival(sequence)
        return (self.start is None or value >= self.start) and (stop is None or value <= stop)

    def _end_if_settled(self, now: float) -> bool:
        if self._passed_stop_at is not None and now - self._passed_stop_at > SETTLE:
            self.finished = True
        return self.finished

    def _gone(self) -> Gone | None:
        """What was dropped before this reader could have it, if that has not been reported."""
        ring = self._ring
        if not self._begun:
            return self._gone_before(self.start or 0)
        self._follow_count()
        if self.position >= ring.first:
            return None
        order, seen = self._order, self._seen
        if self.position < order.count_began:
            # What is lost of the count before the source's restart; of this one, in the next turn.
            newest_gone = order.largest_dropped_before
            self.position = min(ring.first, order.count_began)
            self._seen = None
        else:
            newest_gone = order.largest_dropped
            self.position = ring.first
            self._see(newest_gone)
        start = order.began_with if seen is None else seen + 1
        if start is None or newest_gone is None or newest_gone < start:
            return None
        return self._part(max(start, self.start or start), newest_gone, "dropped")

    def _follow_count(self) -> None:
        """See whether the source has started again, which is known one message later."""
        order = self._order
        if order.count_began == self._count or self.position < order.count_began:
            return
        self._count = order.count_began
        # The first message of the count may have been looked at, when it still seemed odd.
        self._seen = order.began_with if self.position > self._count else None

    def _gone_before(self, start: int) -> Gone | None:
        """What is missing at the start, reported as soon as anything shows it."""
        ring, order = self._ring, self._order
        self.position = max(self.position, ring.first)
        dropped = order.largest_dropped
        if dropped is not None and dropped >= start:
            self._begun = True
            self._see(dropped)
            return self._part(start, dropped, "dropped")
        if self.position >= ring.next or order.is_odd(self.position):
            return None
        self._begun = True
        first = order.value(self.position)
        if dropped is None and self.position == order.count_began and first > start:
            return self._part(start, first - 1, "before")
        return None

    def _see(self, value: int | None) -> None:
        if value is not None:
            self._seen = value if self._seen is None else max(self._seen, value)

    def _part(self, start: int, stop: int, reason: str) -> Gone | None:
        """The part of what is gone that was asked for; the end, when nothing else was."""
        if self.stop is not None and stop >= self.stop:
            stop = self.stop
            self.finished = True
        return Gone(start, stop, reason) if start <= stop else None
