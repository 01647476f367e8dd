"""The connection to a DECTRIS detector: a ZeroMQ socket that pulls its messages.

A detector sends each message to only one of its clients. So receivers of one program that have
different thresholds share a connection: each gets every message.
"""

from __future__ import annotations

import logging
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
_UP = zmq.EVENT_HANDSHAKE_SUCCEEDED
_DOWN = zmq.EVENT_DISCONNECTED

_log = logging.getLogger(__name__)


class Member(Protocol):
    """A receiver of one threshold, as its connection uses it, in the receiving thread.

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


class DectrisConnection:
    """Receives from an address, and passes each message to all members, in one thread.

    Args:
        address: ``tcp://HOST:PORT``.
        queue: messages that wait here.
        max_message_size: in bytes.

    Attributes:
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
        self.closed = False
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self._close()
            raise TransportError(f"no usable address ({error})") from error
        # Held while a message is passed on: a member that left gets nothing more.
        self._passing = threading.RLock()
        self._members: tuple[Member, ...] = ()
        self._started: set[int] = set()
        self._began = False
        self._idle = 0  # how often nothing had come
        self._heard = 0.0
        self.connections = 0
        self.was_connected = False
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"dectris {address}", daemon=True)

    def join(self, member: Member, queue: int, max_message_size: int) -> None:
        """Add a member, before messages come.

        Raises:
            TransportError: it cannot share the connection.
        """
        with self._passing:
            others = [one.threshold for one in self._members]
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
            self._members = (*self._members, member)

    def start(self, member: Member) -> None:
        """Pass messages to a member; none is received before all members want them."""
        with self._passing:
            self._started.add(id(member))
            self._start_if_complete()

    def _start_if_complete(self) -> None:
        ready = all(id(one) in self._started for one in self._members)
        if self._members and ready and not self._thread.ident:
            self._thread.start()

    def stop(self, member: Member, patience: float) -> bool:
        """Pass waiting messages to a member for at most `patience` s, and then nothing more.

        Returns:
            whether nothing is passed to it any more.
        """
        own = self._thread is threading.current_thread()
        with self._passing:
            if member not in self._members:
                return True
            last = len(self._members) == 1
            runs = self._thread.ident is not None
        if last and runs:
            self._deadline = time.monotonic() + patience
            self._stopping.set()
            if not own:
                self._thread.join(patience + _ENDS)
            if self._thread.is_alive():
                return False
        elif runs and not own and patience:
            self._await_idle(time.monotonic() + patience)
        if not self._passing.acquire(timeout=patience + _ENDS):
            return False
        try:
            self._members = tuple(one for one in self._members if one is not member)
            empty = not self._members
            if not last:
                member.end()
                self._start_if_complete()
        finally:
            self._passing.release()
        if empty and not self.closed:
            # All may have left at once.
            self._stopping.set()
            self._deadline = time.monotonic()
            if runs and not own:
                self._thread.join(_ENDS)
            self._close()
        return True

    def _await_idle(self, deadline: float) -> None:
        before = self._idle
        while self._idle == before and time.monotonic() < deadline and self._thread.is_alive():
            time.sleep(_TICK / 1000)

    def _close(self) -> None:
        self.closed = True
        self.connections = 0
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._events.close(0)
            self._socket.close(0)

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
                self._idle += 1
                for member in self._members:
                    member.look_at_silence(self._heard)
            if stopping and time.monotonic() >= self._deadline:
                self._collect()
                break
        for member in self._members:
            member.end()

    def _receive(self) -> None:
        if not self._members:
            # All have left; what is not taken stays at the detector.
            time.sleep(_TICK / 1000)
            return
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
        with self._passing:
            self._began = True
            try:
                if more:
                    raise DectrisError(
                        "the message has several parts, as those of Stream V1; set the format of"
                        " the detector's stream to cbor"
                    )
                read = read_message(message)
            except Exception as error:  # one message must not end the stream
                for member in self._members:
                    self._refuse(member, message, error)
                return
            for member in self._members:
                try:
                    member.take(read)
                except Exception as error:  # one message must not end the stream
                    self._refuse(member, message, error)

    def _refuse(self, member: Member, message: bytes, error: Exception) -> None:
        if isinstance(error, DectrisError):
            member.refuse(f"a message of {len(message)} bytes is refused: {error}", str(error))
            return
        member.refuse(f"a message cannot be processed: {type(error).__name__}: {error}")
        _log.debug("channel %s", self._address, exc_info=error)

    def _note_connection(self) -> None:
        event = recv_monitor_message(self._events, zmq.NOBLOCK)["event"]
        if event == _UP:
            self.connections += 1
            self.was_connected = True
            _log.info("channel %s is connected", self._address)
        elif event == _DOWN:
            self.connections = max(0, self.connections - 1)
            for member in self._members:
                member.lose()

    def _collect(self) -> None:
        """Take messages that wait, as many as the queue has; they are not delivered."""
        for member in self._members:
            member.collect()
        for _ in range(self._limits[0]):
            if not self._socket.poll(0):
                return
            self._receive()


# Those of this process by address: a second one would take messages from the first.
_connections: weakref.WeakValueDictionary[str, DectrisConnection] = weakref.WeakValueDictionary()
_joining = threading.Lock()


def joined(member: Member, address: str, queue: int, max_message_size: int) -> DectrisConnection:
    """The connection of this process to an address, with one more member.

    Raises:
        TransportError: the address cannot be used, or the connection not be shared.
    """
    with _joining:
        found = _connections.get(address)
        if found is None or found.closed:
            found = _connections[address] = DectrisConnection(address, queue, max_message_size)
        found.join(member, queue, max_message_size)
        return found
