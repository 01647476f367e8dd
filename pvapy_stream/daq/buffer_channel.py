"""How a buffer does, as its status channel shows it."""

from __future__ import annotations

from typing import Any

import pvaccess as pva

from pvapy_stream.daq.accounts import channel_of
from pvapy_stream.daq.buffer_status import BufferStatus
from pvapy_stream.hpc.status import Stats

# Fields that a buffer's status channel has beside those of all programs.
STATUS_FIELDS: dict[str, Any] = {
    **dict.fromkeys(("source", "output", "ranges"), pva.STRING),
    **dict.fromkeys(
        (
            "received", "malformed", "commands", "sourceLost", "channels", "messages", "inMemory",
            "memory", "onDisk", "dropped", "outputSent", "outputLost", "outputPending", "readers",
            "readerSent", "readerErrors",
        ),
        pva.ULONG,
    ),
    **dict.fromkeys(("receivedRate", "byteRate", "fill", "seconds", "silent"), pva.DOUBLE),
    **dict.fromkeys(("oldest", "newest"), pva.LONG),
}  # fmt: skip
_NOTHING = -1  # pulse ids and times that are not there


def buffer_stats(status: BufferStatus) -> Stats:
    """All that the status channel of a buffer shows."""
    named = {_camel(k): _NOTHING if v is None else v for k, v in status.to_dict().items()}
    return {
        **{name: named[name] for name in STATUS_FIELDS},
        "state": status.status,
        "message": status.last_error,
        "inputChannel": channel_of(status.source),
        # Readers of ranges know it by the first, those who pull by the second.
        "outputChannel": f"{status.ranges},{status.output}",
        "objectId": named["newest"],
        "receiverStats": {
            "nReceived": status.received,
            "receivedRate": status.received_rate,
            "nErrors": status.malformed,
        },
        # What the limits let go is no loss: that is a buffer's work.
        "processorStats": {
            "nProcessed": status.received,
            "processedRate": status.received_rate,
            "nMissed": status.source_lost,
            "lastObjectId": named["newest"],
        },
        "publisherStats": {
            "nPublished": status.output_sent + status.reader_sent,
            "nErrors": status.reader_errors,
            "nRejected": status.output_lost,
        },
        # Where nobody pulls, nobody waits.
        "queueStats": {"nQueued": status.output_pending if status.output_sent else 0},
    }


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))
