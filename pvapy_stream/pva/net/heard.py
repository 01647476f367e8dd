"""Which beacons are news: of servers that are new or have changed."""

from __future__ import annotations

from pvapy_stream.pva.wire.buffers import Buffer
from pvapy_stream.pva.wire.searching import TCP, Beacon
from pvapy_stream.pva.wire.stream import HEADER, Command

_SERVERS = 1000  # that are remembered
_COMMAND_AT = 3  # byte of a header
_TAGGED_AT = HEADER + 16 + _COMMAND_AT  # the same after an origin tag


class Heard:
    """Remembers the servers whose beacons were received."""

    def __init__(self) -> None:
        self._changes: dict[bytes, int] = {}

    def is_news(self, beacon: Beacon) -> bool:
        """Whether the server is new, was started again, or has other channels than before."""
        if beacon.protocol != TCP or self._changes.get(beacon.identity) == beacon.changes:
            return False
        if beacon.identity not in self._changes and len(self._changes) >= _SERVERS:
            del self._changes[next(iter(self._changes))]
        self._changes[beacon.identity] = beacon.changes
        return True


def may_be_beacon(data: Buffer) -> bool:
    """Whether a datagram is worth reading for who wants beacons alone."""
    at = _TAGGED_AT if data[_COMMAND_AT : _COMMAND_AT + 1] == _TAG else _COMMAND_AT
    return data[at : at + 1] == _BEACON


_TAG, _BEACON = bytes([Command.ORIGIN_TAG]), bytes([Command.BEACON])
