"""Searches by UDP, as they are sent."""

from __future__ import annotations

import logging
import socket
from collections.abc import Collection, Iterable, Mapping

from pvapy_stream.pva.net.environment import Address
from pvapy_stream.pva.net.local_group import LOOPBACK_ADDRESS, LocalGroup
from pvapy_stream.pva.wire.searching import UNICAST, search_message

_log = logging.getLogger(__name__)


class Questions:
    """Asks who serves channels.

    Args:
        asked: where, and whether one program alone gets what is sent there; see `asked_by_udp`.
        own: addresses of this host.
    """

    def __init__(self, asked: Iterable[tuple[Address, bool]], own: Collection[str]) -> None:
        self.asked = list(asked)
        self._own = own
        self._group = LocalGroup()

    def send(self, link: socket.socket, names: Mapping[int, str], by_group: bool) -> None:
        """Ask once.

        Whoever gets what is sent to this host may be stopped, or about to end. Servers that have
        not joined the group only receive what is sent to the host. So it is asked in turns; both at
        the same time would double the replies.

        Args:
            link: gets the replies; may send to broadcast addresses.
            names: of the channels, by number.
            by_group: whether the programs of this host are asked by the group.
        """
        port = link.getsockname()[1]
        for address, alone in self.asked:
            if by_group and address[0] in self._own:
                made = search_message(names, port, address=LOOPBACK_ADDRESS)
                if self._group.send(made, address[1], address[0]):
                    continue
            try:
                # To one of several servers on a host; it passes it on to the others.
                link.sendto(search_message(names, port, UNICAST if alone else 0), address)
            except OSError as error:
                _log.debug("%s:%d cannot be asked: %s", *address, error)

    def close(self) -> None:
        """Ask no more."""
        self._group.close()
