"""How a buffer does, as the REST interface, the status channel and the log show it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BufferStatus:
    """How a buffer does; counts since its start.

    Attributes:
        status: ``waiting`` for the first message, ``receiving``, or ``silent``: no message lately.
        source: where the messages come from.
        output, ranges: addresses of the outputs.
        received: messages taken.
        received_rate: messages/s.
        byte_rate: bytes/s.
        malformed: messages that could not be read, and were let go.
        commands: messages of the sender that are no data.
        source_lost: images that did not come through from a PVA source.
        channels: channels of the newest message.
        messages: messages kept; of these `in_memory`.
        memory: bytes of memory they take.
        on_disk: bytes of disk they take.
        fill: part of the limits that is used, 0 to 1.
        seconds: between the oldest and the newest.
        oldest, newest: pulse ids; None when there is none.
        dropped: messages let go because the limits were reached.
        output_sent, output_lost: pushed on; let go before anybody pulled them.
        output_pending: waiting to be pulled.
        readers: readers of ranges; `reader_sent` messages were given to them.
        reader_errors: requests that were refused, messages that could not be read from disk.
        silent: s since the source was heard; None: never.
        last_error: the last thing that went wrong, or "".
    """

    status: str
    source: str
    output: str
    ranges: str
    received: int
    received_rate: float
    byte_rate: float
    malformed: int
    commands: int
    source_lost: int
    channels: int
    messages: int
    in_memory: int
    memory: int
    on_disk: int
    fill: float
    seconds: float
    oldest: int | None
    newest: int | None
    dropped: int
    output_sent: int
    output_lost: int
    output_pending: int
    readers: int
    reader_sent: int
    reader_errors: int
    silent: float | None
    last_error: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


# Name, kind and help of what is counted; named as the fields are.
METRICS = (
    ("received", "counter", "messages taken"),
    ("malformed", "counter", "messages that could not be read"),
    ("source_lost", "counter", "images that did not come through from the source"),
    ("dropped", "counter", "messages let go because the limits were reached"),
    ("output_sent", "counter", "messages pushed on"),
    ("output_lost", "counter", "messages let go before anybody pulled them"),
    ("reader_sent", "counter", "messages given to readers of ranges"),
    ("reader_errors", "counter", "requests refused, messages that could not be read"),
    ("messages", "gauge", "messages kept"),
    ("memory", "gauge", "bytes of memory that kept messages take"),
    ("on_disk", "gauge", "bytes of disk that kept messages take"),
    ("fill", "gauge", "part of the limits that is used"),
    ("seconds", "gauge", "seconds between the oldest and the newest message"),
    ("oldest", "gauge", "oldest pulse id kept"),
    ("newest", "gauge", "newest pulse id"),
    ("readers", "gauge", "readers of ranges"),
    ("received_rate", "gauge", "messages per second"),
    ("byte_rate", "gauge", "bytes per second"),
    ("silent", "gauge", "seconds since the source was heard"),
)
