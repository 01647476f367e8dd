"""Way out: a channel on our own PVA server, on our own sockets."""

from __future__ import annotations

import logging
import threading
import time

import pvaccess as pva

from pvapy_stream import bursts
from pvapy_stream.errors import PvapyStreamError, TransportError
from pvapy_stream.pva.encoder import ObjectEncoder
from pvapy_stream.pva.lazy import StreamObject, pv_object
from pvapy_stream.pva.net.encoded_updates import Update
from pvapy_stream.pva.net.kept_updates import KeptUpdates
from pvapy_stream.pva.net.server_channel import Channel, ChannelMonitor
from pvapy_stream.pva.objects import IdReader, id_reader, is_marked
from pvapy_stream.transport.own_server import host
from pvapy_stream.transport.ports import Publisher, PublisherCounts
from pvapy_stream.transport.pva_library import PvaSettings

_POLL = 0.002  # s; between two looks whether all is sent
_FAST = 3e-4  # s; between objects that are sent together
_LATEST = 1e-3  # s; after the first of them, the next one is sent at once, with all before
_LETS_IN = 5e-5  # s; for the server's thread, which waits for the lock

_log = logging.getLogger(__name__)

# What the binding, numpy and the encoder raise for objects of another structure.
_WRONG_OBJECTS = (
    PvapyStreamError, pva.PvaException, ValueError, TypeError, LookupError, ArithmeticError,
)  # fmt: skip


class OwnHostedPublisher(Publisher):
    """Publishes on one channel of the server that the channels of this process share.

    The channel appears with `open`, or with the first published object; clients may not put to it.
    Each object is encoded once, and sent from the memory that it is in, by the thread that
    publishes, to all subscribers that take it at once; the server's thread sends the rest.

    Args:
        channel: name of the channel.
        settings: overflow policy for subscribers that acknowledge objects, and its time limit.
        server: the binding's server of the program, if it has one: it must not have the channel.
        id_field: field with the id, by which objects are kept.
    """

    takes_lazy = True
    knows_subscribers = True

    def __init__(
        self,
        channel: str,
        settings: PvaSettings,
        server: pva.PvaServer | None = None,
        id_field: str = "uniqueId",
    ) -> None:
        self.channel = channel
        self._id_field = id_field
        self._read_id: IdReader | None = None
        self._keeps_not = False  # whether it was said that an object is not kept
        self._settings = settings
        self._server = server
        # Of several threads that publish, one after the other.
        self._lock = threading.Lock()
        self._hosted: _Hosted | None = None
        self._published = self._errors = 0
        self._counted: list[Channel] = []

    def open(self, prototype: StreamObject) -> None:
        """Add the channel with an object of the structure that will be published.

        Raises:
            TransportError: the name is taken in this program, or the structure cannot be served.
        """
        with self._lock:
            self._open(prototype)

    def _open(self, prototype: StreamObject) -> _Hosted:
        try:
            if self._server is not None and self._server.hasRecord(self.channel):
                raise TransportError("it is the name of another channel of this program")
            hosted = _Hosted(self.channel, self._settings, pv_object(prototype).copy())
        except _WRONG_OBJECTS as error:
            raise TransportError(f"cannot host channel {self.channel}: {error}") from error
        self._counted.append(hosted.channel)
        self._hosted = hosted
        return hosted

    def publish(self, obj: StreamObject) -> None:
        self._publish(obj)

    def publish_late(self, obj: StreamObject) -> None:
        # It does not become what the channel shows: that is the newest.
        self._publish(obj, late=True)

    def _publish(self, obj: StreamObject, late: bool = False) -> None:
        with self._lock:
            hosted = self._hosted or self._open(obj)
            try:
                update = hosted.encoder.update(obj)
                if late:
                    # What follows is a change of the newest object, and not of this one.
                    hosted.encoder.forget()
                kept_as = None if hosted.kept is None else self._kept_as(obj)
                hosted.post(update, kept_as, late)
            except _WRONG_OBJECTS as error:
                self._errors += 1
                raise TransportError(
                    f"cannot publish on channel {self.channel}: {error}; a channel keeps the"
                    " structure of its first object (see getOutputPvObjectType)"
                ) from error
            self._published += 1
        if hosted.loop.wants_lock:
            # It would hardly get it from a thread that publishes as fast as it can.
            time.sleep(_LETS_IN)

    def _kept_as(self, obj: StreamObject) -> int | None:
        """The id by which an object is kept; None for one that is not kept."""
        try:
            read_id = self._read_id
            if read_id is None:
                read_id = self._read_id = id_reader(self._id_field, obj)
            return None if is_marked(obj) else read_id(obj)
        except _WRONG_OBJECTS as error:
            if not self._keeps_not:
                self._keeps_not = True
                _log.warning("channel %s keeps no past of objects: %s", self.channel, error)
            return None

    @property
    def kept(self) -> KeptUpdates | None:
        """What was published, if it is kept and the channel is there."""
        return self._hosted.kept if self._hosted is not None else None

    @property
    def subscribers(self) -> int:
        hosted = self._hosted
        return 0 if hosted is None else len(hosted.channel.monitors)

    @property
    def clients(self) -> int:
        hosted = self._hosted
        return 0 if hosted is None else len(hosted.channel.clients)

    def finish(self, patience: float) -> None:
        """Wait until all is sent to those who take it, for at most `patience` s."""
        deadline = time.monotonic() + patience
        hosted = self._hosted
        while hosted is not None and not hosted.all_sent() and time.monotonic() < deadline:
            time.sleep(_POLL)

    def stop(self) -> None:
        hosted = self._hosted
        if hosted is not None:
            hosted.wait_no_longer()
        with self._lock:
            if self._hosted is not None:
                self._hosted = None
                host.remove(self.channel)

    def counts(self) -> PublisherCounts:
        dropped = sum(one.dropped for one in list(self._counted))
        return PublisherCounts(self._published, self._errors, dropped)


