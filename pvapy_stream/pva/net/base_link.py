"""A TCP connection on which messages are read and written. Used by one thread at a time."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import selectors
import socket
import sys
import termios
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

from pvapy_stream import bursts
from pvapy_stream.errors import WireError
from pvapy_stream.pva.wire.buffers import Buffer
from pvapy_stream.pva.wire.limits import DEFAULT, Limits
from pvapy_stream.pva.wire.stream import Assembler, StreamMessage

MUCH = 2**20  # bytes that wait to be sent
AT_ONCE = 128  # buffers
_READS = 8  # in a row, before others have their turn
_DISCARDED = 2**16  # bytes
_LOOK = 0.002  # s; between two looks whether all has arrived

_log = logging.getLogger(__name__)

Watch = Callable[[socket.socket, int, Callable[[int], None]], None]


class Link:
    """Reads messages, and sends what is enqueued as soon as the peer takes it.

    Args:
        watch: as `Loop.watch`.
        link: does not block.
        peer: who it is, for messages.
        limits: of what is read.

    Attributes:
        enqueued: bytes that were enqueued since the beginning.
        sent: bytes of these that were given to the kernel.
        taken: bytes that were read since the beginning.
        read_at: when something came, or reading began again, s of `time.monotonic`.
        sent_at: when something was sent, or began to wait.
        events: that are watched.
    """

    def __init__(
        self, watch: Watch, link: socket.socket, peer: str, limits: Limits = DEFAULT
    ) -> None:
        self.link = link
        self.peer = peer
        self.enqueued = self.sent = self.taken = 0
        self.read_at = self.sent_at = time.monotonic()
        self.events = 0
        self.assembler = Assembler(limits)
        self.closed = False
        self._watch_socket = watch
        self._out: deque[Buffer] = deque()
        self._takes = True

    # -- what derived classes say ----------------------------------------------------------------

    def take(self, found: StreamMessage) -> None:
        """A message has come."""
        raise NotImplementedError

    def ended(self, reason: str) -> None:
        """It is closed."""

    @property
    def busy(self) -> bool:
        """Whether the peer has to wait before more of it is read."""
        return False

    @property
    def eager(self) -> bool:
        """Whether there is more to send than what is enqueued."""
        return False

    def fill(self) -> None:
        """There is room: enqueue more."""

    def not_taken(self, reason: str) -> None:
        """The peer takes nothing more."""
        self.close(reason)

    # -- bytes -----------------------------------------------------------------------------------

    @property
    def unsent(self) -> bool:
        """Whether something was enqueued and not sent."""
        return bool(self._out)

    @property
    def waiting(self) -> int:
        """Bytes that were enqueued and not sent."""
        return self.enqueued - self.sent

    @property
    def arrived(self) -> bool:
        """Whether the peer's host has all that was given to the kernel."""
        return self.closed or not _under_way(self.link)

    @property
    def came(self) -> int:
        """Bytes that have come so far, those too that were not read; for any thread."""
        with contextlib.suppress(OSError, ValueError):
            return self.taken + _count(self.link, termios.FIONREAD)
        # It is closed.
        return self.taken

    def only_read(self) -> None:
        """Send nothing more, and read what the peer had sent before it went."""
        self._takes = False
        self._out.clear()

    def close(self, reason: str) -> None:
        """End the connection."""
        if self.closed:
            return
        self.closed = True
        _log.debug("%s: connection closed: %s", self.peer, reason)
        self._watch_socket(self.link, 0, self.handle)
        self.link.close()
        self.ended(reason)
        self._out.clear()

    def handle(self, events: int) -> None:
        """Read and write what can be; close the connection at anything that is wrong."""
        if self.closed:
            return
        try:
            if events & selectors.EVENT_READ:
                self._read()
            if events & selectors.EVENT_WRITE and not self.closed:
                self._write()
        except WireError as error:
            _log.warning("%s: %s; its connection is closed", self.peer, error)
            self.close(str(error))
        except OSError as error:
            self.close(str(error))
        except Exception as error:
            _log.exception("%s: its connection is closed", self.peer)
            self.close(f"{type(error).__name__}: {error}")

    def enqueue(self, parts: list[Buffer]) -> None:
        """Send bytes, as soon as the peer takes them; they must not change until then."""
        if self.closed:
            return
        self.keep(parts, sum(map(len, parts)))
        self.watch()

    def keep(self, parts: list[Buffer], size: int) -> None:
        """Have bytes sent after those that wait."""
        self.enqueued += size
        if not self._takes:
            return
        if not self._out:
            self.sent_at = time.monotonic()
        self._out += parts

    def _read(self) -> None:
        for _ in range(_READS):
            space = self.assembler.space()
            try:
                count = self.link.recv_into(space)
            except BlockingIOError:
                return
            if not count:
                self.close("the peer has closed it")
                return
            self.taken += count
            self.read_at = time.monotonic()
            self._take_all(self.assembler.received(count))
            if self.closed:
                return
            # What was done with it may have taken long: the peer was not silent meanwhile.
            self.read_at = time.monotonic()
            if self.busy or count < len(space):
                # That was all there is.
                break
        self.watch()

    def _take_all(self, found: list[StreamMessage]) -> None:
        together = len(found) > 1
        if together:
            bursts.begin()
        try:
            for one in found:
                self.take(one)
                if self.closed:
                    return
        finally:
            if together:
                bursts.end()

    def _write(self) -> None:
        while True:
            self.fill()
            if not self._out:
                break
            first = list(islice(self._out, AT_ONCE))
            try:
                sent = self.link.sendmsg(first)
            except BlockingIOError:
                break
            except OSError as error:
                self.not_taken(str(error))
                break
            self.sent_at = time.monotonic()
            self.sent += sent
            if self.sent == self.enqueued:
                self._out.clear()
                continue
            while sent:
                part = self._out.popleft()
                if sent < len(part):
                    self._out.appendleft(memoryview(part)[sent:])
                    break
                sent -= len(part)
        self.watch()

    def watch(self) -> None:
        """Watch for what is wanted now."""
        if self.closed:
            return
        events = 0 if self.busy else selectors.EVENT_READ
        if self._out or self.eager:
            events |= selectors.EVENT_WRITE
        if events != self.events:
            if events & selectors.EVENT_READ and not self.events & selectors.EVENT_READ:
                self.read_at = time.monotonic()
            self.events = events
            self._watch_socket(self.link, events, self.handle)


