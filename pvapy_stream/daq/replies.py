"""Requests and replies of the writer's REST interface."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from pvapy_stream.daq.progress import Progress


class StartRequest(BaseModel):
    """Options of a start besides the pulse."""

    model_config = ConfigDict(extra="forbid")

    output_file: str | None = Field(
        None, description="file to write instead of that of the command line, below its folder"
    )
    stop_pulse_id: int | None = Field(None, description="last pulse of the range, if it is known")
    force: bool = Field(False, description="replace the file if it exists; only with --force")


class RestReply(BaseModel):
    """Fields of every reply.

    `state` is ok, or error when the request failed; `status` is waiting, writing, done or error
    for a request that succeeded, and else says what was wrong.
    """

    state: str = "ok"
    status: str


class StatusReply(RestReply):
    """Short status of an acquisition."""

    acquisition: int = Field(description="number of the acquisition, 1 for the first")
    phase: str = Field(description="waiting, armed, writing, finishing, done or error")
    problem: str = Field(description="reason of the error, or the current problem")
    source: str = Field(description="alive, silent, or unseen if no message has ever arrived")
    file: str
    start_pulse_id: int | None
    stop_pulse_id: int | None
    missing: list[tuple[int, int]] = Field(
        description="ranges of requested pulse ids that are lost, first and last"
    )


class Statistics(BaseModel):
    """All that is counted; times in s, but for timestamps, which are s since 1970-01-01 UTC."""

    start_pulse_id: int | None
    stop_pulse_id: int | None
    start_timestamp: float | None = Field(description="time of a start without pulse id")
    stop_timestamp: float | None = Field(description="time of a stop without pulse id")
    last_pulse_id: int = Field(description="-1 before the first")
    last_timestamp: float | None
    first_pulse_id: int | None
    newest_pulse_id: int | None = Field(description="newest pulse of the source")
    n_rows: int
    n_bytes: int
    rate: float = Field(description="messages/s")
    byte_rate: float = Field(description="bytes/s")
    lag: float | None = Field(description="age of the newest message")
    time_left: float | None
    n_skipped: int = Field(description="messages from before the range")
    n_duplicates: int
    n_late: int
    n_malformed: int
    last_error: str
    damaged_values: dict[str, int]
    n_lost: int
    lost: list[tuple[int, int]] = Field(description="the newest of at most 100 ranges")


class StatisticsReply(RestReply):
    """Status of an acquisition, in numbers."""

    acquisition: int
    statistics: Statistics


class ParametersReply(RestReply):
    """The values that were set."""

    parameters: dict[str, object]


class OverviewReply(RestReply):
    """All acquisitions that are remembered, the newest last."""

    stream: str
    acquisitions: list[dict[str, object]]


class ErrorReply(BaseModel):
    """Why a request failed."""

    state: str = "error"
    status: str


def statistics_of(one: Progress) -> Statistics:
    """The numbers, with the names of the original writer."""
    return Statistics(
        start_pulse_id=one.start_pulse_id,
        stop_pulse_id=one.stop_pulse_id,
        start_timestamp=_seconds(one.start_ns),
        stop_timestamp=_seconds(one.stop_ns),
        last_pulse_id=-1 if one.last_pulse_id is None else one.last_pulse_id,
        last_timestamp=_seconds(one.last_timestamp_ns),
        first_pulse_id=one.first_pulse_id,
        newest_pulse_id=one.newest_pulse_id,
        n_rows=one.rows,
        n_bytes=one.n_bytes,
        rate=one.rate,
        byte_rate=one.byte_rate,
        lag=one.lag,
        time_left=one.time_left,
        n_skipped=one.skipped,
        n_duplicates=one.duplicates,
        n_late=one.late,
        n_malformed=one.malformed,
        last_error=one.last_error,
        damaged_values=one.damaged,
        n_lost=one.n_lost,
        lost=one.lost,
    )


def status_of(one: Progress) -> StatusReply:
    """The state, in short."""
    return StatusReply(
        status=one.status,
        acquisition=one.number,
        phase=one.phase,
        problem=one.problem,
        source=one.source,
        file=one.file,
        start_pulse_id=one.start_pulse_id,
        stop_pulse_id=one.stop_pulse_id,
        missing=one.lost,
    )


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9
