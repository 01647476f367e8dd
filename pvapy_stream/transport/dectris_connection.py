"""The connection to a DECTRIS detector: a ZeroMQ socket that pulls its messages.

A detector sends each message to only one of its clients. So receivers of one program that have
different thresholds share a connection: each gets every message.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from typing import Any, Protocol

import zmq
from zmq.utils.monitor import recv_monitor_message

from pvapy_stream.dectris.messages import Message, read_message
from pvapy_stream.errors import DectrisError, TransportError

_TICK = 50  # ms
_ENDS = 5.0  # s; minimum time for an object in delivery at the end
_LONG = 10.0  # s; a receiver that takes longer to start, or for a message, holds up the others
_UP = zmq.EVENT_HANDSHAKE_SUCCEEDED
_DOWN = zmq.EVENT_DISCONNECTED

_log = logging.getLogger(__name__)


class Member(Protocol):
    """A receiver of one threshold, as its connection uses it.

    Attributes:
        threshold: its threshold; "" if it has the first one.
    """

    threshold: str

    def take(self, message: Message) -> None:
        """A message has come.

        Raises:
            DectrisError: it cannot be used.
        """
        ...

    def refuse(self, text: str, kind: str = "") -> None:
        """A message has come that cannot be used."""
        ...

    def lose(self) -> None:
        """A connection was lost."""
        ...

    def look_at_silence(self, heard: float) -> None:
        """Nothing comes now; the last message came at this time of the monotonic clock."""
        ...

    def collect(self) -> None:
        """What comes from now on is returned by its stop, and not delivered."""
        ...

    def end(self) -> None:
        """Nothing comes any more."""
        ...


class Seat:
    """What a connection knows of one member.

    Attributes:
        started: whether the member wants messages.
        deadline: when it wants no more, by the monotonic clock.
        quota: messages that it still collects after that.
        collects: whether it does.
        busy: held while the member is called.
        left: set when it is called no more.
    """

    __slots__ = ("busy", "collects", "deadline", "left", "member", "quota", "started")

    def __init__(self, member: Member, quota: int) -> None:
        self.member = member
        self.started = self.collects = False
        self.deadline = math.inf
        self.quota = quota
        # Not a plain lock: a member may stop while it takes a message.
        self.busy = threading.RLock()
        self.left = threading.Event()


class DectrisConnection:
    """Receives from an address, and passes each message to all members, in one thread.

    Nothing is received before all members have started, so that each gets what the others get.

    Args:
        address: ``tcp://HOST:PORT``.
        queue: messages that wait here.
        max_message_size: in bytes.

    Attributes:
        closed: whether it has no members any more.
        connections: connections that are open.
        was_connected: whether there was ever one.

    Raises:
        TransportError: the address cannot be used.
    """

    def __init__(self, address: str, queue: int, max_message_size: int) -> None:
        self._address = address
        self._limits = (queue, max_message_size)
        self._socket: Any = zmq.Context.instance().socket(zmq.PULL)
        self._socket.linger = 0
        self._socket.rcvhwm = queue
        self._socket.maxmsgsize = max_message_size
        # A detector that has lost its network is noticed.
        self._socket.tcp_keepalive = 1
        self._events: Any = self._socket.get_monitor_socket(_UP | _DOWN)
        self._seats: tuple[Seat, ...] = ()
        self._began = False
        self._heard = 0.0
        self._taking: Seat | None = None
        # When it began to take a message; before there are any, when the last member joined.
        self._since = 0.0
        self.closed = False
        self.connections = 0
        self.was_connected = False
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self._close()
            raise TransportError(f"no usable address ({error})") from error
        self._thread = threading.Thread(target=self._run, name=f"dectris {address}", daemon=True)

    # -- members ---------------------------------------------------------------------------------

    def join(self, member: Member, queue: int, max_message_size: int) -> Seat:
        """Add a member, before messages come; with the lock held.

        Raises:
            TransportError: it cannot share the connection.
        """
        others = [seat.member.threshold for seat in self._seats]
        problem = ""
        if others and (not member.threshold or {"", member.threshold} & {*others}):
            problem = "each with another threshold, tcp://HOST:PORT?threshold=NAME"
        elif self._began:
            problem = "all of them before messages come, such as in one mirror"
        elif others and (queue, max_message_size) != self._limits:
            problem = "all with the same queue and maxMessageSize"
        if problem:
            raise TransportError(
                f"this program already receives from {self._address}, which sends each message"
                f" to only one client; several receivers can share it, {problem}; or give one"
                " entry or stage for a detector, and let others receive from its output"
            )
        seat = Seat(member, queue)
        self._since = time.monotonic()
        self._seats = (*self._seats, seat)
        return seat

    def start(self, seat: Seat) -> None:
        """Pass messages to a member, once all members have started."""
        with _lock:
            seat.started = True
            if not self._thread.ident:
                self._thread.start()

    def stop(self, seat: Seat, patience: float) -> bool:
        """Pass waiting messages to a member for at most `patience` s, and then nothing more.

        Returns:
            whether nothing is passed to it any more.
        """
        with _lock:
            seat.deadline = time.monotonic() + patience
            runs = self._thread.is_alive()
        if not runs or self._is_receiving_thread:
            self._dismiss(seat)
        elif not seat.left.wait(patience + _ENDS):
            # The thread is held up, by this member or by another one.
            if not seat.busy.acquire(blocking=False):
                # It leaves when it has taken its object.
                seat.quota = 0
                return False
            try:
                self._dismiss(seat)
            finally:
                seat.busy.release()
        return True

    def _dismiss(self, seat: Seat) -> None:
        """Call a member no more."""
        with seat.busy:
            with _lock:
                if seat not in self._seats:
                    return
                self._seats = tuple(one for one in self._seats if one is not seat)
                self.closed = not self._seats
            seat.member.end()
        if self.closed and (self._is_receiving_thread or not self._thread.is_alive()):
            # Before it counts as gone: messages may still go to an open socket.
            self._close()
        seat.left.set()

    @property
    def _is_receiving_thread(self) -> bool:
        return self._thread is threading.current_thread()

    def _close(self) -> None:
        self.closed = True
        self.connections = 0
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._events.close(0)
            self._socket.close(0)

    def hindrance(self, seat: Seat) -> str:
        """Why a member gets nothing, if other members are the reason; else ""."""
        taking, long = self._taking, time.monotonic() - self._since
        if long < _LONG:
            return ""
        if waits := [one.member.threshold for one in self._seats if not one.started]:
            return f"nothing is received before the receiver of {', '.join(waits)} has started"
        if taking is None or taking is seat:
            return ""
        return (
            f"the receiver of {taking.member.threshold}, which shares the connection, has not"
            f" taken its object for {long:.0f} s"
        )

    @property
    def _all_started(self) -> bool:
        return all(seat.started for seat in self._seats)

    # -- the receiving thread --------------------------------------------------------------------

    def _run(self) -> None:
        events, both = zmq.Poller(), zmq.Poller()
        for poller in (events, both):
            poller.register(self._events, zmq.POLLIN)
        both.register(self._socket, zmq.POLLIN)
        try:
            while seats := self._seats:
                leaving = [seat for seat in seats if seat.deadline < math.inf]
                # Also at the end: what was sent last is still on its way.
                timeout = 0 if any(seat.collects for seat in leaving) else _TICK
                poller = both if self._began or self._all_started else events
                ready = dict(poller.poll(timeout))
                if self._socket in ready:
                    self._receive()
                elif self._events in ready:
                    # After all messages: those before the end of a connection belong to it.
                    self._note_connection()
                else:
                    self._look_at_silence()
                for seat in leaving:
                    self._let_go(seat, bool(ready))
        finally:
            self._close()

    def _let_go(self, seat: Seat, came: bool) -> None:
        """Dismiss a member that has all, or whose time is over: then it first collects."""
        if seat.collects:
            seat.quota -= 1
        elif time.monotonic() >= seat.deadline:
            seat.collects = True
            seat.member.collect()
        if not came or seat.quota <= 0:
            self._dismiss(seat)

    def _receive(self) -> None:
        if not self._began:
            with _lock:
                if not self._all_started:
                    return
                self._began = True
        try:
            message = self._socket.recv(zmq.NOBLOCK)
            more = self._socket.rcvmore
            while self._socket.rcvmore:
                self._socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return
        self._heard = time.monotonic()
        while not self.connections and self._events.poll(0):
            # A stream without pauses would keep it waiting.
            self._note_connection()
        self.was_connected = True
        self._pass_on(message, bool(more))

    def _pass_on(self, message: bytes, several_parts: bool) -> None:
        try:
            if several_parts:
                raise DectrisError(
                    "the message has several parts, as those of Stream V1; set the format of the"
                    " detector's stream to cbor"
                )
            read = read_message(message)
        except Exception as error:  # one message must not end the stream
            for seat in self._seats:
                self._refuse(seat.member, message, error)
            return
        for seat in self._seats:
            with seat.busy:
                if seat.quota <= 0 or seat not in self._seats:
                    continue
                self._since = time.monotonic()
                self._taking = seat
                try:
                    seat.member.take(read)
                except Exception as error:  # one message must not end the stream
                    self._refuse(seat.member, message, error)
                self._taking = None

    def _refuse(self, member: Member, message: bytes, error: Exception) -> None:
        if isinstance(error, DectrisError):
            member.refuse(f"a message of {len(message)} bytes is refused: {error}", str(error))
            return
        member.refuse(f"a message cannot be processed: {type(error).__name__}: {error}")
        _log.debug("address %s", self._address, exc_info=error)

    def _note_connection(self) -> None:
        event = recv_monitor_message(self._events, zmq.NOBLOCK)["event"]
        if event == _UP:
            self.connections += 1
            self.was_connected = True
            _log.info("%s is connected", self._address)
        elif event == _DOWN:
            # Before it counts as lost: then it is known what is missing.
            for seat in self._seats:
                with seat.busy:
                    seat.member.lose()
            self.connections = max(0, self.connections - 1)

    def _look_at_silence(self) -> None:
        for seat in self._seats:
            with seat.busy:
                seat.member.look_at_silence(self._heard)


# Those of this process by address: a second one would take messages from the first.
_connections: weakref.WeakValueDictionary[str, DectrisConnection] = weakref.WeakValueDictionary()
_lock = threading.Lock()  # held while members join, start or leave


def joined(
    member: Member, address: str, queue: int, max_message_size: int
) -> tuple[DectrisConnection, Seat]:
    """The connection of this process to an address, and the seat of one more member.

    Raises:
        TransportError: the address cannot be used, or the connection not be shared.
    """
    with _lock:
        found = _connections.get(address)
        if found is None or found.closed:
            found = _connections[address] = DectrisConnection(address, queue, max_message_size)
        return found, found.join(member, queue, max_message_size)
