"""Searches for the servers of PVA channels, by UDP, without the binding.

If two servers have a channel of the same name, a client gets one of them by chance, so a program
searches for a name before it hosts it. The binding does not report how many servers answer, and its
search has no time limit.
Name servers (EPICS_PVA_NAME_SERVERS) are not asked.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from pvapy_stream.errors import TransportError, WireError
from pvapy_stream.pva.net.environment import known_addresses, own_addresses
from pvapy_stream.pva.net.questions import Questions
from pvapy_stream.pva.wire.searching import SearchReply, datagram, found_in

_TIMEOUT = 0.3  # s; for an answer
_PATIENCE = 3.0  # s; for a server that is stopping, or whose end a gateway has not noticed
_AGAIN = 0.1  # s; a datagram may be lost
_LOOK_AGAIN = (3.0, 7.0, 20.0, 60.0)  # s; pauses between searches for other servers of our names

_log = logging.getLogger(__name__)

Servers = dict[str, dict[bytes, str]]  # by name: identity of each server, and its address


def find_servers(names: Sequence[str], timeout: float = _TIMEOUT) -> Servers:
    """Find the servers of channels.

    Args:
        names: of the channels.
        timeout: s; for the answers. It is used up if a name has no server.

    Returns:
        for each name, the servers that answered, by their identity; empty also when the network
        cannot be asked.
    """
    found: Servers = {name: {} for name in names}
    questions = Questions(known_addresses(), own_addresses())
    asked, by_group = dict(enumerate(names)), True
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            link.bind(("", 0))
            end, again = time.monotonic() + timeout, 0.0
            while (now := time.monotonic()) < end:
                if now >= again:
                    again = now + _AGAIN
                    questions.send(link, asked, by_group)
                    by_group = not by_group
                link.settimeout(max(0.001, min(again, end) - now))
                try:
                    answer, sender = link.recvfrom(65536)
                except TimeoutError:
                    continue
                for reply in _replies(answer, sender[0]):
                    for number in reply.channels:
                        if number < len(names):
                            found[names[number]][reply.identity] = f"{reply.address}:{reply.port}"
    except OSError:
        return found
    finally:
        questions.close()
    return found


class NameCheck:
    """Checks, while a program starts, whether others serve the names that it is going to host.

    Args:
        names: of the channels; empty ones are left out.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = [name for name in dict.fromkeys(names) if name]
        self._found: Servers = {}
        self._thread = threading.Thread(target=self._look, name="names", daemon=True)
        if self._names:
            self._thread.start()

    def _look(self) -> None:
        self._found = find_servers(self._names)
        end = time.monotonic() + _PATIENCE
        while any(self._found.values()) and time.monotonic() < end:
            time.sleep(_AGAIN)
            self._found = find_servers(self._names)

    def taken(self) -> str:
        """Wait for the search; a sentence with a name that is served and its server, else ""."""
        if self._names:
            self._thread.join(_PATIENCE + 5 * _TIMEOUT)
        for name, servers in self._found.items():
            if servers:
                where = " and ".join(sorted(set(servers.values())))
                return f"channel {name} is already served by the program at {where}"
        return ""

    def refuse(self, incarnation: int = 1) -> None:
        """Wait for the search.

        Args:
            incarnation: how often the program was started; for a restarted program, a name
                that is served is only logged: it may be a remainder of the process before.

        Raises:
            TransportError: another program serves one of the names.
        """
        taken = self.taken()
        if taken and incarnation == 1:
            raise TransportError(f"{taken}; stop that program, or give another name")
        if taken:
            _log.warning("%s", taken)


class TwinWatch:
    """Checks, while a program runs, whether others serve its names too.

    Two programs that start at the same time do not find each other before they serve. A name may
    also be hosted only when the first object arrives.

    Args:
        names: of the channels that the program hosts; empty ones are left out.
        report: called once at most, from a thread, with a sentence about a name served twice.
    """

    def __init__(self, names: Iterable[str], report: Callable[[str], None]) -> None:
        self._names = [name for name in dict.fromkeys(names) if name]
        self._report = report
        self._stop = threading.Event()
        if self._names:
            threading.Thread(target=self._run, name="twins", daemon=True).start()

    def stop(self) -> None:
        """End the checks."""
        self._stop.set()

    def _run(self) -> None:
        for pause in _LOOK_AGAIN:
            if self._stop.wait(pause):
                return
            problem = served_twice(self._names)
            if problem and not self._stop.is_set():
                self._report(problem)
                return


def served_twice(names: Iterable[str]) -> str:
    """A sentence with a name that several servers have, and these servers; "" for none."""
    for name, servers in find_servers([name for name in names if name]).items():
        if len(servers) > 1:
            where = ", ".join(sorted(servers.values()))
            return (
                f"channel {name} is served by {len(servers)} programs ({where}): a client may get"
                " either of them; stop one, or give it another name"
            )
    return ""


def _replies(data: bytes, sender: str) -> list[SearchReply]:
    try:
        return found_in(datagram(data), sender)
    except WireError:
        return []
