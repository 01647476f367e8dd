"""Which of the objects that arrive are frames of the stream, and which frames were missed."""

from __future__ import annotations

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.sequence import IdStep, SequenceTracker
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.objects import LazyIds, is_late, is_marked
from pvapy_stream.transport.ports import Return

ID_FIELD = "uniqueId"


class Arrivals:
    """Looks at the ids of one channel. For the one thread that receives.

    The current object, which a source shows first, may be old and is no frame of the stream. When
    the source comes back, a current object with a higher id than the last frame is a frame that was
    not seen before.

    Args:
        shows_value: whether the mode begins with the current object.
        initial: whether the first current object is given out too.
        opening: whether opening objects, which show the structure of a channel, are given out too.

    Attributes:
        missed: frames that should have come, by their ids, and did not.
    """

    def __init__(self, shows_value: bool, initial: bool = False, opening: bool = False) -> None:
        self._first = shows_value
        self._initial = initial
        self._opening = opening
        self._read_id = LazyIds(ID_FIELD)
        self._tracker = SequenceTracker()
        self._missed_before = 0
        self._shown_id: int | None = None
        self.missed = 0

    def is_frame(self, obj: StreamObject, how: Return | None = None) -> bool:
        """Whether an object is to be given out.

        Args:
            obj: the object.
            how: how the source came back, for the first object after that.

        Raises:
            ObjectError: it has no id.
        """
        if how is None and not self._first:
            return self._observe(self._read_id(obj), obj)
        first, self._first = self._first, False
        if how is not None and how.anew:
            self._tracker.expect_restart()
        if is_marked(obj):
            return self._opening
        value = self._read_id(obj)
        if how is not None and not how.shown:
            return self._observe(value, obj)
        new = (self._initial or not first) and self._is_new(value)
        self._shown_id = value
        return new and self._observe(value, obj)

    def _is_new(self, value: int) -> bool:
        """Whether what is shown was not seen before, and is to be given out."""
        last = self._tracker.last
        if last is None:
            return value != self._shown_id
        if value == 0 < last and not self._initial:
            # What a channel holds at first. If its source goes on, its ids show what was missed.
            return False
        if value < last:
            # Another source, or one that has begun anew: what it shows may be old.
            self._begin_epoch(value)
            self._tracker.last = None
            return self._initial
        return value > last

    def _observe(self, value: int, obj: StreamObject) -> bool:
        tracker = self._tracker
        before = tracker.last
        step = tracker.observe(value)
        if before is None or value == before + 1:
            return True
        if step in (IdStep.BACK, IdStep.AGAIN) and is_marked(obj):
            return self._opening
        if step is IdStep.BACK and is_late(obj):
            tracker.excuse(IdSet([value]))
        elif step is IdStep.BACK:
            self._begin_epoch(value)
        self.missed = self._missed_before + len(tracker.missed)
        return True

    def _begin_epoch(self, value: int) -> None:
        self._missed_before += len(self._tracker.missed)
        self._tracker.begin_epoch(value)
