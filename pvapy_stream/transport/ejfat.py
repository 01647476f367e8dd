"""EJFAT mode, experimental: objects as UDP datagrams between programs of this package.

There is no load balancer. `ejfat_wire` defines the datagrams. An event is an object's serialized
form (`pva.serial`); reading it executes nothing. Those of PvaPy are pickled.
"""

from __future__ import annotations

import contextlib
import io
import logging
import pickle
import random
import select
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import asdict
from typing import Any

import pvaccess as pva
from msgspec.structs import replace

from pvapy_stream.errors import ObjectError, SettingsError, TransportError
from pvapy_stream.pva import serial
from pvapy_stream.pva.lazy import StreamObject
from pvapy_stream.pva.net.client_errors import NotSentError
from pvapy_stream.transport.ejfat_settings import EjfatInputSettings, EjfatOutputSettings
from pvapy_stream.transport.ejfat_wire import (
    HEADERS,
    LONGEST,
    Reassembler,
    ReassemblyLimits,
    datagrams,
)
from pvapy_stream.transport.hosted_receiver import ServingReceiver
from pvapy_stream.transport.ports import ReceiverCounts
from pvapy_stream.transport.remote import RemotePublisher

_IP_AND_UDP = {socket.AF_INET: 28, socket.AF_INET6: 48}  # bytes of headers
_LARGEST = 65536  # bytes of a datagram
_TICK = 0.05  # s
_BURST = 512  # datagrams between two checks of the time
_PACED = 16  # datagrams that are sent together if the rate is limited
# Linux: statistics of a socket, of which the last number counts dropped datagrams.
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("9I")
_PICKLED = b"\x80"

_log = logging.getLogger(__name__)


class EjfatPublisher(RemotePublisher):
    """Sends each object to one receiver. As always with UDP, it is not known whether it arrives.

    Only a host that reports that no program listens is detected: then the object is sent again.

    Args:
        channel: EJFAT URI, or anything when `args` has one.
        args: arguments of the output.
        limit: longest time for which an object is retried, s.
        number: of the stage; it may be added to the port.

    Raises:
        SettingsError: there is no usable URI, or no ``data=`` in it.
        TransportError: its host is unknown or cannot be reached.
    """

    def __init__(self, channel: str, args: EjfatOutputSettings, limit: float, number: int) -> None:
        host, port = args.data_address(channel)
        if not host:
            raise SettingsError(f"the EJFAT URI of an output needs data=HOST:PORT: {channel}")
        port += number if args.add_processor_id_to_port else 0
        where = f"{host}:{port}"
        super().__init__(channel, f"cannot send to {where}", limit)
        _warn_of_unknown("output", args)
        self._socket, address = _open_socket(host, port, where)
        # Connected: the system reports if no program listens.
        try:
            self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise TransportError(f"cannot send to {where}: {error.strerror}") from error
        _set_buffer(self._socket, socket.SO_SNDBUF, args.snd_socket_buf_size)
        self._payload = args.mtu - _IP_AND_UDP[self._socket.family] - HEADERS
        self._data_id = args.data_id
        self._writer = serial.ObjectWriter()
        # Later than the numbers of any earlier process with the same port.
        self._number = time.time_ns() // 1000
        self._seconds_per_byte = 8 / (args.rate_gbps * 1e9) if args.rate_gbps > 0 else 0.0
        self._due = 0.0

    def _send(self, obj: pva.PvObject, patience: float) -> None:
        event = self._event_of(obj)
        entropy = random.getrandbits(16)
        sent = datagrams(event, self._data_id, self._number, self._payload, entropy)
        try:
            for count, (headers, segment) in enumerate(sent):
                if self._seconds_per_byte and count % _PACED == 0:
                    self._keep_rate()
                self._due += self._seconds_per_byte * (len(headers) + len(segment))
                self._socket.sendmsg((headers, segment))
            error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except OSError as problem:
            raise NotSentError(_why(problem)) from problem
        if error:
            raise NotSentError(_why(OSError(error, "")))
        self._number += 1

    def _event_of(self, obj: pva.PvObject) -> bytes:
        try:
            event = b"".join(self._writer.parts(obj))
            if len(event) > LONGEST:
                raise ObjectError(f"{len(event)} bytes are more than the {LONGEST} of an event")
        except ObjectError as error:
            # Another attempt would fail too.
            raise TransportError(f"cannot send an object by {self.channel}: {error}") from error
        return event

    def _keep_rate(self) -> None:
        now = time.monotonic()
        if self._due > now:
            time.sleep(self._due - now)
        else:
            self._due = now

    def stop(self) -> None:
        super().stop()
        self._socket.close()


