"""Receiver of DECTRIS Stream V2: a ZeroMQ socket that pulls from a detector.

A detector distributes its messages among its clients, so a receiver has to be the only one.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import zmq
from zmq.utils.monitor import recv_monitor_message

from pvapy_stream.dectris.arrays import Picture, read_picture
from pvapy_stream.dectris.cbor import check_installed
from pvapy_stream.dectris.messages import End, Image, Start, read_message
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
from pvapy_stream.transport.dectris_settings import DectrisInputSettings, address_of
from pvapy_stream.transport.ports import Deliver, DeliverAgain, ReceiverCounts, Return

REFUSED = "refused message"

_TICK = 50  # ms
_ENDS = 5.0  # s; minimum time for an object in delivery at the end
_LOGGED = 20  # problems that are logged; then every 1000th
_LOG_EVERY = 1000
_UP = zmq.EVENT_HANDSHAKE_SUCCEEDED
_DOWN = zmq.EVENT_DISCONNECTED

_log = logging.getLogger(__name__)

# Receivers of this process by address: a second one would take messages from the first.
_receivers: weakref.WeakValueDictionary[str, DectrisReceiver] = weakref.WeakValueDictionary()


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

    Args:
        channel: ``tcp://HOST:PORT``, also with ``?threshold=NAME``.
        args: arguments of the input.
        queue_size: messages that wait here; 0: as in `args`.
        id_field: field with the object id; "" for uniqueId.

    Raises:
        SettingsError: the channel is no address.
        TransportError: the address cannot be used, or another receiver of this process has it.
        MissingExtraError: the library for CBOR is not installed.
    """

    def __init__(
        self, channel: str, args: DectrisInputSettings, queue_size: int = 0, id_field: str = ""
    ) -> None:
        self.channel = channel
        self._address, threshold = address_of(channel)
        self._threshold = threshold or args.threshold
        check_installed()
        other = _receivers.get(self._address)
        if other is not None and not other.closed:
            raise TransportError(
                f"channel {channel}: this program already receives from {self._address}, which"
                " sends each message to only one client; give one entry or stage for a detector,"
                " and let others receive from its output"
            )
        self._args = args
        self._has_ids = id_field in ("", "uniqueId")
        self._queue = queue_size or args.queue
        self._socket: Any = zmq.Context.instance().socket(zmq.PULL)
        self.closed = False
        self._socket.linger = 0
        self._socket.rcvhwm = self._queue
        self._socket.maxmsgsize = args.max_message_size
        # A detector that has lost its network is noticed.
        self._socket.tcp_keepalive = 1
        self._events: Any = self._socket.get_monitor_socket(_UP | _DOWN)
        try:
            self._socket.connect(self._address)
        except zmq.ZMQError as error:
            self._close_sockets()
            raise TransportError(f"channel {channel}: no usable address ({error})") from error
        _receivers[self._address] = self
        self._book = SeriesBook(self._report, self._note, args.ends_early)
        self._deliver: Deliver | None = None
        self._deliver_again: DeliverAgain | None = None
        self._left: list[StreamObject] = []
        self._opened = False
        self._received = self._errors = self._connections = 0
        self._drops: Counter[str] = Counter()
        self._warned: set[str] = set()
        self._shared = _OfSeries(None, "", {}, None)
        self._heard = 0.0
        self.was_connected = False
        # What was wrong last, and what all else follows from.
        self._problem = self._cause = ""
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"dectris {channel}", daemon=True)

    def start(self, deliver: Deliver, deliver_again: DeliverAgain | None = None) -> None:
        self._deliver, self._deliver_again = deliver, deliver_again
        self._thread.start()

    # -- the receiving thread --------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._events, zmq.POLLIN)
        while True:
            stopping = self._stopping.is_set()
            # Also at the end: what was sent last is still on its way.
            ready = dict(poller.poll(_TICK))
            if self._socket in ready:
                self._receive()
            elif self._events in ready:
                # After all messages: those before the end of a connection belong to it.
                self._note_connection()
            elif stopping:
                break
            else:
                self._look_at_silence()
            if stopping and time.monotonic() >= self._deadline:
                self._collect()
                break
        self._book.close()

    def _receive(self) -> None:
        try:
            message = self._socket.recv(zmq.NOBLOCK)
            more = self._socket.rcvmore
            while self._socket.rcvmore:
                self._socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return
        self._heard = time.monotonic()
        while not self._connections and self._events.poll(0):
            # A stream without pauses would keep it waiting.
            self._note_connection()
        self.was_connected = True
        try:
            if more:
                raise DectrisError(
                    "the message has several parts, as those of Stream V1; set the format of the"
                    " detector's stream to cbor"
                )
            self._take(read_message(message))
        except DectrisError as error:
            self._drops[REFUSED] += 1
            self._report(f"a message of {len(message)} bytes is refused: {error}", str(error))
        except Exception as error:
            # One message must not end the stream.
            self._drops[REFUSED] += 1
            self._report(f"a message cannot be processed: {type(error).__name__}: {error}")
            _log.debug("channel %s", self.channel, exc_info=True)

    def _note_connection(self) -> None:
        event = recv_monitor_message(self._events, zmq.NOBLOCK)["event"]
        if event == _UP:
            self._connections += 1
            self.was_connected = True
            _log.info("channel %s is connected", self.channel)
        elif event == _DOWN:
            self._connections = max(0, self._connections - 1)
            if self._book.running:
                _log.warning("channel %s: the connection was lost during a series", self.channel)
            self._book.pause()

    def _look_at_silence(self) -> None:
        limit = self._args.silence
        if limit and self._heard and time.monotonic() - self._heard > limit:
            self._book.pause()

    def _collect(self) -> None:
        """Take messages that wait, as many as the queue has; they are not delivered."""
        self._deliver, self._deliver_again = self._left.append, None
        for _ in range(self._queue):
            if not self._socket.poll(0):
                return
            self._receive()

    # -- messages --------------------------------------------------------------------------------

    def _take(self, message: Start | Image | End) -> None:
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
        name = self._threshold
        if name and start.channels and name not in start.channels:
            self._cause = _no_threshold(name, start.channels)
            self._report(self._cause)

    def _take_image(self, message: Image) -> None:
        start = self._book.start_of(message.series)
        name = self._threshold
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
        self._deadline = time.monotonic() + patience
        self._stopping.set()
        if self._thread.ident and self._thread is not threading.current_thread():
            self._thread.join(patience + _ENDS)
        if self._thread.is_alive():
            _log.error("channel %s: an object is still being processed", self.channel)
            return []
        self._deliver = None
        self._close_sockets()
        self._connections = 0
        left, self._left = self._left, []
        return [obj for obj in left if not (isinstance(obj, LazyObject) and obj.marked)]

    def _close_sockets(self) -> None:
        self.closed = True
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._events.close(0)
            self._socket.close(0)

    def counts(self) -> ReceiverCounts:
        drops = dict(self._drops)
        return ReceiverCounts(
            self._received, errors=self._errors, rejected=sum(drops.values()), drops=drops
        )

    @property
    def connected(self) -> bool:
        return self._connections > 0

    @property
    def problem(self) -> str:
        """What is wrong, or missing; "" if nothing is."""
        return self._cause or self._problem

    def keep_up(self) -> None:
        pass

    def newest(self, timeout: float) -> StreamObject | None:
        """An object with the id of the last image that should have come."""
        newest = self._book.newest if self._has_ids else None
        return None if newest is None else LazyObject(Frame(newest, np.zeros(0, np.uint8), ()))


def _no_threshold(name: str, known: tuple[str, ...]) -> str:
    return (
        f"the detector has no threshold {name!r}; it has {', '.join(known) or 'none'}; choose with"
        ' {"threshold": NAME} in --input-args, or ?threshold=NAME behind the address'
    )
