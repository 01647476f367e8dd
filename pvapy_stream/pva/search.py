"""Asks the network who serves PVA channels, by UDP, without the binding.

A name that two servers serve gets clients of either by chance, so it is looked for before it is
hosted. The binding cannot tell how many servers answer, and its search cannot be given a limit.
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
_PATIENCE = 3.0  # s; a server that has been told to end, or whose end a gateway has not noticed
_AGAIN = 0.1  # s; a datagram may be lost
_LOOK_AGAIN = (3.0, 7.0, 20.0, 60.0)  # s; from one look for others with our names to the next

_log = logging.getLogger(__name__)

Servers = dict[str, dict[bytes, str]]  # by name: identity of each server, and its address


def find_servers(names: Sequence[str], timeout: float = _TIMEOUT) -> Servers:
    """Who serves channels.

    Args:
        names: of the channels.
        timeout: s; how long answers are waited for. A name nobody serves takes all of it.

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
    """Looks, while a program starts, whether others serve the names that it is going to host.

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
        """Which name is served by whom, in a sentence; "" when none is. Waits for the search."""
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
            incarnation: how often the program was started; when it was started again, what is left
                of the one before must not keep it from its work, and is only logged.

        Raises:
            TransportError: another program serves one of the names.
        """
        taken = self.taken()
        if taken and incarnation == 1:
            raise TransportError(f"{taken}; stop that program, or give another name")
        if taken:
            _log.warning("%s", taken)


class TwinWatch:
    """Looks, while a program runs, whether others serve its names too.

    Of two that start together, neither sees the other before it serves. A name may also be hosted
    only when the first object comes.

    Args:
        names: that the program hosts; empty ones are left out.
        tell: gets a sentence, once, from a thread.
    """

    def __init__(self, names: Iterable[str], tell: Callable[[str], None]) -> None:
        self._names = [name for name in dict.fromkeys(names) if name]
        self._tell = tell
        self._stop = threading.Event()
        if self._names:
            threading.Thread(target=self._run, name="twins", daemon=True).start()

    def stop(self) -> None:
        """Look no longer."""
        self._stop.set()

    def _run(self) -> None:
        for pause in _LOOK_AGAIN:
            if self._stop.wait(pause):
                return
            told = served_twice(self._names)
            if told and not self._stop.is_set():
                self._tell(told)
                return


def served_twice(names: Iterable[str]) -> str:
    """Which name several servers serve, in a sentence; "" when none is."""
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
