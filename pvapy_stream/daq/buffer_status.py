"""Status of a buffer, for the REST interface, the status channel and the log."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pvapy_stream.daq.pulse_ledgers import channel_of
from pvapy_stream.status.snapshot import (
    NOTHING,
    ProcessorStats,
    PublisherStats,
    QueueStats,
    ReceiverStats,
    Snapshot,
    own,
)


@dataclass(frozen=True, slots=True)
class BufferStatus:
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

    status: str = own(channel=False)
    source: str = own()
    output: str = own()
    ranges: str = own()
    received: int = own("received", text="messages taken")
    malformed: int = own("malformed", text="messages that could not be read")
    commands: int = own()
    source_lost: int = own("source_lost", text="images of the source that did not arrive")
    channels: int = own()
    messages: int = own("messages", "gauge", "messages kept")
    in_memory: int = own()
    memory: int = own("memory", "gauge", "bytes of memory for kept messages")
    on_disk: int = own("on_disk", "gauge", "bytes of disk for kept messages")
    dropped: int = own("dropped", text="messages dropped because the limits were reached")
    output_sent: int = own("output_sent", text="messages pushed")
    output_lost: int = own("output_lost", text="messages dropped before they were pulled")
    output_pending: int = own()
    readers: int = own("readers", "gauge", "readers of ranges")
    reader_sent: int = own("reader_sent", text="messages sent to readers of ranges")
    reader_errors: int = own(
        "reader_errors", text="refused requests, and messages that could not be read"
    )
    received_rate: float = own("received_rate", "gauge", "messages per second")
    byte_rate: float = own("byte_rate", "gauge", "bytes per second")
    fill: float = own("fill", "gauge", "used fraction of the limits")
    seconds: float = own("seconds", "gauge", "seconds between the oldest and the newest message")
    silent: float | None = own("silent", "gauge", "seconds since the last message of the source")
    oldest: int | None = own("oldest", "gauge", "oldest pulse id kept")
    newest: int | None = own("newest", "gauge", "newest pulse id")
    last_error: str = own(channel=False)

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