def after(parts: list[Buffer], sent: int) -> list[Buffer]:
    """What is left of the parts of a message when so many bytes are sent."""
    for number, part in enumerate(parts):
        if sent < len(part):
            return [memoryview(part)[sent:], *parts[number + 1 :]]
        sent -= len(part)
    return []


def keep_alive(link: socket.socket) -> None:
    """Let the kernel notice, within half a minute, that a peer's host has gone."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        link.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def let_arrive(links: Iterable[socket.socket], seconds: float) -> None:
    """Wait, before connections are closed, until the hosts of the peers have what was sent.

    Of a connection that is closed, the kernel throws away what has not arrived as soon as the peer
    sends something, such as an acknowledgement of what came before.

    Args:
        links: do not block; nobody reads from them any more.
        seconds: longest wait.
    """
    deadline = time.monotonic() + seconds
    left = [one for one in links if not _needs_nothing(one)]
    while left and time.monotonic() < deadline:
        time.sleep(_LOOK)
        left = [one for one in left if not _needs_nothing(one)]


def _needs_nothing(link: socket.socket) -> bool:
    try:
        while link.recv(_DISCARDED):
            pass
    except BlockingIOError:
        return not _under_way(link)
    except OSError:
        # It is broken.
        return True
    return True


def _under_way(link: socket.socket) -> int:
    """Bytes that the kernel has, and the peer's kernel has not."""
    return _count(link, termios.TIOCOUTQ)


def _count(link: socket.socket, what: int) -> int:
    return int.from_bytes(fcntl.ioctl(link, what, bytes(4)), sys.byteorder)
