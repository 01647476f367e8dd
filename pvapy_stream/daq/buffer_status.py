"""Status of a buffer, for the REST interface, the status channel and the log."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct
from msgspec.structs import asdict

from pvapy_stream.daq.pulse_ledgers import channel_of
from pvapy_stream.status.snapshot import (
    NOTHING,
    Own,
    ProcessorStats,
    PublisherStats,
    QueueStats,
    ReceiverStats,
    Snapshot,
)


class BufferStatus(Struct, frozen=True):
    """Status of a buffer; counts since its start.

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
        fill: used fraction of the limits, 0 to 1.
        seconds: between the oldest and the newest.
        oldest, newest: pulse ids; None when there is none.
        dropped: messages dropped because the limits were reached.
        output_sent, output_lost: pushed on; let go before anybody pulled them.
        output_pending: waiting to be pulled.
        readers: readers of ranges; `reader_sent` messages were given to them.
        reader_errors: requests that were refused, messages that could not be read from disk.
        silent: s since the last message of the source; None: never.
        last_error: the last thing that went wrong, or "".
    """

    status: Annotated[str, Own(channel=False)]
    source: str
    output: str
    ranges: str
    received: Annotated[int, Own("received", text="messages taken")]
    malformed: Annotated[int, Own("malformed", text="messages that could not be read")]
    commands: int
    source_lost: Annotated[int, Own("source_lost", text="images of the source that did not arrive")]
    channels: int
    messages: Annotated[int, Own("messages", "gauge", "messages kept")]
    in_memory: int
    memory: Annotated[int, Own("memory", "gauge", "bytes of memory for kept messages")]
    on_disk: Annotated[int, Own("on_disk", "gauge", "bytes of disk for kept messages")]
    dropped: Annotated[int, Own("dropped", text="messages dropped because the limits were reached")]
    output_sent: Annotated[int, Own("output_sent", text="messages pushed")]
    output_lost: Annotated[int, Own("output_lost", text="messages dropped before they were pulled")]
    output_pending: int
    readers: Annotated[int, Own("readers", "gauge", "readers of ranges")]
    reader_sent: Annotated[int, Own("reader_sent", text="messages sent to readers of ranges")]
    reader_errors: Annotated[
        int, Own("reader_errors", text="refused requests, and messages that could not be read")
    ]
    received_rate: Annotated[float, Own("received_rate", "gauge", "messages per second")]
    byte_rate: Annotated[float, Own("byte_rate", "gauge", "bytes per second")]
    fill: Annotated[float, Own("fill", "gauge", "used fraction of the limits")]
    seconds: Annotated[
        float, Own("seconds", "gauge", "seconds between the oldest and the newest message")
    ]
    silent: Annotated[
        float | None, Own("silent", "gauge", "seconds since the last message of the source")
    ]
    oldest: Annotated[int | None, Own("oldest", "gauge", "oldest pulse id kept")]
    newest: Annotated[int | None, Own("newest", "gauge", "newest pulse id")]
    last_error: Annotated[str, Own(channel=False)]

    def to_dict(self) -> dict[str, object]:
        """As JSON has it."""
        return asdict(self)

    def snapshot(self, state: str = "") -> Snapshot:
        """The status in the form of all programs.

        Args:
            state: another than that of the stream.
        """
        newest = NOTHING if self.newest is None else self.newest
        return Snapshot(
            "buffer",
            own=self,
            state=state or self.status,
            message=self.last_error,
            input_channel=channel_of(self.source),
            # Readers of ranges know it by the first, those who pull by the second.
            output_channel=f"{self.ranges},{self.output}",
            object_id=newest,
            receiver_stats=ReceiverStats(
                self.received, self.received_rate, n_errors=self.malformed
            ),
            # Messages that the limits drop are not a loss: that is the purpose of a buffer.
            processor_stats=ProcessorStats(
                n_processed=self.received,
                processed_rate=self.received_rate,
                n_missed=self.source_lost,
                last_object_id=newest,
            ),
            publisher_stats=PublisherStats(
                self.output_sent + self.reader_sent,
                n_errors=self.reader_errors,
                n_rejected=self.output_lost,
            ),
            # Without a program that pulls, nothing waits.
            queue_stats=QueueStats(n_queued=self.output_pending if self.output_sent else 0),
        )
