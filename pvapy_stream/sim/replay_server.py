"""Publishes the objects of a recording at the times at which they came, with faults on request."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pvaccess as pva
from numpy.typing import NDArray

from pvapy_stream import bursts
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.sequence import DISORDER
from pvapy_stream.errors import ObjectError, SourceError, TransportError
from pvapy_stream.files.recorded import RecordedStream
from pvapy_stream.pva.convert import type_of
from pvapy_stream.pva.lazy import pv_object
from pvapy_stream.pva.objects import opening_object
from pvapy_stream.pva.serial import loads
from pvapy_stream.settings import ReplaySettings
from pvapy_stream.sim.faults import Due, Faults
from pvapy_stream.sim.gate import Gate
from pvapy_stream.sim.pacing import Pacer
from pvapy_stream.sim.source_server import SourceServer
from pvapy_stream.transport import registry
from pvapy_stream.transport.mode import PublisherOptions
from pvapy_stream.transport.ports import Publisher

_KEPT = 0.2e-3  # s; an interval that differs by no more than this counts as kept
# s; a wait ends this much early, as now and then a thread wakes up so late; the rest is spun
_EARLY = 0.3e-3

logger = logging.getLogger(__name__)


def due_objects(stream: RecordedStream, scale: float, passes: int) -> Iterator[Due]:
    """The objects of a recording with their times.

    Args:
        stream: the recording.
        scale: what recorded times are divided by; infinite: all are due at once.
        passes: how often it is read, 0: for ever; ids go on from pass to pass.
    """
    if not stream.n_rows:
        return
    first, last = int(stream.arrivals[0]), int(stream.arrivals[-1])
    step = int(stream.ids.max()) - int(stream.ids.min()) + 1
    # As long as an interval is on the average.
    period = (last - first) + (last - first) // max(1, stream.n_rows - 1)
    for number in range(passes) if passes else itertools.count():
        start, shift, n_read = number * period - first, number * step, 0
        for row in stream.rows():
            n_read += 1
            at = (row.arrival_ns + start) / 1e9 / scale
            yield Due(at, row.id + shift, row.data, shift)
        if not n_read:
            return


def object_of(due: Due, id_field: str) -> pva.PvObject:
    """The object that is to be published.

    Raises:
        ObjectError: its bytes are no object, or its id cannot be set.
    """
    obj = loads(due.data)
    if due.shift:
        try:
            obj[id_field] = due.id
        except (pva.PvaException, ValueError, TypeError, OverflowError) as error:
            raise ObjectError(
                f"id {due.id} cannot be set in field {id_field!r}: {error}; replay without --loop"
            ) from error
    return obj


class ReplayServer(SourceServer):
    """A server that publishes a recording.

    Args:
        settings: what was asked for.
        gate: says when to begin and when to go, instead of clients and delays.

    Attributes:
        problem: why not all that came at the time is published; "" if it is.
        faults: what was done on purpose.

    Raises:
        FileError: the recording cannot be read.
        SourceError: it has no objects.
    """

    def __init__(self, settings: ReplaySettings, gate: Gate | None = None) -> None:
        super().__init__(settings, gate, "replay")
        self.settings = settings
        self.faults = Faults(settings.rates, settings.seed)
        self._stream = RecordedStream(Path(settings.file))
        self._unusable = IdSet()
        self._lateness = array("d")  # s
        self._last: int | None = None
        try:
            self._opening = self._make_opening()
        except BaseException:
            self._stream.close()
            raise
        if self._stream.problem:
            logger.warning("%s: %s; what can be read is replayed", settings.file, self.problem)

    def _make_opening(self) -> pva.PvObject:
        """An object without data that opens the channel."""
        for row in self._stream.rows():
            return self._opening_like(loads(row.data))
        why = self._stream.problem or "nothing was recorded"
        raise SourceError(f"{self.settings.file} has no objects that can be read: {why}")

    def _opening_like(self, obj: pva.PvObject) -> pva.PvObject:
        return pv_object(opening_object(obj, obj, self.settings.oid_field))

    @property
    def problem(self) -> str:
        """Why not all that came at the time is published; "" if it is."""
        stream = self._stream
        found = [stream.problem] if stream.problem else []
        for ids, what in ((stream.unreadable, "read"), (self._unusable, "used")):
            if ids:
                found.append(f"{len(ids)} objects cannot be {what}: ids {ids}")
        return "; ".join(found)

    def run(self, stop: threading.Event) -> int:
        code = super().run(stop)
        if self.problem:
            self._problem = f"{self.settings.file}: {self.problem}"
            self._state = "failed"
        return 1 if self.problem else code

    def report(self) -> list[str]:
        """What is reported at the end: how well intervals were kept, and the faults."""
        return [*self._report_intervals(), *self.faults.lines()]

    def deviations(self) -> NDArray[np.float64]:
        """How far each interval was from that of the recording, s."""
        return np.abs(np.diff(np.array(self._lateness)))

    def _report_intervals(self) -> list[str]:
        wrong = self.deviations()
        asked = self.settings.delay or self.settings.reconnect or math.isinf(self.settings.scale)
        if asked or not wrong.size:
            return []
        half, most, worst = (1e3 * np.quantile(wrong, part) for part in (0.5, 0.99, 1.0))
        return [
            f"intervals: {np.mean(wrong <= _KEPT):.2%} kept within {_KEPT * 1e3:g} ms; half within"
            f" {half:.3f} ms, 99 % within {most:.3f} ms, all within {worst:.3f} ms"
        ]

    # -- what a source does ----------------------------------------------------------------------

    def _make(self, server: pva.PvaServer) -> Publisher:
        settings = self.settings
        self._options = PublisherOptions(
            settings.channel_name,
            server,
            id_field=settings.oid_field,
            timeout=settings.remote_timeout,
            settings=settings,
            args=settings.output_args,
        )
        return registry.make_publisher(settings.output_mode, self._options)

    def _open(self, server: pva.PvaServer) -> None:
        self._open_anew(self.publisher)

    def _prepare(self, stop: threading.Event) -> None:
        pass

    def _close(self) -> None:
        self._stream.close()

    def _publish(self, stop: threading.Event) -> None:
        settings, totals = self.settings, self.totals
        pacer = self._pacer = Pacer(0, stop)
        self._state = "running"
        objects = due_objects(self._stream, settings.scale, settings.loop)
        # The next object is read while there is nothing else to do.
        ready = self._ready(self.faults.apply(objects))
        following = next(ready, None)
        n_bytes = 0
        while following is not None:
            (one, obj), following = following, next(ready, None)
            gap = 0.0 if following is None else following[0].at - one.at
            if not pacer.wait_until(one.at, gap, _EARLY):
                break
            # Objects that are due together are sent together.
            bursts.begin() if pacer.behind else bursts.end()
            if one.done and not self._do_faults(one, stop):
                break
            if obj is None:
                continue
            n_bytes += len(one.data)
            totals.frame_bytes = n_bytes / (totals.frames + totals.failed + 1)
            self._publish_one(one, obj, pacer)
        bursts.end()
        totals.late = pacer.late
        logger.info("published %d objects, %d of them late", totals.frames, totals.late)

    def _ready(self, objects: Iterator[Due]) -> Iterator[tuple[Due, pva.PvObject | None]]:
        """What is due with its objects, None for those that are dropped."""
        for one in objects:
            try:
                obj = None if one.dropped else object_of(one, self.settings.oid_field)
            except ObjectError as error:
                if not self._unusable:
                    logger.error("object %d: %s", one.id, error)
                self._unusable.add(one.id)
                continue
            yield one, obj

    def _publish_one(self, one: Due, obj: pva.PvObject, pacer: Pacer) -> None:
        totals = self.totals
        self._lateness.append(pacer.elapsed - one.at)
        try:
            self._send(obj)
        except TransportError as error:
            self._note_failure(error, one.id)
            return
        self._note_published(one)
        totals.last = now = time.monotonic()
        if not totals.frames:
            totals.first, totals.first_id = now, one.id
        totals.frames += 1
        totals.last_id = one.id
        if totals.frames >= self._reporter.next_frame:
            totals.late = pacer.late
            self._reporter.progress(totals)
        if self._keeper.due(now):
            self._keeper.keep()

    def _send(self, obj: pva.PvObject) -> None:
        """Publish an object; if it has another structure, clients reconnect, as at the time.

        Raises:
            TransportError: it cannot be published.
        """
        try:
            self.publisher.publish(obj)
        except TransportError:
            if type_of(obj) == type_of(self._opening):
                raise
            self._opening = self._opening_like(obj)
            self.publisher.stop()
            self._open_anew(registry.make_publisher(self.settings.output_mode, self._options))
            self.publisher.publish(obj)

    def _note_published(self, one: Due) -> None:
        last, published = self._last, self.ledger.published
        back = 0 if last is None else last - one.id
        if back > DISORDER or (back > 0 and one.id in published and not one.again):
            # The source had been started again.
            self._begin_epoch()
        self.ledger.publish(one.id)
        self._last = one.id

    def _do_faults(self, one: Due, stop: threading.Event) -> bool:
        """Do what is to be done before an object is published; False when stopped meanwhile."""
        self.faults.note(one)
        for kind in one.done:
            self.ledger.faults.setdefault(kind, IdSet()).add(one.id)
        if one.delayed:
            bursts.end()
            stop.wait(self.settings.delay_time)
        if one.reconnects:
            bursts.end()
            self._reconnect(stop)
        return not stop.is_set()

    def _reconnect(self, stop: threading.Event) -> None:
        """Take the channel away, and bring it back."""
        self.publisher.stop()
        publisher = registry.make_publisher(self.settings.output_mode, self._options)
        stop.wait(self.settings.reconnect_time)
        self._open_anew(publisher)

    def _open_anew(self, publisher: Publisher) -> None:
        if publisher is not self.publisher:
            self._rejected += self.publisher.counts().rejected
        self.publisher = self._present = publisher
        publisher.start()
        publisher.open(self._opening.copy())
