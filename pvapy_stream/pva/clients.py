"""Number of clients connected to our own PVA server. Complete on Linux only.

The binding cannot say who monitors a channel, so established TCP connections to the server's port
are counted: one for each client process, however many channels it monitors. A connection counts
once it has been quiet for a moment: the search, the creation of the channel and the first update
are then over, and the monitor is set up.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable

_POLL = 0.05
_QUIET = 0.25
# Where the byte counters cannot be read, clients get this long after the last of them connected.
_SETTLE = 1.0
# struct tcp_info of linux/tcp.h: 8 bytes of flags and 24 32-bit numbers, two 64-bit rates, then
# these two.
_BYTES_ACKED_AND_RECEIVED = struct.Struct("@QQ")
_COUNTERS_AT = 8 + 24 * 4 + 2 * 8

Endpoint = tuple[str, int]


def listening_ports() -> frozenset[int]:
    """TCP ports this process listens on."""
    # Of our own descriptors only: psutil reads all connections of the host, of which there can be
    # thousands.
    found: set[int] = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.stat(int(name)).st_mode):
                continue
            # A duplicate, so that closing it leaves the server's own descriptor open.
            with socket.socket(fileno=os.dup(int(name))) as twin:
                if twin.family in (socket.AF_INET, socket.AF_INET6) and twin.getsockopt(
                    socket.SOL_SOCKET, socket.SO_ACCEPTCONN
                ):
                    found.add(twin.getsockname()[1])
        except OSError:
            # Closed in the meantime.
            continue
    return frozenset(found)


class ClientCounter:
    """Counts the clients of a server.

    Args:
        ports: what `listening_ports` gained when the server started.
        others: how many clients there are besides.
        subscribed: how many of these have subscribed.
    """

    def __init__(
        self,
        ports: frozenset[int],
        others: Callable[[], int] = lambda: 0,
        subscribed: Callable[[], int] = lambda: 0,
    ) -> None:
        self._ports = ports
        self._others = others
        self._subscribed = subscribed

    def connections(self) -> dict[Endpoint, tuple[int, int] | None]:
        """Clients by their address, with the bytes acknowledged and received, if known."""
        import psutil

        found: dict[Endpoint, tuple[int, int] | None] = {}
        for connection in psutil.Process().net_connections(kind="tcp"):
            if (
                connection.status == psutil.CONN_ESTABLISHED
                and connection.laddr.port in self._ports
                and connection.raddr
            ):
                found[(connection.raddr.ip, connection.raddr.port)] = _traffic(connection.fd)
        return found

    def wait(
        self,
        n: int,
        timeout: float,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> int:
        """Wait until `n` clients are connected and quiet, the time (s) is over or `stop` is set.

        Returns:
            number of clients connected and quiet; when the time is over, of those connected.
        """
        end = clock() + timeout
        before: object = None
        since = clock()
        while True:
            now, others = self.connections(), self._others()
            state = now, others, self._subscribed()
            if state != before:
                before, since = state, clock()
            quiet = clock() - since >= (_SETTLE if None in now.values() else _QUIET)
            came = len(now) + others
            if (came >= n and quiet) or clock() >= end or stop.wait(_POLL):
                return came


def _traffic(fd: int) -> tuple[int, int] | None:
    """Bytes acknowledged and received on a socket of this process; None where that is not known."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None or fd < 0:
        return None
    try:
        # A duplicate, so that closing it leaves the server's own descriptor open.
        with socket.socket(fileno=os.dup(fd)) as twin:
            info = twin.getsockopt(
                socket.IPPROTO_TCP, option, _COUNTERS_AT + _BYTES_ACKED_AND_RECEIVED.size
            )
    except OSError:
        return None
    return (
        _BYTES_ACKED_AND_RECEIVED.unpack_from(info, _COUNTERS_AT)
        if len(info) >= _COUNTERS_AT + 16
        else None
    )
