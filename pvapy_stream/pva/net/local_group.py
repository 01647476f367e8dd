"""The multicast group of a host: all PVAccess programs of the host receive what is sent to it.

Of several programs that listen at an address of the host, only one gets what is sent there. It
passes a search on to this group, over loopback, with the address that it came to. It may be
stopped, busy, or about to end, and then nobody receives it. So our clients and servers send to the
group themselves, as if they were the one that had got it, where an address of the host is
configured.
"""

from __future__ import annotations

import logging
import socket

from pvapy_stream.pva.wire.searching import origin_tag

GROUP = "224.0.0.128"
LOOPBACK_ADDRESS = "127.0.0.1"

_log = logging.getLogger(__name__)


class LocalGroup:
    """Sends to the group. It never leaves the host."""

    def __init__(self) -> None:
        self._link: socket.socket | None = None

    def send(self, data: bytes, port: int, origin: str) -> bool:
        """Send a datagram.

        Args:
            data: a message with the address of the sender in it.
            port: of the group.
            origin: address of the host that it came to, or would come to.

        Returns:
            whether the kernel has taken it.
        """
        try:
            if self._link is None:
                self._link = _to_loopback()
            self._link.sendto(origin_tag(origin) + data, (GROUP, port))
        except OSError as error:
            _log.debug("cannot send to the programs of this host at port %d: %s", port, error)
            return False
        return True

    def close(self) -> None:
        """Send nothing more."""
        if self._link is not None:
            self._link.close()
            self._link = None


def _to_loopback() -> socket.socket:
    # One of its own: through where other groups are sent to is not changed by this.
    link = udp_socket()
    try:
        loopback = socket.inet_aton(LOOPBACK_ADDRESS)
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
    except OSError:
        link.close()
        raise
    return link


def listen(address: str, port: int) -> socket.socket:
    """A socket that receives what is sent to the group, or to another address.

    Raises:
        OSError: nothing can be received there.
    """
    link = udp_socket()
    try:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        link.bind((address, port))
        if address == GROUP:
            joined = socket.inet_aton(GROUP) + socket.inet_aton(LOOPBACK_ADDRESS)
            link.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
    except OSError:
        link.close()
        raise
    return link


def udp_socket() -> socket.socket:
    """A socket that does not block."""
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.setblocking(False)
    return link