class _Hosted:
    """A channel that is open.

    Args:
        name: of the channel.
        settings: as those of the publisher.
        opening: the first object.

    Attributes:
        loop: of the server.
        kept: what was published, if it is kept.

    Raises:
        TransportError: the name is taken on the server.
    """

    def __init__(self, name: str, settings: PvaSettings, opening: pva.PvObject) -> None:
        self.encoder = ObjectEncoder(opening)
        self.channel = Channel(name, self.encoder.kind, self.encoder.update(opening))
        policy = settings.pva_overflow
        self._blocks = policy == "block"
        self.channel.overflow = "drop-newest" if policy == "block" else policy
        self.kept: KeptUpdates | None = None
        if settings.keep_past:
            self.kept = KeptUpdates(int(settings.keep_past * 2**20), settings.keep_past_age)
        self.channel.kept = self.kept
        self._timeout = settings.pva_timeout
        self._ends = self._gathered = False
        self._posted_at = self._gathered_at = 0.0
        self._burst: list[bursts.Send] | None = None  # of the last object
        self._fast = False  # whether objects of a burst follow each other so fast
        self.loop = host.add(self.channel)
        self._room = threading.Condition(self.loop.lock)
        self.channel.made_room = self._room.notify_all

    def post(self, update: Update, kept_as: int | None = None, late: bool = False) -> None:
        """Send an update to all subscribers whose turn it is.

        Args:
            update: the update.
            kept_as: id by which it is kept; None: it is not kept.
            late: whether it follows larger ids.
        """
        channel = self.channel
        with self.loop.lock:
            if kept_as is not None and self.kept is not None:
                self.kept.add(kept_as, update, late)
            if not late:
                # Who comes while others are waited for begins with this update.
                channel.hold(update)
            takers = channel.takers(update)
            if not takers:
                return
            if self._blocks:
                for one in takers:
                    if one.pipeline and one.full:
                        self._wait_for(one)
            gather = self._gathers()
            for one in takers:
                if one.active:
                    one.post(update, gather)

    def _gathers(self) -> bool:
        """Whether what is posted now may be sent with what follows."""
        sends = bursts.current()
        if sends is None:
            return False
        now = time.monotonic()
        before, self._posted_at = self._posted_at, now
        if sends is self._burst:
            self._fast = now - before <= _FAST
        # Before the first of a burst there was something else: it is as those of the one before.
        self._burst = sends
        if not self._fast:
            # What follows may take as long.
            return False
        if not self._gathered:
            self._gathered, self._gathered_at = True, now
            sends.append(self._send_gathered)
            return True
        if now - self._gathered_at < _LATEST:
            return True
        # This one is sent at once, with those before; what follows is gathered again.
        self._gathered_at = now
        return False

    def _send_gathered(self) -> None:
        with self.loop.lock:
            self._gathered = False
            # A connection that turns out to be broken ends its monitors.
            for one in tuple(self.channel.monitors):
                one.client.flush()

    def _wait_for(self, one: ChannelMonitor) -> None:
        """Wait until a subscriber has room, is gone, or the time limit is over."""
        one.client.flush()
        deadline = time.monotonic() + self._timeout
        while one.active and one.full and not one.stuck and not self._ends:
            if not self._room.wait(max(0.0, deadline - time.monotonic())):
                one.give_up(self._timeout)

    def all_sent(self) -> bool:
        """Whether nothing waits to be sent to those who take it."""
        with self.loop.lock:
            return not self.channel.past_requests and all(one.idle for one in self.channel.monitors)

    def wait_no_longer(self) -> None:
        """The channel ends soon."""
        with self.loop.lock:
            self._ends = True
            self._room.notify_all()
