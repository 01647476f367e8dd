"""Receiver of DECTRIS Stream V2: the images of one threshold of a detector."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pvapy_stream.dectris.arrays import Picture, read_picture
from pvapy_stream.dectris.cbor import check_installed
from pvapy_stream.dectris.messages import Image, Message, Start
from pvapy_stream.dectris.series_ids import LATE, Placed, SeriesBook
from pvapy_stream.errors import CodecError, DectrisError, TransportError
from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import LazyObject, StreamObject
from pvapy_stream.series import (
    PIXEL_MASK,
    PIXEL_MASK_APPLIED,
    SeriesField,
    SeriesMetadata,
    of_attributes,
)
from pvapy_stream.transport.dectris_connection import joined
from pvapy_stream.transport.dectris_settings import DectrisInputSettings, address_of
from pvapy_stream.transport.ports import Deliver, DeliverAgain, ReceiverCounts, Return

REFUSED = "refused message"

_LOGGED = 20  # problems that are logged; then every 1000th
_LOG_EVERY = 1000

_log = logging.getLogger(__name__)


class _OfSeries(NamedTuple):
    """What all images of a series have.

    Attributes:
        start: its start message.
        threshold: channel of the images.
        attributes: their attributes.
        series: the same for files; None if nothing is known.
    """

    start: Start | None
    threshold: str
    attributes: Mapping[str, object]
    series: SeriesMetadata | None


class DectrisReceiver:
    """Delivers the images of one threshold as frames, compressed as they came.

    Receivers of other thresholds of the same detector share its connection, and its messages are
    passed to one after the other: one that waits makes the others wait.

    Args:
        channel: ``tcp://HOST:PORT``, also with ``?threshold=NAME``.
        args: arguments of the input.
        queue_size: messages that wait here; 0: as in `args`.
        id_field: field with the object id; "" for uniqueId.

    Raises:
        SettingsError: the channel is no address.
        TransportError: the address cannot be used, or another receiver of this process has it and
            cannot share it.
        MissingExtraError: the library for CBOR is not installed.
    """

    def __init__(
        self, channel: str, args: DectrisInputSettings, queue_size: int = 0, id_field: str = ""
    ) -> None:
        self.channel = channel
        address, threshold = address_of(channel)
        self.threshold = threshold or args.threshold
        check_installed()
        self._args = args
        self._has_ids = id_field in ("", "uniqueId")
        self._book = SeriesBook(self._report, self._note, args.ends_early)
        self._deliver: Deliver | None = None
        self._deliver_again: DeliverAgain | None = None
        self._left: list[StreamObject] = []
        self._opened = self._stopped = self._hindered = False
        self._received = self._errors = 0
        self._drops: Counter[str] = Counter()
        self._warned: set[str] = set()
        self._shared = _OfSeries(None, "", {}, None)
        # What was wrong last, and what all else follows from.
        self._problem = self._cause = ""
        try:
            self._connection, self._seat = joined(
                self, address, queue_size or args.queue, args.max_message_size
            )
        except TransportError as error:
            raise TransportError(f"channel {channel}: {error}") from error

    def start(self, deliver: Deliver, deliver_again: DeliverAgain | None = None) -> None:
        self._deliver, self._deliver_again = deliver, deliver_again
        self._connection.start(self._seat)

    # -- what comes, in the thread of the connection ---------------------------------------------

    def refuse(self, text: str, kind: str = "") -> None:
        self._drops[REFUSED] += 1
        self._report(text, kind)

    def lose(self) -> None:
        if self._book.running:
            _log.warning("channel %s: the connection was lost during a series", self.channel)
        self._book.pause()

    def look_at_silence(self, heard: float) -> None:
        limit = self._args.silence
        if limit and heard and time.monotonic() - heard > limit:
            self._book.pause()

    def collect(self) -> None:
        self._deliver, self._deliver_again = self._left.append, None

    def end(self) -> None:
        self._book.close()

    # -- messages --------------------------------------------------------------------------------

    def take(self, message: Message) -> None:
        if isinstance(message, Image):
            self._take_image(message)
        elif isinstance(message, Start):
            self._book.start(message)
            self._check_threshold(message)
            if not self._opened and message.shape and message.dtype:
                self._open(0, message.shape, np.dtype(message.dtype))
        else:
            self._book.end(message)

    def _check_threshold(self, start: Start) -> None:
        name = self.threshold
        if name and start.channels and name not in start.channels:
            self._cause = _no_threshold(name, start.channels)
            self._report(self._cause)

    def _take_image(self, message: Image) -> None:
        start = self._book.start_of(message.series)
        name = self.threshold
        if not name:
            name = next(iter((start.channels if start else ()) or message.data), "")
        if name not in message.data:
            raise DectrisError(_no_threshold(name, tuple(message.data)))
        picture = read_picture(message.data[name])
        placed = self._book.image(message)
        if isinstance(placed, str):
            self._drop(placed, message)
            return
        if not self._opened:
            # Without the start message, it is not known what was sent before.
            first = placed.id if placed.series.start is None else 0
            self._open(first, picture.shape, picture.dtype)
        self._give(self._object(placed, message, picture, name), placed.anew)

    def _drop(self, policy: str, message: Image) -> None:
        self._drops[policy] += 1
        if policy == LATE:
            self._report(
                f"image {message.number} of {message.series} came too late and is dropped", policy
            )
        elif policy not in self._warned:
            self._warned.add(policy)
            self._note(
                f"image {message.number} of {message.series} came again and is dropped; further"
                " ones are only counted"
            )

    def _object(self, placed: Placed, message: Image, picture: Picture, name: str) -> LazyObject:
        shared = self._common(placed.series.start, name)
        return LazyObject(
            Frame(
                placed.id,
                picture.payload,
                picture.shape,
                time_ns=message.time_ns,
                dtype=picture.dtype,
                codec=picture.codec,
                attributes={**shared.attributes, **message.attributes},
                series=shared.series,
            )
        )

    def _common(self, start: Start | None, name: str) -> _OfSeries:
        """What all images of a series have."""
        if self._shared.start is start and self._shared.threshold == name:
            return self._shared
        attributes = {} if start is None else dict(start.attributes)
        attributes["Threshold"] = name
        series: SeriesMetadata | None = None
        if start is not None:
            if name in start.energies:
                attributes["ThresholdEnergy"] = start.energies[name]
            series = of_attributes(attributes, self._mask(start, name))
        self._shared = _OfSeries(start, name, attributes, series)
        return self._shared

    def _mask(self, start: Start, name: str) -> dict[str, SeriesField]:
        """The pixel mask of a series, if it has one that can be read."""
        if name not in start.masks:
            return {}
        try:
            mask = read_picture(start.masks[name])
            if start.shape is not None and mask.shape != start.shape:
                raise DectrisError(f"it has the shape {mask.shape}, and images have {start.shape}")
            pixels = Frame(0, mask.payload, mask.shape, dtype=mask.dtype, codec=mask.codec).image
        except (DectrisError, CodecError) as error:
            self._note(f"{start.series}: its pixel mask cannot be read: {error}")
            return {}
        fields = {PIXEL_MASK: SeriesField(pixels)}
        if start.mask_applied is not None:
            fields[PIXEL_MASK_APPLIED] = SeriesField(start.mask_applied)
        return fields

    def _open(self, number: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        """Deliver an opening object, which shows the structure of the images."""
        self._opened = True
        pixels = np.zeros(shape[0] * shape[1], dtype)
        opening = LazyObject(Frame(number, pixels, shape))
        opening.mark()
        self._give(opening)

    def _give(self, obj: LazyObject, anew: bool = False) -> None:
        deliver, again = self._deliver, self._deliver_again
        if deliver is None:
            return
        if deliver != self._left.append:
            self._received += 1
        try:
            if anew and again is not None:
                again(obj, Return(shown=False, anew=True))
            else:
                deliver(obj)
        except Exception as error:
            self._errors += 1
            _log.exception("channel %s: an object could not be delivered", self.channel)
            self._problem = f"an object could not be delivered: {error}"

    # -- what is wrong ---------------------------------------------------------------------------

    def _report(self, text: str, kind: str = "") -> None:
        """Something is wrong, or missing."""
        self._errors += 1
        self._problem = text
        if kind and kind in self._warned:
            return
        if kind:
            self._warned.add(kind)
        if self._errors <= _LOGGED or self._errors % _LOG_EVERY == 0:
            _log.error("channel %s: %s (%d errors so far)", self.channel, text, self._errors)

    def _note(self, text: str) -> None:
        _log.warning("channel %s: %s", self.channel, text)

    # -- the contract ----------------------------------------------------------------------------

    def stop(self, patience: float = 0.0) -> list[StreamObject]:
        if not self._connection.stop(self._seat, patience):
            _log.error("channel %s: an object is still being processed", self.channel)
            return []
        self._stopped = True
        self._deliver = None
        left, self._left = self._left, []
        return [obj for obj in left if not (isinstance(obj, LazyObject) and obj.marked)]

    def counts(self) -> ReceiverCounts:
        drops = dict(self._drops)
        return ReceiverCounts(
            self._received, errors=self._errors, rejected=sum(drops.values()), drops=drops
        )

    @property
    def connected(self) -> bool:
        return self._connection.connections > 0 and not self._stopped

    @property
    def was_connected(self) -> bool:
        return self._connection.was_connected

    @property
    def problem(self) -> str:
        """What is wrong, or missing; "" if nothing is."""
        hindrance = "" if self._stopped else self._connection.hindrance(self._seat)
        return self._cause or hindrance or self._problem

    def keep_up(self) -> None:
        hindrance = "" if self._stopped else self._connection.hindrance(self._seat)
        if hindrance and not self._hindered:
            self._note(hindrance)
        self._hindered = bool(hindrance)

    def newest(self, timeout: float) -> StreamObject | None:
        """An object with the id of the last image that should have come."""
        newest = self._book.newest if self._has_ids else None
        return None if newest is None else LazyObject(Frame(newest, np.zeros(0, np.uint8), ()))


def _no_threshold(name: str, known: tuple[str, ...]) -> str:
    return (
        f"the detector has no threshold {name!r}; it has {', '.join(known) or 'none'}; choose with"
        ' {"threshold": NAME} in --input-args, or ?threshold=NAME behind the address'
    )
