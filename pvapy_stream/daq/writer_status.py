"""Status of a writer, in the form of all programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Struct

from pvapy_stream.daq.progress import Progress
from pvapy_stream.daq.pulse_ledgers import channel_of
from pvapy_stream.daq.states import Phase
from pvapy_stream.daq.writer import AcquisitionWriter
from pvapy_stream.status.snapshot import (
    NOTHING,
    LatencyStats,
    Number,
    Own,
    ProcessorStats,
    ReceiverStats,
    Snapshot,
)

_RUNNING = (Phase.ARMED.value, Phase.WRITING.value, Phase.FINISHING.value)
_LOST_SHOWN = 20  # ranges


class WriterStatus(Struct, frozen=True):
    """Fields of writers only: the newest acquisition, and the sums of all for the metrics."""

    acquisition: Number
    phase: str
    status: str
    source: str
    file: str
    lost: str
    start_pulse_id: int | None
    stop_pulse_id: int | None
    first_pulse_id: int | None
    last_pulse_id: int | None
    newest_pulse_id: int | None
    rows: int
    bytes: int
    n_lost: int
    duplicates: int
    late: int
    malformed: int
    rate: float
    byte_rate: float
    lag: float | None
    time_left: float | None

    all_rows: Annotated[int, Own("written_messages", text="Messages written.", channel=False)]
    all_bytes: Annotated[
        int, Own("written_bytes", text="Bytes of messages written.", channel=False)
    ]
    all_lost: Annotated[
        int, Own("lost_pulses", text="Requested pulses that did not arrive.", channel=False)
    ]
    all_late: Annotated[
        int, Own("late_pulses", text="Pulses that arrived after a higher one.", channel=False)
    ]
    all_duplicates: Annotated[
        int, Own("duplicate_pulses", text="Pulses that arrived again.", channel=False)
    ]
    all_malformed: Annotated[
        int, Own("malformed_messages", text="Messages that could not be read.", channel=False)
    ]
    failed: Annotated[
        int, Own("failed_acquisitions", "gauge", "Acquisitions in error.", channel=False)
    ]
    busy: Annotated[int, Own("acquisitions", "gauge", "Running acquisitions.", channel=False)]
    newest_lag: Annotated[
        float | None,
        Own(
            "lag_seconds",
            "gauge",
            "Time from a message's time stamp until it is taken.",
            channel=False,
        ),
    ]


def writer_snapshot(stream: str, found: Sequence[Progress], state: str = "") -> Snapshot:
    """The status of a writer.

    Args:
        stream: source of its messages.
        found: status of each acquisition, the newest last.
        state: of the program; that of the newest acquisition when not given.
    """
    newest = found[-1]
    last = NOTHING if newest.last_pulse_id is None else newest.last_pulse_id
    skipped, damaged = _total(found, "skipped"), sum(sum(one.damaged.values()) for one in found)
    status = _own(found)
    # The newest message is enough: there is one queue, and one order.
    lag = newest.lag if newest.phase in _RUNNING else None
    return Snapshot(
        "writer",
        own=status,
        labels={"stream": stream},
        state=state or newest.phase,
        message=newest.problem or newest.last_error,
        input_channel=channel_of(stream),
        object_id=last,
        receiver_stats=ReceiverStats(status.all_rows + skipped, n_errors=status.all_malformed),
        processor_stats=ProcessorStats(
            n_processed=status.all_rows,
            processed_rate=newest.rate,
            n_errors=damaged + status.failed,
            n_missed=status.all_lost,
            n_skipped=skipped,
            first_object_id=NOTHING if newest.first_pulse_id is None else newest.first_pulse_id,
            last_object_id=last,
        ),
        latency_stats=LatencyStats() if lag is None else LatencyStats(1, lag, lag, lag, lag, lag),
    )


def snapshot_of(writer: AcquisitionWriter) -> Snapshot:
    """The status of a writer; a service that has nothing to do waits for the next request."""
    found = [one.progress() for one in writer.acquisitions]
    state = found[-1].phase
    if writer.settings.service and state not in _RUNNING:
        state = "stopped" if writer.ended.is_set() else Phase.WAITING.value
    return writer_snapshot(writer.settings.stream, found, state)


def _total(found: Sequence[Progress], name: str) -> int:
    return sum(getattr(one, name) for one in found)


def _own(found: Sequence[Progress]) -> WriterStatus:
    newest = found[-1]
    same = (
        "phase", "status", "source", "file", "start_pulse_id", "stop_pulse_id", "first_pulse_id",
        "last_pulse_id", "newest_pulse_id", "rows", "n_lost", "duplicates", "late", "malformed",
        "rate", "byte_rate", "lag", "time_left",
    )  # fmt: skip
    return WriterStatus(
        **{name: getattr(newest, name) for name in same},
        acquisition=newest.number,
        bytes=newest.n_bytes,
        lost=" ".join(
            f"{first}-{last}" if last > first else str(first)
            for first, last in newest.lost[-_LOST_SHOWN:]
        ),
        all_rows=_total(found, "rows"),
        all_bytes=_total(found, "n_bytes"),
        all_lost=_total(found, "n_lost"),
        all_late=_total(found, "late"),
        all_duplicates=_total(found, "duplicates"),
        all_malformed=_total(found, "malformed"),
        failed=sum(one.phase == Phase.ERROR.value for one in found),
        busy=sum(one.phase in _RUNNING for one in found),
        newest_lag=next((one.lag for one in reversed(found) if one.lag is not None), None),
    )