class EjfatReceiver(ServingReceiver):
    """Receives datagrams at a port, and delivers the objects that they contain.

    Args:
        channel: EJFAT URI, or anything when `args` has one.
        args: arguments of the input.
        number: of the stage; it may be added to the port.

    Raises:
        SettingsError: there is no usable URI.
        TransportError: the port cannot be opened.
    """

    def __init__(self, channel: str, args: EjfatInputSettings, number: int) -> None:
        super().__init__(channel)
        host, _ = args.data_address(channel)
        host = args.ip_address or host or socket.gethostname()
        port = args.port + (number if args.add_processor_id_to_port else 0)
        self._where = f"{host}:{port}"
        self._args = args
        most = max(1, args.buffer_cache_size)
        limits = ReassemblyLimits(
            args.max_event_size, args.max_memory, most, args.event_timeout_ms / 1000
        )
        self._reassembler = Reassembler(limits)
        self._most = most
        _warn_of_unknown("input", args)
        self._socket, address = _open_socket(host, port, self._where)
        _set_buffer(self._socket, socket.SO_RCVBUF, args.rcv_socket_buf_size)
        self._socket.setblocking(False)
        try:
            self._socket.bind(address)
        except OSError as error:
            self._socket.close()
            raise TransportError(
                f"cannot receive at {self._where}: {error.strerror}; give another port or"
                ' ipAddress, or "addProcessorIdToPort": 1, in --input-args'
            ) from error
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._news = threading.Condition()
        self._ending = threading.Event()
        self._deadline = float("inf")
        self._threads: list[threading.Thread] = []
        self._told: set[str] = set()

    def _open(self) -> None:
        self._threads = [
            threading.Thread(target=work, name=f"ejfat-{self._where}", daemon=True)
            for work in (self._receive, self._deliver_all)
        ]
        for thread in self._threads:
            thread.start()

    # -- the receiving thread --------------------------------------------------------------------

    def _receive(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while True:
            ending = self._ending.is_set()
            now = time.monotonic()
            more = self._receive_burst(now)
            self._queue(self._reassembler.expire(now))
            if ending and (not more or now >= self._deadline):
                break
            if not more:
                poll.poll(_TICK * 1000)
        self._queue(self._reassembler.flush())
        with self._news:
            self._news.notify()

    def _receive_burst(self, now: float) -> bool:
        """Read the socket; returns whether there may be more."""
        for _ in range(_BURST):
            try:
                datagram, source = self._socket.recvfrom(_LARGEST)
            except BlockingIOError:
                return False
            self._queue(self._reassembler.take(datagram, source, now))
        return True

    def _queue(self, events: list[bytes]) -> None:
        for event in events:
            with self._news:
                # One event of the largest allowed size always fits.
                full = len(self._waiting) >= self._most or (
                    self._waiting and self._waiting_bytes + len(event) > self._args.max_memory
                )
                if full:
                    self._reassembler.drops.queue_full += 1
                    continue
                self._waiting.append(event)
                self._waiting_bytes += len(event)
                self._news.notify()

    # -- the delivering thread -------------------------------------------------------------------

    def _deliver_all(self) -> None:
        while time.monotonic() < self._deadline:
            with self._news:
                if not self._waiting:
                    if not self._threads[0].is_alive():
                        return
                    self._news.wait(_TICK)
                    continue
                event = self._waiting.popleft()
                self._waiting_bytes -= len(event)
            obj = self._object_of(event)
            if obj is not None:
                self._take(obj)

    def _object_of(self, event: bytes) -> pva.PvObject | None:
        try:
            if event[:1] != _PICKLED:
                return serial.loads(event)
            if self._args.allow_pickled:
                return _Unpickler(io.BytesIO(event)).load_object()
            problem = (
                "an object is pickled, as PvaPy's are; to accept them from senders that you trust,"
                ' give {"allowPickled": 1} in --input-args'
            )
        except ObjectError as error:
            problem = str(error)
        self._reassembler.drops.refused += 1
        if problem not in self._told and len(self._told) < 10:
            self._told.add(problem)
            _log.error("%s: an object is refused: %s", self._where, problem)
        return None

    # -- the contract ----------------------------------------------------------------------------

    def stop(self, patience: float = 0.0) -> list[StreamObject]:
        self._deadline = time.monotonic() + patience
        self._ending.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(patience + 10 * _TICK)
        super().stop(patience)
        with self._news:
            left, self._waiting = self._waiting, deque()
        return [obj for obj in map(self._object_of, left) if obj is not None]

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            self._count_socket_drops()
            self._tell_drops()
            self._socket.close()

    def keep_up(self) -> None:
        self._count_socket_drops()
        self._tell_drops()

    def _count_socket_drops(self) -> None:
        with contextlib.suppress(OSError):
            found = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
            self._reassembler.drops.socket = _MEMINFO.unpack(found)[-1]

    def _tell_drops(self) -> None:
        """Log the first drop of each policy; the status has the numbers."""
        for policy, count in asdict(self._reassembler.drops).items():
            if count and policy not in self._told:
                self._told.add(policy)
                _log.warning(
                    "%s: %d dropped (%s); further ones are counted in dropStats of the status"
                    " channel",
                    self._where,
                    count,
                    policy,
                )

    def counts(self) -> ReceiverCounts:
        drops = asdict(self._reassembler.drops)
        objects = ("unfinished", "evicted", "overlapping", "queue_full", "refused")
        rejected = sum(drops[policy] for policy in objects)
        return replace(super().counts(), rejected=rejected, drops=drops)


class _Unpickler(pickle.Unpickler):
    """Reads pickled PvObjects, and calls only functions that these need."""

    _NUMPY = frozenset({"_reconstruct", "ndarray", "dtype", "scalar"})

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of this name, if PvObjects need it."""
        top = module.partition(".")[0]
        found: object = None
        if top == "pvaccess":
            found = getattr(pva, name, None)
            if not (isinstance(found, type) and issubclass(found, (pva.PvObject, pva.ScalarType))):
                found = None
        elif top == "numpy" and name in self._NUMPY:
            found = super().find_class(module, name)
        if found is None:
            raise ObjectError(f"it is pickled and needs {module}.{name}, which is not allowed")
        return found

    def load_object(self) -> pva.PvObject:
        """The `pvaccess.PvObject`.

        Raises:
            ObjectError: it is not a PvObject.
        """
        try:
            obj = self.load()
        except ObjectError:
            raise
        except Exception as error:
            # A pickle may raise any exception of the functions that it calls.
            raise ObjectError(f"it is pickled, and cannot be read ({error})") from error
        if not isinstance(obj, pva.PvObject):
            raise ObjectError(f"it is pickled, and is not a PvObject but {type(obj).__name__}")
        return obj


def _open_socket(host: str, port: int, where: str) -> tuple[socket.socket, Any]:
    """A UDP socket, and the address for it."""
    try:
        if port > 65535:
            raise OSError("ports end at 65535")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        family, kind, _, _, address = found[0]
        return socket.socket(family, kind), address
    except OSError as error:
        raise TransportError(
            f"there is no address {where} ({error}); check data= of the EJFAT URI, or ipAddress"
        ) from error


def _set_buffer(made: socket.socket, option: int, size: int) -> None:
    made.setsockopt(socket.SOL_SOCKET, option, size)
    got = made.getsockopt(socket.SOL_SOCKET, option) // 2
    if got < size:
        name = "wmem_max" if option == socket.SO_SNDBUF else "rmem_max"
        _log.warning(
            "a socket buffer has %d of the requested %d bytes; raise net.core.%s", got, size, name
        )


def _why(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "no receiver listens there; start the receiver, or check data= of the EJFAT URI"
    return f"{error}; an mtu beyond that of the network is one cause"


def _warn_of_unknown(role: str, args: EjfatInputSettings | EjfatOutputSettings) -> None:
    if args.unknown:
        _log.warning("--%s-args: %s has no effect", role, ", ".join(args.unknown))
