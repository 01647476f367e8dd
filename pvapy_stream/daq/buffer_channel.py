"""The status of a buffer as a PVA channel."""

from __future__ import annotations

from typing import Any

import pvaccess as pva

from pvapy_stream.daq.buffer_status import BufferStatus

_STRUCTURE: dict[str, Any] = {
    "status": pva.STRING,
    "source": pva.STRING,
    "output": pva.STRING,
    "ranges": pva.STRING,
    "lastError": pva.STRING,
    "received": pva.ULONG,
    "receivedRate": pva.DOUBLE,
    "byteRate": pva.DOUBLE,
    "malformed": pva.ULONG,
    "commands": pva.ULONG,
    "sourceLost": pva.ULONG,
    "channels": pva.ULONG,
    "messages": pva.ULONG,
    "inMemory": pva.ULONG,
    "memory": pva.ULONG,
    "onDisk": pva.ULONG,
    "fill": pva.DOUBLE,
    "seconds": pva.DOUBLE,
    "oldest": pva.LONG,
    "newest": pva.LONG,
    "dropped": pva.ULONG,
    "outputSent": pva.ULONG,
    "outputLost": pva.ULONG,
    "outputPending": pva.ULONG,
    "readers": pva.ULONG,
    "readerSent": pva.ULONG,
    "readerErrors": pva.ULONG,
    "silent": pva.DOUBLE,
}
_NOTHING = -1  # pulse ids and times that are not there


class BufferChannel:
    """Hosts the status channel.

    Args:
        name: its name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._server = pva.PvaServer()
        self._server.addRecord(name, pva.PvObject(_STRUCTURE), None)
        self._server.start()

    def publish(self, status: BufferStatus) -> None:
        """Show how the buffer does."""
        values = {
            _camel(name): _NOTHING if value is None else value
            for name, value in status.to_dict().items()
        }
        self._server.update(self._name, pva.PvObject(_STRUCTURE, values))

    def stop(self) -> None:
        """Take the channel away."""
        self._server.removeRecord(self._name)
        self._server.stop()


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
