"""Receiver of a PVA channel on our own sockets."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from pvapy_stream.errors import ObjectError, TransportError, WireError
from pvapy_stream.pva.lazy import StreamObject, pv_object
from pvapy_stream.pva.net.client import Client
from pvapy_stream.pva.net.client_channel import ClientChannel
from pvapy_stream.pva.newest import Newest
from pvapy_stream.pva.updates import UpdateReader
from pvapy_stream.pva.wire.buffers import Buffer
from pvapy_stream.pva.wire.descriptions import Incoming
from pvapy_stream.pva.wire.types import Structure
from pvapy_stream.transport.ports import Deliver, DeliverAgain, Receiver, ReceiverCounts, Return

_LOOK = 0.005  # s; between two looks whether all that has come is delivered
_LAST_DELIVERY = 5.0  # s; how long `stop` waits for an object that is being delivered

_log = logging.getLogger(__name__)


class OwnMonitorReceiver:
    """Follows a channel, which may appear late, vanish and come back.

    It has a thread of its own, which delivers: a stage that takes long leaves what comes to the
    kernel, and then to the server's queue.

    Args:
        channel: name of the channel.
        request: PV request, see `pva.monitor_request.monitor_request`.
        probe: request with which `newest` asks; the fewer fields, the cheaper.
        fallback: makes the receiver for channels whose structure we cannot hold; None: that is an
            error.
        unshared: gets why the server cannot share updates out, where the request asks for that.
    """

    def __init__(
        self,
        channel: str,
        request: str = "field()",
        probe: str = "field()",
        fallback: Callable[[], Receiver] | None = None,
        unshared: Callable[[str], None] | None = None,
    ) -> None:
        self.channel = channel
        self._was_connected = False
        self._request = request
        self._probe = probe
        self._fallback = fallback
        self._tell_unshared = unshared
        self._instead: Receiver | None = None  # the fallback, once it is used
        self._unsupported = ""
        self._deliver: Deliver | None = None
        self._deliver_again: DeliverAgain | None = None
        self._client: Client | None = None
        self._followed: ClientChannel | None = None
        self._prober: Newest | None = None
        self._reader: UpdateReader | None = None
        self._identity = b""
        self.source = self.first_source = ""
        self._return: Return | None = None  # how it came back, until the first object
        self._connected = False
        self._refusal = ""
        self._received = self._errors = self._past_overruns = 0
        self._delivering = False

    def start(self, deliver: Deliver, deliver_again: DeliverAgain | None = None) -> None:
        self._deliver, self._deliver_again = deliver, deliver_again
        self._client = Client()
        self._followed = self._client.channel(self.channel)
        self._followed.monitor(self._request, self)

    # -- the client's thread ---------------------------------------------------------------------

    def began(self, kind: Structure, known: Incoming, identity: bytes) -> None:
        """The monitor is set up."""
        self._forget_reader()
        try:
            self._reader = UpdateReader(kind, known)
        except ObjectError as error:
            self._cannot_hold(error)
            return
        other = self._identity not in (b"", identity)
        if self._return is not None and self._return.anew is None:
            # No object has come since another one came.
            other = True
        self._return = Return(anew=None if other else False) if self._was_connected else None
        self._identity, self._refusal = identity, ""
        self.source = f"pva {identity.hex()}" if identity else ""
        self.first_source = self.first_source or self.source
        self._connected = self._was_connected = True
        _log.info("channel %s is connected", self.channel)

    def _cannot_hold(self, error: ObjectError) -> None:
        if not self._unsupported:
            self._unsupported = str(error)
            if self._fallback is None:
                self._errors += 1
                _log.error("channel %s: %s", self.channel, error)
            else:
                _log.warning("channel %s goes to the binding: %s", self.channel, error)

    def update(self, payload: Sequence[Buffer], big: bool) -> None:
        """An update has come."""
        reader, deliver = self._reader, self._deliver
        if reader is None or deliver is None:
            return
        try:
            obj = reader.read(payload, big)
        except WireError:
            # What follows cannot be read either: the connection ends.
            raise
        except Exception as error:
            self._note(error)
            return
        self._delivering = True
        self._received += 1
        try:
            if self._return is None:
                deliver(obj)
            else:
                how, self._return = self._return, None
                self._deliver_again(obj, how) if self._deliver_again else deliver(obj)
        except Exception as error:
            # It must not end the connection.
            self._note(error)
        self._delivering = False

    def _note(self, error: Exception) -> None:
        self._errors += 1
        _log.error(
            "channel %s: an object could not be delivered: %s", self.channel, error, exc_info=error
        )

    def refused(self, reason: str) -> None:
        """The server does not give this monitor."""
        if reason != self._refusal:
            self._errors += 1
            _log.error(
                "channel %s: the server refuses the monitor %s: %s",
                self.channel,
                self._request,
                reason,
            )
        self._refusal = reason
        self._connected = False

    def unshared(self, reason: str) -> None:
        """The server has no distributor."""
        self._connected = False
        if self._tell_unshared is not None:
            self._tell_unshared(reason)
            return
        self.refused(reason)

    def lost(self, reason: str) -> None:
        """The channel is gone."""
        if self._connected:
            _log.info("channel %s is gone: %s", self.channel, reason)
        self._connected = False

    def _forget_reader(self) -> None:
        if self._reader is not None:
            self._past_overruns += self._reader.overruns
        self._reader = None

    # -- called by the owner ---------------------------------------------------------------------

    def keep_up(self) -> None:
        if self._instead is not None:
            self._instead.keep_up()
        elif self._unsupported and self._fallback is not None and self._deliver is not None:
            self._end()
            # The binding does not say which server it is connected to.
            self.source = ""
            self._instead = self._fallback()
            self._instead.start(self._deliver, self._deliver_again)

    def stop(self, patience: float = 0.0) -> Sequence[StreamObject]:
        if self._instead is not None:
            return self._instead.stop(patience)
        self._deliver_rest(time.monotonic() + patience)
        self._deliver = None
        self._end()
        self._connected = False
        return []

    def _deliver_rest(self, deadline: float) -> None:
        """Wait until what has come by now is delivered; of what comes later, only a part is."""
        client, link = self._client, self._followed and self._followed.link
        if client is None or link is None:
            return
        came = link.came
        while link.taken < came and not link.closed and time.monotonic() < deadline:
            time.sleep(_LOOK)
        delivered = threading.Event()
        # After the objects that were read at once.
        client.call(delivered.set)
        delivered.wait(max(0.0, deadline - time.monotonic()))

    def _end(self) -> None:
        if self._prober is not None:
            self._prober.close()
            self._prober = None
        client, self._client = self._client, None
        if client is None:
            return
        client.stop()
        end = time.monotonic() + _LAST_DELIVERY
        while self._delivering and time.monotonic() < end:
            time.sleep(0.01)
        if self._delivering:
            _log.error(
                "channel %s: an object is still being processed after %g s",
                self.channel,
                _LAST_DELIVERY,
            )

    def counts(self) -> ReceiverCounts:
        # In this order: while a reader is replaced, too few may show, but none twice.
        overruns, reader = self._past_overruns, self._reader
        if reader is not None:
            overruns += reader.overruns
        counts = ReceiverCounts(self._received, overruns, self._errors)
        return counts if self._instead is None else counts.plus(self._instead.counts())

    @property
    def connected(self) -> bool:
        """Whether the channel is there."""
        return self._instead.connected if self._instead is not None else self._connected

    @property
    def was_connected(self) -> bool:
        """Whether it has ever been there."""
        return self._instead.was_connected if self._instead is not None else self._was_connected

    @property
    def problem(self) -> str:
        """Why nothing comes; "" if nothing is known."""
        if self._instead is not None or (self._unsupported and self._fallback is not None):
            return ""
        if self._refusal:
            return f"the server refuses the monitor {self._request}: {self._refusal}"
        return self._unsupported

    def newest(self, timeout: float) -> StreamObject | None:
        if self._instead is not None:
            return self._instead.newest(timeout)
        if not self._connected:
            return None
        if self._prober is None:
            # Not of our client, whose thread may be busy with an object.
            self._prober = Newest(self.channel, self._probe)
        try:
            return pv_object(self._prober.get(timeout))
        except (TransportError, ObjectError) as error:
            _log.debug("channel %s: the newest object is not known: %s", self.channel, error)
        return None
