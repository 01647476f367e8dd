"""Tells those who come after a stage which ids it will not publish.

A stage that drops objects on purpose says so on a channel beside its output, named as the output
with ``:filtered`` behind it. Whoever receives from the output follows that channel too, and passes
on it: what was dropped on purpose is not missed, and a collector does not wait for it.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable

import numpy as np
import pvaccess as pva
from msgspec import Struct

from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.serving import host_readonly
from pvapy_stream.transport.ports import Return
from pvapy_stream.transport.pva import MonitorReceiver

SUFFIX = ":filtered"

_STRUCTURE = {
    "source": pva.STRING,
    "handled": pva.LONG,
    "published": pva.LONG,
    "hasPublished": pva.BOOLEAN,
    "count": pva.ULONG,
    "firstRange": pva.ULONG,
    "ranges": [pva.LONG],
}
# Ranges that one update carries: a client that misses updates for long misses ranges, and then
# counts ids as missed that were filtered.
_KEPT = 2048
_PERIOD = 0.05  # s
# How long a source's channel is searched for: sources that never filter have none.
_SEARCH = 5.0  # s

# Before an id was handled; smaller than any.
_NO_ID = -(2**62)

# How long what a source has filtered may be under way: its own pace, and the network.
_SETTLING = 0.5  # s

_log = logging.getLogger(__name__)


class Settling:
    """The id up to which a source has had the time to say what it filtered.

    A gap behind it is not yet known to be a loss.

    Attributes:
        until: the id; None for none yet.
    """

    def __init__(self) -> None:
        self.until: int | None = None
        self._next: int | None = None
        self._due = 0.0

    def note(self, last: int | None) -> None:
        """Note the id that came last; call a few times a second."""
        now = time.monotonic()
        if now >= self._due:
            self.until, self._next = self._next, last
            self._due = now + _SETTLING


class FilteredChannel:
    """Publishes what a stage filters.

    Args:
        server: the stage's PVA server.
        output: name of its output channel.
    """

    def __init__(self, server: pva.PvaServer, output: str) -> None:
        self.name = output + SUFFIX
        self._server = server
        # Of this process and output: a receiver may not notice that another program has come.
        self._source = uuid.uuid4().hex
        self._ranges: deque[list[int]] = deque(maxlen=_KEPT)
        self._begun = 0
        self._count = 0
        self._handled, self._published = _NO_ID, 0
        self._has_published = False
        self._changed = False
        self._due = 0.0
        # The stage's thread notes, and the service flushes what came last.
        self._lock = threading.Lock()
        host_readonly(server, self.name, pva.PvObject(_STRUCTURE))

    def note(self, value: int, published: int | None, now: float) -> None:
        """An id was filtered.

        Args:
            value: the id.
            published: the id that was published last; None for none.
            now: s since 1970.
        """
        with self._lock:
            self._add(value, value)
            self._reached(value, published)
        self._flush_at(now)

    def note_ids(self, ids: IdSet, published: int | None, now: float) -> None:
        """Some ids were filtered; arguments as for `note`."""
        if (last := ids.last) is None:
            return
        with self._lock:
            for start, end in ids.ranges().tolist():
                self._add(start, end - 1)
            self._reached(last, published)
        self._flush_at(now)

    def _flush_at(self, now: float) -> None:
        if now >= self._due:
            self._due = now + _PERIOD
            self.flush()

    def pass_on(self, ids: IdSet, handled: int | None = None, published: int | None = None) -> None:
        """Ids were filtered by a stage before this one.

        Args:
            ids: the ids.
            handled: no id up to this one will be published, once `published` is; None: not known.
            published: an id that will be published, or a later one; None for none.
        """
        with self._lock:
            for start, end in ids.ranges().tolist():
                self._add(start, end - 1)
            if handled is not None:
                self._reached(handled, published)
        self.flush()

    def _add(self, first: int, last: int) -> None:
        ranges = self._ranges
        if ranges and ranges[-1][1] == first - 1:
            ranges[-1][1] = last
        else:
            ranges.append([first, last])
            self._begun += 1
        self._count += last - first + 1
        self._changed = True

    def _reached(self, handled: int, published: int | None) -> None:
        self._handled = handled
        self._has_published = published is not None
        self._published = published or 0
        self._changed = True

    def flush(self) -> None:
        """Publish what was noted; a failure costs no frame, and is logged."""
        with self._lock:
            if not self._changed:
                return
            self._changed = False
            values = {
                "source": self._source,
                "handled": self._handled,
                "published": self._published,
                "hasPublished": self._has_published,
                "count": self._count,
                "firstRange": self._begun - len(self._ranges),
                "ranges": np.array(self._ranges, np.int64).ravel(),
            }
            try:
                self._server.update(self.name, pva.PvObject(_STRUCTURE, values))
            except Exception as error:
                _log.warning("channel %s cannot be updated: %s", self.name, error)


class Filtered(Struct, frozen=True):
    """What a source says it filtered since it was last asked.

    Attributes:
        ids: the ids.
        handled: the id it handled last.
        published: the id it published last; None for none.
    """

    ids: IdSet
    handled: int
    published: int | None


class FilteredReceiver:
    """Follows what the source of a channel filters.

    Args:
        channel: name of the input channel.
        take: gets what is new, in the binding's thread.

    Attributes:
        found: whether the source ever had such a channel, as stages have.
    """

    def __init__(self, channel: str, take: Callable[[Filtered], None]) -> None:
        self._channel = channel + SUFFIX
        self._take = take
        self.found = False
        self._receiver: MonitorReceiver | None = None
        self._give_up_at = 0.0
        self._connected = False
        # Of the ranges of the program `_source`.
        self._source = ""
        self._next = 0
        self._last_end: int | None = None
        self._lock = threading.Lock()

    @property
    def follows(self) -> bool:
        """Whether the source may yet say what it filters."""
        return self._receiver is not None and time.monotonic() < self._give_up_at

    def keep_up(self, connected: bool) -> None:
        """Search when the source has come, for a limited time; called a few times a second."""
        now = time.monotonic()
        # An EJFAT URI is no channel to search for, and has a token in it.
        if connected and not self._connected and "://" not in self._channel:
            self._close()
            self._give_up_at = now + _SEARCH
            self._receiver = MonitorReceiver(self._channel, retry=False)
            self._receiver.start(self._on_update)
        self._connected = connected
        receiver = self._receiver
        if receiver is None:
            return
        receiver.keep_up()
        self.found = self.found or receiver.connected
        if receiver.connected:
            self._give_up_at = now + _SEARCH
        elif now >= self._give_up_at and not self.found:
            # One that was found is searched for longer, though nothing waits for it: the input may
            # not detect that its source has ended and started again.
            self._close()

    def settled(self, how: Return) -> Return:
        """How a source came back, where the transport does not know whether it counts anew.

        A stage that was started again goes on with the ids of its source; what makes its objects
        itself, such as a detector, does not.
        """
        return how if how.anew is not None else how._replace(anew=not self.found)

    def stop(self) -> None:
        """Follow no longer."""
        self._close()

    def _close(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.stop()

    def _on_update(self, obj: StreamObject) -> None:
        if not obj.getULong("count"):
            return
        # Earlier versions do not say which program they are.
        source = obj.getString("source") if obj.hasField("source") else ""
        with self._lock:
            if source != self._source:
                # It counts its ranges from the beginning, and knows nothing of the ids between.
                self._source, self._next, self._last_end = source, 0, None
            ranges = np.asarray(obj["ranges"], np.int64).reshape(-1, 2)
            first = obj.getULong("firstRange")
            # The last range that is known may have grown.
            known = max(0, self._next - 1 - first)
            new = ranges[known:].copy()
            if len(new) and self._next > first and self._last_end is not None:
                new[0, 0] = min(self._last_end + 1, int(new[0, 1]) + 1)
            self._next = first + len(ranges)
            self._last_end = int(ranges[-1, 1]) if len(ranges) else None
            new[:, 1] += 1
            ids = IdSet.of_ranges(new[new[:, 1] > new[:, 0]])
        published = obj.getLong("published") if obj["hasPublished"] else None
        self._take(Filtered(ids, obj.getLong("handled"), published))
